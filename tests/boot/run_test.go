package boot

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/stretchr/testify/require"
)

// images are loaded once for all tests: their store is like a user's, and every test has
// machines of its own.
var loadImages struct {
	sync.Once
	dir string
	err error
}

// A home is where a user's husk has its things: images that all tests share, and
// machines of one test's.
type home struct {
	t         *testing.T
	data, run string
}

// newHome is one with the images of tests/images. What a test leaves there fails it.
func newHome(t *testing.T) *home {
	t.Helper()
	need(t)
	archive := imageFile(t, "small.tar")
	loadImages.Do(func() {
		if loadImages.dir, loadImages.err = os.MkdirTemp("", "husk-run-data"); loadImages.err != nil {
			return
		}
		h := &home{t, loadImages.dir, t.TempDir()}
		if r := h.husk("load", "-i", archive); r.code != 0 {
			loadImages.err = errors.New(r.stderr)
		}
	})
	require.NoError(t, loadImages.err)
	run, err := os.MkdirTemp("", "husk-run") // t.TempDir's are too long for sockets
	require.NoError(t, err)
	h := &home{t, loadImages.dir, run}
	t.Cleanup(h.close)
	return h
}

// imageFile is one that tests/make-images has made.
func imageFile(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("../../build/images", name))
	require.NoError(t, err)
	require.FileExists(t, path, "tests/make-images makes it")
	return path
}

// close ends what still runs, and looks for what a test has left.
func (h *home) close() {
	if h.t.Failed() {
		for _, id := range strings.Fields(h.husk("ps", "-aq", "--no-trunc").stdout) {
			h.t.Logf("machine %s: %s", id, h.husk("inspect", id).stdout)
			words, _ := os.ReadFile(filepath.Join(h.run, "husk/machines", id, "husk.log"))
			h.t.Logf("its process said: %s", tail(string(words)))
		}
	}
	for _, id := range strings.Fields(h.husk("ps", "-aq").stdout) {
		h.husk("rm", "-f", id)
	}
	h.leftNothing(h.t)
	_ = os.RemoveAll(h.run)
}

// env is what makes a husk one of this home's.
func (h *home) env() []string {
	return append(os.Environ(), "XDG_RUNTIME_DIR="+h.run, "XDG_DATA_HOME="+h.data)
}

// husk runs a verb to its end.
func (h *home) husk(args ...string) run {
	h.t.Helper()
	return h.huskWith(nil, args...)
}

func (h *home) huskWith(stdin io.Reader, args ...string) run {
	h.t.Helper()
	cmd := exec.Command(need(h.t), args...)
	cmd.Env, cmd.Stdin = h.env(), stdin
	return ended(h.t, cmd)
}

// must runs a verb that succeeds, and gives what it printed.
func (h *home) must(args ...string) string {
	h.t.Helper()
	r := h.husk(args...)
	require.Zero(h.t, r.code, "husk %q\n--- stdout\n%s\n--- stderr\n%s", args, tail(r.stdout), tail(r.stderr))
	return strings.TrimSpace(r.stdout)
}

// flags puts the flags that all machines need before those of a husk run.
func (h *home) flags(args ...string) []string {
	return append([]string{"run", "--kernel", kernel(h.t, "cloud", "vmlinuz"), "-m", "256m"}, args...)
}

// container runs a container to its end, with --rm.
func (h *home) container(args ...string) run {
	h.t.Helper()
	return h.husk(h.flags(append([]string{"--rm"}, args...)...)...)
}

// detached starts one with -d, and gives its ID.
func (h *home) detached(args ...string) string {
	h.t.Helper()
	id := h.must(h.flags(append([]string{"-d"}, args...)...)...)
	require.Regexp(h.t, "^[0-9a-f]{64}$", id)
	return id
}

// background starts a husk that is not waited for.
func (h *home) background(args ...string) *guest {
	h.t.Helper()
	g := &guest{cmd: exec.Command(need(h.t), args...)}
	g.cmd.Env, g.cmd.Stdout, g.cmd.Stderr = h.env(), &g.stdout, &g.stderr
	var err error
	g.stdin, err = g.cmd.StdinPipe()
	require.NoError(h.t, err)
	require.NoError(h.t, g.cmd.Start())
	h.t.Cleanup(func() { _ = g.cmd.Process.Kill() })
	return g
}

// terminal starts a husk on a terminal, which is stdin and stdout of what it returns.
func (h *home) terminal(args ...string) (*guest, *os.File) {
	h.t.Helper()
	g := &guest{cmd: exec.Command(need(h.t), args...)}
	g.cmd.Env = h.env()
	console, err := pty.StartWithSize(g.cmd, &pty.Winsize{Rows: 33, Cols: 101})
	require.NoError(h.t, err)
	h.t.Cleanup(func() {
		_ = g.cmd.Process.Kill()
		_ = console.Close()
	})
	g.stdin = console
	go func() { _, _ = io.Copy(&g.stdout, console) }() // to its end, an EIO
	return g, console
}

