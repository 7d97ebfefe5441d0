package agent

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// openRoot opens a folder for a test.
func openRoot(t testing.TB, dir string) *os.Root {
	t.Helper()
	root, err := os.OpenRoot(dir)
	require.NoError(t, err)
	t.Cleanup(func() { _ = root.Close() })
	return root
}

// makeTree makes what a copy must keep.
func makeTree(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "tree")
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "sub/empty"), 0o755))
	write := func(name string, mode fs.FileMode, content []byte) {
		name = filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(name, content, 0o600))
		require.NoError(t, os.Chmod(name, mode))
		at := time.Unix(1_000_000_000, 0)
		require.NoError(t, os.Chtimes(name, at, at))
	}
	write("program", 0o755, []byte("#!/bin/sh\n"))
	write("sub/secret", 0o400, []byte("x"))
	write("sub/big", 0o644, bytes.Repeat([]byte("0123456789abcdef"), 1<<17)) // 2 MiB
	require.NoError(t, os.Symlink("../program", filepath.Join(dir, "sub/link")))
	require.NoError(t, os.Symlink("/nowhere", filepath.Join(dir, "dangling")))
	require.NoError(t, os.Chmod(filepath.Join(dir, "sub"), 0o700))
	return dir
}

// requireTree checks a copy of it.
func requireTree(t *testing.T, want, got string) {
	t.Helper()
	n := 0
	require.NoError(t, filepath.WalkDir(want, func(name string, _ fs.DirEntry, err error) error {
		require.NoError(t, err)
		rel, err := filepath.Rel(want, name)
		require.NoError(t, err)
		other := filepath.Join(got, rel)
		a, err := os.Lstat(name)
		require.NoError(t, err)
		b, err := os.Lstat(other)
		require.NoError(t, err)
		require.Equal(t, a.Mode(), b.Mode(), rel)
		switch {
		case a.Mode().IsRegular():
			require.True(t, a.ModTime().Equal(b.ModTime()), rel)
			x, err := os.ReadFile(name)
			require.NoError(t, err)
			y, err := os.ReadFile(other)
			require.NoError(t, err)
			require.True(t, bytes.Equal(x, y), rel)
		case a.Mode()&fs.ModeSymlink != 0:
			x, _ := os.Readlink(name)
			y, _ := os.Readlink(other)
			require.Equal(t, x, y)
		}
		n++
		return nil
	}))
	require.Equal(t, 8, n)
}

func TestThereAndBack(t *testing.T) {
	c := pair(t)
	tree, guest, back := makeTree(t), t.TempDir(), t.TempDir()

	r, w := io.Pipe()
	go func() { w.CloseWithError(Pack(w, openRoot(t, filepath.Dir(tree)), "tree")) }()
	require.NoError(t, c.Upload(t.Context(), guest, r))
	requireTree(t, tree, filepath.Join(guest, "tree"))

	var b bytes.Buffer
	require.NoError(t, c.Download(t.Context(), guest+"/tree", &b))
	require.NoError(t, Unpack(openRoot(t, back), &b))
	requireTree(t, tree, filepath.Join(back, "tree"))

	require.NoError(t, c.Download(t.Context(), guest+"/tree/.", &b))
	content := t.TempDir()
	require.NoError(t, os.Chmod(content, 0o755))
	require.NoError(t, Unpack(openRoot(t, content), &b))
	requireTree(t, tree, content)

	b.Reset()
	require.NoError(t, c.Download(t.Context(), guest+"/tree/dangling", &b))
	h, err := tar.NewReader(&b).Next()
	require.NoError(t, err)
	require.Equal(t, "/nowhere", h.Linkname)

	// The same again: files and links are replaced.
	r, w = io.Pipe()
	go func() { w.CloseWithError(Pack(w, openRoot(t, tree), ".")) }()
	require.NoError(t, c.Upload(t.Context(), filepath.Join(guest, "tree"), r))
	requireTree(t, tree, filepath.Join(guest, "tree"))
}

func TestDownloadOfTheKernelsFiles(t *testing.T) {
	c := pair(t)
	var b bytes.Buffer
	require.NoError(t, c.Download(t.Context(), "/proc/version", &b))
	dir := t.TempDir()
	require.NoError(t, Unpack(openRoot(t, dir), &b))
	got, err := os.ReadFile(filepath.Join(dir, "version"))
	require.NoError(t, err)
	require.Contains(t, string(got), "Linux")
}

func TestCopiesThatFail(t *testing.T) {
	c := pair(t)
	ctx, dir := t.Context(), t.TempDir()
	require.NoError(t, os.WriteFile(dir+"/file", nil, 0o600))
	require.NoError(t, os.Mkdir(dir+"/folder", 0o700))

	err := c.Download(ctx, dir+"/none", io.Discard)
	require.ErrorIs(t, err, ErrFiles)
	require.ErrorContains(t, err, "none: no such file or directory")
	require.ErrorContains(t, err, dir)
	require.ErrorContains(t, c.Download(ctx, "relative", io.Discard), "absolute")

	tree := func() io.Reader { return tarOf(t, tar.Header{Name: "folder", Typeflag: tar.TypeReg}) }
	err = c.Upload(ctx, dir, tree())
	require.ErrorIs(t, err, ErrFiles)
	require.ErrorContains(t, err, dir+": replace folder: is a directory")
	require.ErrorContains(t, c.Upload(ctx, dir+"/none", tree()), "none: no such file or directory")
	require.ErrorContains(t, c.Upload(ctx, dir+"/file", tree()), "not a directory")
	require.ErrorContains(t, c.Upload(ctx, dir, strings.NewReader(strings.Repeat("not a tar ", 100))), ErrTar.Error())

	// What is not read to its end, and what breaks off.
	require.ErrorIs(t, c.Upload(ctx, dir+"/none", endless{}), ErrFiles)
	why := errors.New("the disk is broken")
	whole, err := io.ReadAll(tarOf(t, tar.Header{Name: "big", Typeflag: tar.TypeReg, Size: 1 << 20}))
	require.NoError(t, err)
	require.ErrorIs(t, c.Upload(ctx, dir, io.MultiReader(bytes.NewReader(whole[:9000]), failing{why})), why)
	require.ErrorIs(t, c.Upload(ctx, dir, bytes.NewReader(whole[:9000])), ErrFiles, "cut short")
	require.ErrorIs(t, c.Download(ctx, makeTree(t), failing{why}), why)
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error)  { return 0, f.err }
func (f failing) Write([]byte) (int, error) { return 0, f.err }

