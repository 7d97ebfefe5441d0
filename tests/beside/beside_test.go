package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/huskvm/husk/tests/dockerd"
	"github.com/huskvm/husk/vmm/vmmtest"
)

// read is what Docker did when it was recorded.
func read(t *testing.T) map[string]outcome {
	t.Helper()
	b, err := os.ReadFile("testdata/docker.json")
	require.NoError(t, err)
	var all map[string]outcome
	require.NoError(t, json.Unmarshal(b, &all))
	return all
}

// TestBesideDocker: a command does under husk what it does under Docker, or what is
// accepted. Docker's side was recorded, for it needs root and takes its time.
func TestBesideDocker(t *testing.T) {
	vmmtest.Need(t)
	list := slices.DeleteFunc(tests(), func(x test) bool { return !x.quick })
	compare(t, list, read(t))
}

// TestSoakBesideDocker runs all tests, and Docker now if it is here.
func TestSoakBesideDocker(t *testing.T) {
	if os.Getenv("SOAK") == "" {
		t.Skip("make soak runs it: it takes minutes")
	}
	vmmtest.Need(t)
	reference := read(t)
	if err := dockerd.Available(); err != nil {
		t.Log("Docker's side is that of the record:", err)
	} else {
		dir, remove, err := folder()
		require.NoError(t, err)
		defer func() { require.NoError(t, remove()) }()
		d, err := startDocker(t.Context(), filepath.Join(dir, "docker"), image(t), "../../build/kernels/generic")
		require.NoError(t, err)
		defer func() { require.NoError(t, d.daemon.Close()) }()
		for _, g := range groups(tests()) {
			some, err := g.run(t.Context(), d)
			require.NoError(t, err)
			for name, o := range some {
				reference[name] = o
			}
		}
	}
	compare(t, tests(), reference)
}

// image is the archive with the images.
func image(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs("../../build/images/small.tar")
	require.NoError(t, err)
	require.FileExists(t, path, "tests/make-images makes it")
	return path
}

// compare runs tests under husk.
func compare(t *testing.T, list []test, reference map[string]outcome) {
	program, err := filepath.Abs("../../bin/husk")
	require.NoError(t, err)
	require.FileExists(t, program, "make builds it")
	kernel, err := filepath.Abs("../../build/kernels/cloud/vmlinuz")
	require.NoError(t, err)
	dir, err := os.MkdirTemp("", "husk-beside") // t.TempDir's are too long for sockets
	require.NoError(t, err)
	defer os.RemoveAll(dir)
	h, err := newHusk(t.Context(), program, kernel, dir, image(t))
	require.NoError(t, err)
	for _, g := range groups(list) {
		some, err := g.run(t.Context(), h)
		if err != nil {
			t.Errorf("%s: %v", g.tests[0].name, err)
		}
		for _, x := range g.tests {
			o, ran := some[x.name]
			if !ran {
				continue // and said so
			}
			for _, line := range differences(reference[x.name], o) {
				if acceptedReason(x.name, line) == "" {
					t.Errorf("%s: %s", x.name, line)
				}
			}
		}
	}
}

// TestEveryTestIsRecorded: whoever adds one runs beside --record.
func TestEveryTestIsRecorded(t *testing.T) {
	all := read(t)
	seen := map[string]bool{}
	for _, x := range tests() {
		require.False(t, seen[x.name], "two tests are named %q", x.name)
		seen[x.name] = true
		require.Contains(t, all, x.name)
	}
	require.Len(t, all, len(seen), "one was recorded that is no test any more")
	for _, a := range accepted {
		require.NotEmpty(t, a.reason)
		require.True(t, a.test == "" || seen[a.test], "%q is no test", a.test)
	}
}

// here runs a container's command on this host: a runtime without containers.
type here struct{ t testing.TB }

func (h here) run(ctx context.Context, c container) (outcome, error) {
	if len(c.argv) == 0 {
		return outcome{}, errOther
	}
	return finish(ctx, func(ctx context.Context) *exec.Cmd { return exec.CommandContext(ctx, c.argv[0], c.argv[1:]...) }, c.stdin)
}

// TestBatches: scripts that run one after the other in one container do the same as each
// by itself.
func TestBatches(t *testing.T) {
	list := []test{
		{name: "both streams", script: "echo out; echo err >&2; exit 3"},
		{name: "nothing", script: ":"},
		{name: "no newline", script: "printf x; printf y >&2"},
		{name: "empty lines", script: "echo; echo; echo >&2"},
		{name: "its input is its own", script: "cat; echo read", stdin: ""},
		{name: "by itself", argv: []string{"sh", "-c", "cat; exit 4"}, stdin: "in"},
		{name: "cannot", image: "other"},
		{name: "killed", script: "kill -9 $$"},
		{name: "in another", image: "other", script: "echo other"},
	}
	all := groups(list)
	require.Len(t, all, 4)
	got := runAll(t.Context(), here{t}, list, os.Stderr)
	require.Equal(t, map[string]outcome{
		"both streams": {Code: 3, Stdout: "out\n", Stderr: "err\n"}, "nothing": {}, "no newline": {Stdout: "x", Stderr: "y"},
		"empty lines": {Stdout: "\n\n", Stderr: "\n"}, "its input is its own": {Stdout: "read\n"},
		"by itself": {Code: 4, Stdout: "in"}, "killed": {Code: 137, Stderr: got["killed"].Stderr}, "in another": {Stdout: "other\n"},
	}, got)
}

func TestABatchThatBreaksDown(t *testing.T) {
	_, err := groups([]test{{name: "a", script: "kill -9 $PPID"}})[0].run(t.Context(), here{t})
	require.ErrorContains(t, err, "broke down")
	_, err = group{tests: []test{{name: "a"}}}.run(t.Context(), here{t})
	require.True(t, errors.Is(err, errOther))
}

func TestDifferences(t *testing.T) {
	same := outcome{Code: 1, Stdout: "a\nb\n", Stderr: "c"}
	require.Empty(t, differences(same, same))
	require.Equal(t, []string{"exit code: 2, Docker's 1", "stdout: -b", "stdout: +d", "stderr: -c"},
		differences(same, outcome{Code: 2, Stdout: "a\nd\n"}))
	require.Equal(t, []string{"stdout: the same lines in another order"}, differences(same, outcome{Code: 1, Stdout: "b\na\n", Stderr: "c"}))
	id := strings.Repeat("0123456789ab", 2)[:12]
	require.Empty(t, differences(outcome{Stdout: id + " 172.17.0.2"}, outcome{Stdout: strings.ToLower("FEDCBA987654") + " 10.0.2.15"}))

	failed := outcome{Code: 125, Stderr: "docker: no", Unborn: true}
	require.Empty(t, differences(failed, outcome{Code: 125, Stderr: "husk: no"}))
	require.Len(t, differences(failed, outcome{Code: 125}), 1)
}

// TestDifferencesAreFound: outcomes that are not the same have differences.
func TestDifferencesAreFound(t *testing.T) {
	text := rapid.StringMatching(`([ab ]{0,2}\n){0,4}[ab]?`)
	rapid.Check(t, func(t *rapid.T) {
		one := outcome{rapid.IntRange(0, 1).Draw(t, "code"), text.Draw(t, "out"), text.Draw(t, "err"), false}
		other := outcome{rapid.IntRange(0, 1).Draw(t, "code"), text.Draw(t, "out"), text.Draw(t, "err"), false}
		require.Equal(t, one != other, len(differences(one, other)) > 0, fmt.Sprint(differences(one, other)))
	})
}
