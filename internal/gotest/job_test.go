package gotest

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/internal/agent"
)

func TestEnv(t *testing.T) {
	require.Equal(t, []string{"A=1", "LD_LIBRARY_PATH=/x"}, Env([]string{"A=1", "LD_PRELOAD=/y.so", "LD_LIBRARY_PATH=/x"}))
}

func TestPack(t *testing.T) {
	binary, err := exec.LookPath("sh")
	require.NoError(t, err)
	home := t.TempDir()
	dir := home + "/src/pkg"
	write(t, dir+"/testdata/x", "x")
	more := write(t, home+"/more", "more")
	cache := home + "/cache"
	write(t, cache+"/seed", "seed")
	j := Job{
		Binary: binary, Dir: dir, Env: []string{"HOME=" + home + "/me", "TMPDIR=" + home + "/scratch"},
		Outputs: []Output{{Path: home + "/out/cover"}, {Path: home + "/gocoverdir", Dir: true}, {Path: cache, Dir: true, Input: true}},
	}
	b, err := j.Pack(64<<20, []string{more}, nil)
	require.NoError(t, err)
	root := unpack(t, b)
	for _, file := range []string{binary, dir + "/testdata/x", more, cache + "/seed", "/etc/passwd", "/etc/hosts"} {
		require.FileExists(t, root+file)
	}
	for _, folder := range []string{"/tmp", home + "/me", home + "/scratch", home + "/out", home + "/gocoverdir"} {
		require.DirExists(t, root+folder)
	}
	passwd, err := os.ReadFile(root + "/etc/passwd")
	require.NoError(t, err)
	require.Contains(t, string(passwd), ":"+home+"/me:")

	_, err = j.Pack(10, nil, nil)
	require.ErrorIs(t, err, ErrTooLarge)
	_, err = j.Pack(64<<20, []string{home + "/none"}, nil)
	require.ErrorIs(t, err, os.ErrNotExist)
	j.Binary = more
	_, err = j.Pack(64<<20, nil, nil)
	require.ErrorIs(t, err, ErrBinary)
	j.Binary, j.Dir = binary, "/"
	b, err = j.Pack(64<<20, nil, nil)
	require.NoError(t, err)
	require.Less(t, b.Size(), int64(64<<20))
}

// here is a guest that is this host; what comes out of it is noted.
type here struct {
	client *agent.Client
	copied []string
	failed map[string]error
}

func (h *here) With(ctx context.Context, f func(context.Context, *agent.Client) error) error {
	return f(ctx, h.client)
}

func (h *here) CopyOut(_ context.Context, from, to string) error {
	h.copied = append(h.copied, from+" "+to)
	return h.failed[from]
}

func newHere(t *testing.T) *here {
	t.Helper()
	host, guest := net.Pipe()
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = new(agent.Server).Serve(context.Background(), guest)
	}()
	client, err := agent.Connect(t.Context(), host)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, client.Close())
		<-served
	})
	return &here{client: client, failed: map[string]error{}}
}

func TestRun(t *testing.T) {
	g := newHere(t)
	dir := t.TempDir()
	var out, errs bytes.Buffer
	j := Job{
		Binary: "/bin/sh", Args: []string{"-c", `pwd; cat; echo "$A" >&2; exit 2`}, Dir: dir, Env: []string{"A=b", "PATH=" + os.Getenv("PATH")},
		Stdin: strings.NewReader("in\n"), Stdout: &out, Stderr: &errs,
		Outputs: []Output{{Path: "/out/a"}, {Path: "/out/b", Dir: true}},
	}
	g.failed["/out/a"] = errors.Join(agent.ErrFiles, errors.New("lstat a: no such file or directory"))
	started := 0
	code, err := j.Run(t.Context(), g, func() { started++ })
	require.NoError(t, err, "what was not written is not missed")
	require.Equal(t, 2, code)
	require.Equal(t, 1, started)
	require.Equal(t, dir+"\nin\n", out.String())
	require.Equal(t, "b\n", errs.String())
	require.Equal(t, []string{"/out/a /out/a", "/out/b /out/b"}, g.copied)

	full := errors.New("no space left on device")
	g.failed["/out/b"] = full
	_, err = j.Run(t.Context(), g, func() {})
	require.ErrorIs(t, err, full)
	require.ErrorContains(t, err, "bring /out/b back")

	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	cancel(why)
	g.copied = nil
	_, err = j.Run(ctx, g, func() {})
	require.ErrorIs(t, err, why)
	require.Empty(t, g.copied)
	require.Equal(t, "/x", filepath.Clean(lookup([]string{"HOME=rel", "HOME=/x"}, "HOME", "/root")))
}