func TestACopyThatIsGivenUp(t *testing.T) {
	c := pair(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	cancelling := readerFunc(func(p []byte) (int, error) {
		cancel(why)
		return len(p), nil
	})
	require.ErrorIs(t, c.Upload(ctx, t.TempDir(), cancelling), why)
}

func TestEnteringAndBuiltins(t *testing.T) {
	entered, off := 0, 0
	c := pairOf(t, &Server{
		Enter: func() error { entered++; return nil },
		Builtin: func(argv []string) []string {
			if argv[0] == "hello" {
				return append([]string{"/bin/echo", "echo", "built in"}, argv[1:]...)
			}
			return nil
		},
		PowerOff: func() error { off++; return errors.New("the switch is stuck") },
	}, heartbeat, patience)
	var out bytes.Buffer
	code, err := c.Run(t.Context(), Command{Argv: []string{"hello", "x"}, Stdout: &out})
	require.NoError(t, err)
	require.Zero(t, code)
	require.Equal(t, "built in x\n", out.String())
	require.Equal(t, 1, entered)

	code, err = c.Run(t.Context(), Command{Argv: []string{"husk-no-such"}})
	require.NoError(t, err)
	require.Equal(t, CodeNotFound, code)

	out.Reset()
	code, err = c.Run(t.Context(), Command{Argv: []string{"sh", "-c", "echo $HOME $PATH"}, Stdout: &out})
	require.NoError(t, err)
	require.Zero(t, code)
	require.Regexp(t, `^/\S* `+defaultPath+"\n$", out.String())

	err = c.PowerOff(t.Context())
	require.ErrorIs(t, err, ErrPowerOff)
	require.ErrorContains(t, err, "stuck")
	require.Equal(t, 1, off)
}

func TestPowerOffEndsTheConnection(t *testing.T) {
	var c *Client
	c = pairOf(t, &Server{PowerOff: func() error { return c.session.Close() }}, heartbeat, patience)
	require.NoError(t, c.PowerOff(t.Context()))
	require.Error(t, c.PowerOff(t.Context()), "there was no guest any more")
}

func TestARootThatCannotBeEntered(t *testing.T) {
	c := pairOf(t, &Server{Enter: func() error { return errors.New("no first process") }}, heartbeat, patience)
	var errs bytes.Buffer
	code, err := c.Run(t.Context(), Command{Argv: []string{"true"}, Stderr: &errs})
	require.NoError(t, err)
	require.Equal(t, CodeNotExecutable, code)
	require.Equal(t, "no first process\n", errs.String())
	require.ErrorContains(t, c.Upload(t.Context(), "/", bytes.NewReader(nil)), "no first process")
}

// TestOutputThatNobodyReads: a command that was given up leaves nothing behind in the
// guest, though its output was under way.
func TestOutputThatNobodyReads(t *testing.T) {
	ended := make(chan struct{}, 1)
	c := pairOf(t, &Server{AfterExit: func() { ended <- struct{}{} }}, heartbeat, patience)
	ctx, cancel := context.WithCancel(t.Context())
	out := &stuck{entered: cancel, release: make(chan struct{})}
	_, err := c.Run(ctx, Command{Argv: []string{"yes"}, Stdout: out})
	require.ErrorIs(t, err, context.Canceled)
	close(out.release)
	<-ended
}

func TestPackRefusesWhatItWouldCut(t *testing.T) {
	root, err := os.OpenRoot("/proc/self")
	require.NoError(t, err)
	defer root.Close()
	if _, err := root.Stat("pagemap"); err != nil {
		t.Skip(err)
	}
	require.ErrorContains(t, Pack(io.Discard, root, "pagemap"), "copy it to a file in the guest first")
}

// TestACallerThatSaysNothing does not keep an agent from being heard.
func TestACallerThatSaysNothing(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	require.NoError(t, err)
	calls := Answer(l)
	defer calls.Close()
	silent, err := net.Dial("unix", l.Addr().String())
	require.NoError(t, err)
	defer silent.Close()
	caller, err := net.Dial("unix", l.Addr().String())
	require.NoError(t, err)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = new(Server).Serve(context.Background(), caller)
	}()
	client, err := calls.Client(t.Context())
	require.NoError(t, err)
	code, err := client.Run(t.Context(), Command{Argv: []string{"true"}, Env: env()})
	require.NoError(t, err)
	require.Zero(t, code)

	// Input is the caller's, also after the command.
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	_, err = client.Run(t.Context(), Command{Argv: []string{"true"}, Env: env(), Stdin: r})
	require.NoError(t, err)
	_, err = w.WriteString("word\n")
	require.NoError(t, errors.Join(err, w.Close()))
	var out bytes.Buffer
	_, err = client.Run(t.Context(), Command{Argv: []string{"cat"}, Env: env(), Stdin: r, Stdout: &out})
	require.NoError(t, err)
	require.Equal(t, "word\n", out.String())
	calls.Close()
	<-served
}