// eventually waits until something is so.
func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	for end := time.Now().Add(deadline); !so(); time.Sleep(50 * time.Millisecond) {
		require.True(t, time.Now().Before(end), "it does not come to this: %s", what)
	}
}

// leftNothing looks for processes, machines, sockets and files of machines of this home.
func (h *home) leftNothing(t *testing.T) {
	t.Helper()
	eventually(t, "no process of a machine is left", func() bool { return len(h.processes()) == 0 })
	require.Empty(t, files(filepath.Join(h.run, "husk", "machines")), "machines' folders are left")
	mounts, err := os.ReadFile("/proc/self/mounts")
	require.NoError(t, err)
	require.NotContains(t, string(mounts), h.run)
}

// files are those in a folder and below, but for the lock of all machines.
func files(dir string) []string {
	var list []string
	_ = filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err == nil && !info.IsDir() && path != filepath.Join(dir, "lock") {
			list = append(list, path)
		}
		return nil
	})
	return list
}

// processes are the IDs of those with this home in their environment: machines', for
// all others that tests start are waited for.
func (h *home) processes() []string {
	var list []string
	dirs, err := filepath.Glob("/proc/[0-9]*")
	require.NoError(h.t, err)
	for _, dir := range dirs {
		env, err := os.ReadFile(dir + "/environ")
		if err == nil && bytes.Contains(env, []byte("XDG_RUNTIME_DIR="+h.run+"\x00")) && filepath.Base(dir) != fmt.Sprint(os.Getpid()) {
			list = append(list, filepath.Base(dir))
		}
	}
	return list
}

// TestRunStreams: what goes in comes out, each stream by itself, and the command's exit
// code is husk's.
func TestRunStreams(t *testing.T) {
	h := newHome(t)
	in := bytes.Repeat([]byte("\x00\xff\r\n a line of 16\n"), 1<<16)
	r := h.huskWith(bytes.NewReader(in), h.flags("--rm", "-i", "busy", "sh", "-c", "tee /dev/stderr; exit 42")...)
	r.wantCode(t, 42)
	require.True(t, string(in) == r.stdout, "%d bytes of %d came out", len(r.stdout), len(in))
	require.True(t, string(in) == r.stderr, "%d bytes of %d came out of stderr", len(r.stderr), len(in))
}

// TestRunOnATerminal: the command has one, of the size of husk's and as it changes; keys
// become signals there; and the user can leave and come back.
func TestRunOnATerminal(t *testing.T) {
	h := newHome(t)
	g, console := h.terminal(h.flags("-it", "--name", "onpty", "busy", "sh", "-c",
		`tty; stty size; trap 'echo resized $(stty size)' WINCH; trap 'echo interrupted' INT; while :; do read line && echo "read $line"; done`)...)
	g.waitFor(t, "/dev/pts/0")
	g.waitFor(t, "33 101")
	_, err := io.WriteString(console, "hello\n")
	require.NoError(t, err)
	g.waitFor(t, "read hello")
	require.NoError(t, pty.Setsize(console, &pty.Winsize{Rows: 44, Cols: 123}))
	_, err = io.WriteString(console, "\n")
	require.NoError(t, err)
	g.waitFor(t, "resized 44 123")
	_, err = io.WriteString(console, "\x03")
	require.NoError(t, err)
	g.waitFor(t, "interrupted")
	_, err = io.WriteString(console, "\x10\x11") // Ctrl-P Ctrl-Q
	require.NoError(t, err)
	g.wait(t).wantCode(t, 0)
	require.Contains(t, h.must("ps"), "onpty")

	again, console := h.terminal("attach", "onpty")
	eventually(t, "the terminal is attached to", func() bool {
		_, err := io.WriteString(console, "back\n")
		return err == nil && strings.Contains(again.stdout.String(), "read back")
	})
	h.must("kill", "onpty")
	again.wait(t).wantCode(t, 137)
	h.must("rm", "onpty")
}

// TestRunForwardsSignals: what is sent to husk reaches the command; when it ends by
// that, so does husk.
func TestRunForwardsSignals(t *testing.T) {
	h := newHome(t)
	g := h.background(h.flags("--rm", "busy", "sh", "-c", "trap 'echo hup' HUP; trap 'echo term; exit 9' TERM; echo ready; while :; do sleep 0.1; done")...)
	g.waitFor(t, "ready\n")
	require.NoError(t, g.cmd.Process.Signal(syscall.SIGHUP))
	g.waitFor(t, "hup\n")
	require.NoError(t, g.cmd.Process.Signal(syscall.SIGTERM))
	g.wait(t).wantCode(t, 9)
	require.Equal(t, "ready\nhup\nterm\n", g.stdout.String())
}

// TestRunEndsInTime: --timeout ends a machine, whatever its command does.
func TestRunEndsInTime(t *testing.T) {
	h := newHome(t)
	r := h.container("--timeout", "20s", "busy", "sh", "-c", "trap '' TERM INT HUP; echo ready; while :; do sleep 1; done")
	r.wantCode(t, 124)
	require.Equal(t, "ready\n", r.stdout)
	require.Contains(t, r.stderr, "timeout")
}
