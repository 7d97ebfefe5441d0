package main

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/internal/machine"
)

// TestTheProcessOfExec is the machine's own but for what flags say.
func TestTheProcessOfExec(t *testing.T) {
	t.Chdir(t.TempDir())
	t.Setenv("HERE", "")
	t.Setenv("GONE", "")
	require.NoError(t, os.Unsetenv("GONE"))
	require.NoError(t, os.WriteFile("vars", []byte("# some\nFILE=f\nA=file\n"), 0o600))
	own := machine.Process{
		Argv: []string{"app"}, Env: []string{"A=1", "B=2", "GONE=3", "PATH=/bin"}, User: "app", Groups: []string{"wheel"}, Dir: "/srv",
		TTY: true, OpenStdin: true,
	}
	p, err := (&execFlags{}).process(own, []string{"ls"})
	require.NoError(t, err)
	want := own
	want.Argv, want.TTY = []string{"ls"}, false
	require.Equal(t, want, p)

	f := &execFlags{tty: true, env: []string{"B=9", "HERE", "GONE"}, envFiles: []string{"vars"}, dir: "/x", user: "root"}
	p, err = f.process(own, []string{"ls"})
	require.NoError(t, err)
	require.Equal(t, machine.Process{
		Argv: []string{"ls"}, Env: []string{"A=file", "B=9", "PATH=/bin", "FILE=f", "HERE="}, User: "root", Dir: "/x", TTY: true, OpenStdin: true,
	}, p)
	require.Equal(t, []string{"A=1", "B=2", "GONE=3", "PATH=/bin"}, own.Env)

	for text, f := range map[string]*execFlags{
		"has no name": {env: []string{"=x"}},
		"--env-file":  {envFiles: []string{"none"}},
	} {
		_, err := f.process(own, nil)
		require.ErrorContains(t, err, text)
	}
}
