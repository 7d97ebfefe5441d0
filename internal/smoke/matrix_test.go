package smoke

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/boot"
)

func TestShortened(t *testing.T) {
	require.Equal(t, []string{"a/bzImage", "b/bzImage"}, shortened([]texts{{"/x/a/bzImage"}, {"/x/b/bzImage"}}))
	require.Equal(t, []string{"a", "a"}, shortened([]texts{{"a"}, {"a"}}))
	require.Equal(t, []string{"", "a+b", "b"}, shortened([]texts{nil, {"/x/a", "/x/b"}, {"/x/b"}}))
}

// TestMatrixNames: files are told by the ends of their paths, all else in full.
func TestMatrixNames(t *testing.T) {
	cases, err := parseFile([]byte("cases:\n  - matrix: {append: [root=/dev/vda, root=/dev/vdb/x], disks: [/a/one, [/a/two, /a/three]]}"), "", Given{})
	require.NoError(t, err)
	require.Len(t, cases, 4)
	require.Equal(t, "case 1 [append=root=/dev/vda, disks=one]", cases[0].Name)
	require.Equal(t, "case 1 [append=root=/dev/vdb/x, disks=two+three]", cases[3].Name)
}

func TestSameNames(t *testing.T) {
	for text, want := range map[string]string{
		"cases:\n  - name: a\n  - name: a":      "a: another one has the same name (f.yaml:2 and f.yaml:3)",
		"cases:\n  - matrix: {cpus: [1, 1]}":    "same name",
		"cases:\n  - name: case 2\n  - cpus: 3": "same name",
	} {
		path := filepath.Join(t.TempDir(), "f.yaml")
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		cases, err := ReadFile(path, Given{})
		require.NoError(t, err)
		for i := range cases {
			cases[i].File = filepath.Base(path)
		}
		err = SameNames(cases)
		require.ErrorIs(t, err, ErrCase)
		require.ErrorContains(t, err, want)
	}
}

// TestGiven: the command line goes over the file, matrix and defaults alike.
func TestGiven(t *testing.T) {
	const text = `
defaults: {append: quiet, disks: d}
cases:
  - kernel: k
    matrix: {kernel: [a, b], cpus: [1, 2], initrd: [x, y], append: [p, q], disks: [e, f]}
`
	given := Given{
		Kernels: []string{"mine"}, CPUs: []int{4}, Memory: []string{"1G", "2G"}, Initrds: []string{"i"}, Disks: []string{"o"},
		Rest: func(c *Case) { c.Append = boot.AddWords(c.Append, "last") },
	}
	cases, err := parseFile([]byte(text), "/dir", given)
	require.NoError(t, err)
	require.Len(t, cases, 4)
	require.Equal(t, "case 1 [append=q, memory=2G]", cases[3].Name)
	for _, c := range cases {
		require.Equal(t, []string{"mine", "i", "o"}, []string{c.Kernel, c.Initrds[0], c.Disks[0]})
		require.Equal(t, 4, c.CPUs)
		require.True(t, strings.HasSuffix(c.Append, " last"))
	}
	cases, err = parseFile([]byte(text), "/dir", Given{CommandLine: "all"})
	require.NoError(t, err)
	require.Len(t, cases, 16)
	require.Equal(t, "all", cases[0].CommandLine)
	require.Empty(t, cases[0].Append)
	require.Equal(t, "/dir/a", cases[0].Kernel)
}

// TestSlowness: the defaults are longer where all is slow, and are no part of the case.
func TestSlowness(t *testing.T) {
	c := Defaults()
	c.Slowness, c.NoOutput = 5, time.Minute
	c = c.withDefaults()
	require.Equal(t, 5*DefaultTimeout, c.Timeout)
	require.Equal(t, time.Minute, c.NoOutput)
	require.NotContains(t, c.Args(), "--timeout")
	require.Contains(t, c.Args(), "--no-output")
}
