package container

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// of is an environment to look things up in.
func of(env ...string) Lookup {
	return func(name string) (string, bool) {
		for _, line := range env {
			if n, value, _ := strings.Cut(line, "="); n == name {
				return value, true
			}
		}
		return "", false
	}
}

// TestEnv has what docker 28 with a daemon 20.10 was seen to do, but for the order, which
// programs do not see.
func TestEnv(t *testing.T) {
	image := []string{"PATH=/bin", "A=img", "B=img"}
	file := filepath.Join(t.TempDir(), "env")
	require.NoError(t, os.WriteFile(file, []byte("B=file\nX=file\nHOST\nNONE\n"), 0o600))
	for _, tt := range []struct {
		name         string
		files, flags []string
		want         []string
	}{
		{"the image's", nil, nil, []string{"PATH=/bin", "A=img", "B=img"}},
		{"over the image's", nil, []string{"B=2", "B=3", "C=", "D=a b=c"}, []string{"PATH=/bin", "A=img", "B=3", "C=", "D=a b=c"}},
		{"the host's", nil, []string{"HOST", "PATH"}, []string{"PATH=/host", "A=img", "B=img", "HOST=h"}},
		{"nobody's", nil, []string{"A", "NONE"}, []string{"PATH=/bin", "B=img"}},
		{"a blank in a name", nil, []string{"A B=1"}, []string{"PATH=/bin", "A=img", "B=img", "A B=1"}},
		{"a file", []string{file}, nil, []string{"PATH=/bin", "A=img", "B=file", "X=file", "HOST=h"}},
		{"flags over a file", []string{file}, []string{"X=9", "HOST=mine"}, []string{"PATH=/bin", "A=img", "B=file", "X=9", "HOST=mine"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Env(image, tt.files, tt.flags, of("HOST=h", "PATH=/host"))
			require.NoError(t, err)
			require.Equal(t, tt.want, got)
		})
	}
	for flag, text := range map[string]string{"": "has no name", "=x": `--env "=x"`, "A=\x00": "NUL"} {
		_, err := Env(image, nil, []string{flag}, of())
		require.ErrorContains(t, err, text)
	}
	_, err := Env(image, []string{file + "x"}, nil, of())
	require.ErrorIs(t, err, os.ErrNotExist)
	require.ErrorContains(t, err, "--env-file")
	got, err := Env([]string{"=odd", "", "NOVALUE", "A=1"}, nil, nil, of())
	require.NoError(t, err)
	require.Equal(t, []string{"A=1"}, got, "what an image says that is no variable")
}

func TestParseEnvFile(t *testing.T) {
	for _, tt := range []struct{ text, want, err string }{
		{text: "\xef\xbb\xbf# comment\nX=1\n  Y=2\nZ=\"q\"\n\n \nHOME\nNOPE\nV=a #b \n#W\nU=", want: "X=1|Y=2|Z=\"q\"|HOME=/h|V=a #b |U="},
		{text: "X=1\r\nY=2\r\n", want: "X=1|Y=2"},
		{text: "", want: ""},
		{text: "a.b-c=1", want: "a.b-c=1"},
		{text: "X=1\nA B=2\n", err: "f:2: the name \"A B\" has a blank"},
		{text: "W = 3", err: "f:1: the name \"W \" has a blank"},
		{text: "HOME ", err: "f:1: the name \"HOME \" has a blank"},
		{text: "X=1\n\n=2", err: "f:3: \"=2\" has no name"},
		{text: "X=1\n\xff=2\n", err: "f:2: \"\\xff=2\" is not UTF-8"},
		{text: "X=1\x00", err: "f:1: a line can have no NUL"},
		{text: strings.Repeat("X=1234567\n", maxEnvFile/10+1), err: "that is no list of variables"},
		{text: "X=" + strings.Repeat("x", maxEnvFile), err: "that is no list of variables"},
	} {
		got, err := ParseEnvFile("f", strings.NewReader(tt.text), of("HOME=/h"))
		if tt.err != "" {
			require.ErrorContains(t, err, tt.err)
			continue
		}
		require.NoError(t, err)
		require.Equal(t, tt.want, strings.Join(got, "|"))
	}
}

// TestOverlay: whoever comes last decides, and no name comes twice.
func TestOverlay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		line := rapid.Custom(func(t *rapid.T) string {
			name := rapid.SampledFrom([]string{"A", "B", "C"}).Draw(t, "name")
			return name + rapid.SampledFrom([]string{"", "=", "=1", "=2"}).Draw(t, "value")
		})
		base, over := rapid.SliceOf(line).Draw(t, "base"), rapid.SliceOf(line).Draw(t, "over")
		want := map[string]string{}
		for _, l := range append(append([]string{}, base...), over...) {
			name, value, set := strings.Cut(l, "=")
			delete(want, name)
			if set {
				want[name] = value
			}
		}
		got := map[string]string{}
		for _, l := range overlay(base, over) {
			name, value, _ := strings.Cut(l, "=")
			require.NotContains(t, got, name)
			got[name] = value
		}
		require.Equal(t, want, got)
	})
}

func FuzzParseEnvFile(f *testing.F) {
	f.Add([]byte("\xef\xbb\xbf# comment\nX=1\n  Y=2\nHOME\nNOPE\nV=a #b \n"))
	f.Add([]byte("A=1\r\nB\r\n"))
	f.Add([]byte("A B=1\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		lines, err := ParseEnvFile("file", strings.NewReader(string(text)), of("HOME=/h"))
		if err != nil {
			require.ErrorContains(t, err, "file")
			return
		}
		for _, line := range lines {
			name, _, set := strings.Cut(line, "=")
			require.True(t, set)
			require.NotEmpty(t, name)
			require.False(t, strings.ContainsAny(line, "\n\x00"))
		}
	})
}
