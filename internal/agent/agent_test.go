package agent

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pair serves on one end of a connection and gives a client on the other.
func pair(t *testing.T) *Client { return pairOf(t, &Server{}, heartbeat, patience) }

// pairOf is pair with a server and a heartbeat of one's own.
func pairOf(t *testing.T, v *Server, every time.Duration, patience int) *Client {
	t.Helper()
	host, guest := net.Pipe()
	served := make(chan error, 1)
	go func() { served <- v.Serve(context.Background(), guest) }()
	c, err := connect(t.Context(), host, every, patience)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, c.Close())
		if err := <-served; err != nil {
			// It had more to say of a command that was given up.
			require.ErrorIs(t, err, io.ErrClosedPipe)
		}
	})
	return c
}

// TestASilentGuest: a guest that hangs ends the command, with the reason; one
// that answers at all does not.
func TestASilentGuest(t *testing.T) {
	host, guest := net.Pipe()
	go func() {
		_ = writeFrame(guest, hello{Version: version})
		_, _ = io.Copy(io.Discard, guest) // it takes all, and answers nothing
	}()
	c, err := connect(t.Context(), host, time.Millisecond, 20)
	require.NoError(t, err)
	_, err = c.Run(t.Context(), Command{Argv: []string{"true"}})
	require.ErrorIs(t, err, ErrSilent)
	require.ErrorContains(t, err, "20ms")
	_, err = c.Run(t.Context(), Command{Argv: []string{"true"}})
	require.ErrorIs(t, err, ErrSilent, "a later one ends for the same reason")
	_ = c.Close()

	c = pairOf(t, &Server{}, time.Millisecond, 1000)
	code, err := c.Run(t.Context(), Command{Argv: []string{"sleep", "1.2"}, Env: env()})
	require.NoError(t, err)
	require.Zero(t, code)
}

func env() []string { return []string{"PATH=" + os.Getenv("PATH")} }

func TestExitCodes(t *testing.T) {
	c := pair(t)
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	require.NoError(t, os.WriteFile(plain, []byte("text"), 0o644))
	garbage := filepath.Join(dir, "garbage")
	require.NoError(t, os.WriteFile(garbage, []byte("\x7fnot an ELF file"), 0o755))

	tests := []struct {
		name   string
		argv   []string
		dir    string
		code   int
		stderr string
	}{
		{"success", []string{"true"}, "", 0, ""},
		{"failure", []string{"sh", "-c", "exit 42"}, "", 42, ""},
		{"signal", []string{"sh", "-c", "kill -TERM $$"}, "", 128 + 15, ""},
		{"no such command", []string{"husk-no-such"}, "", 127, "exec: \"husk-no-such\": executable file not found in $PATH\n"},
		{"no such path", []string{"/nowhere/at-all"}, "", 127, "exec: \"/nowhere/at-all\": no such file or directory\n"},
		{"not executable", []string{plain}, "", 126, "exec: \"" + plain + "\": permission denied\n"},
		{"a folder", []string{dir}, "", 126, "exec: \"" + dir + "\": is a directory\n"},
		{"not a program", []string{garbage}, "", 126, "exec " + garbage + ": exec format error\n"},
		{"relative to the folder", []string{"./plain"}, dir, 126, "exec: \"./plain\": permission denied\n"},
		{"no such folder", []string{"true"}, "/nowhere", 126, "working directory /nowhere: no such file or directory\n"},
		{"nothing", nil, "", 127, "no command given\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var stderr bytes.Buffer
			code, err := c.Run(t.Context(), Command{Argv: tt.argv, Dir: tt.dir, Env: env(), Stderr: &stderr})
			require.NoError(t, err)
			require.Equal(t, tt.code, code)
			require.Equal(t, tt.stderr, stderr.String())
		})
	}
}

func TestStreamsAreKeptApart(t *testing.T) {
	c := pair(t)
	dir := t.TempDir()
	var stdout, stderr bytes.Buffer
	code, err := c.Run(t.Context(), Command{
		Argv:   []string{"sh", "-c", `pwd; echo "$WHAT" >&2; cat; echo end >&2`},
		Dir:    dir,
		Env:    append(env(), "WHAT=an error"),
		Stdin:  strings.NewReader("from\x00stdin"),
		Stdout: &stdout, Stderr: &stderr,
	})
	require.NoError(t, err)
	require.Zero(t, code)
	require.Equal(t, dir+"\nfrom\x00stdin", stdout.String())
	require.Equal(t, "an error\nend\n", stderr.String())
}

func TestBigStreamsAreExact(t *testing.T) {
	c := pair(t)
	want := make([]byte, 10<<20)
	_, _ = rand.Read(want)
	var got bytes.Buffer
	code, err := c.Run(t.Context(), Command{Argv: []string{"cat"}, Env: env(), Stdin: bytes.NewReader(want), Stdout: &got})
	require.NoError(t, err)
	require.Zero(t, code)
	require.True(t, bytes.Equal(want, got.Bytes()))
}

// A child that outlives the command holds its pipes; the command's own output
// is all there and the end is not waited for.
func TestChildrenLeftBehind(t *testing.T) {
	c := pair(t)
	for _, tty := range []bool{false, true} {
		var stdout bytes.Buffer
		pid := filepath.Join(t.TempDir(), "pid")
		code, err := c.Run(t.Context(), Command{
			Argv: []string{"sh", "-c", `trap "" HUP; sleep 1000 & echo $! >"$1"; head -c 60000 /dev/zero; exit 3`, "sh", pid},
			Env:  env(), Stdout: &stdout, TTY: tty,
		})
		require.NoError(t, err)
		require.Equal(t, 3, code)
		require.Equal(t, 60000, stdout.Len())
		kill(t, pid)
	}
}

// kill ends the process whose number a file has.
func kill(t *testing.T, file string) {
	t.Helper()
	b, err := os.ReadFile(file)
	require.NoError(t, err)
	var pid int
	for _, d := range strings.TrimSpace(string(b)) {
		pid = pid*10 + int(d-'0')
	}
	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
}

func TestInputLeftUnread(t *testing.T) {
	c := pair(t)
	code, err := c.Run(t.Context(), Command{Argv: []string{"true"}, Env: env(), Stdin: endless{}})
	require.NoError(t, err)
	require.Zero(t, code)
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestSignalReachesTheGroup(t *testing.T) {
	c := pair(t)
	signals := make(chan os.Signal, 1)
	child := filepath.Join(t.TempDir(), "pid")
	out := &trigger{word: "ready", do: func() { signals <- syscall.SIGTERM }}
	code, err := c.Run(t.Context(), Command{
		// The child says ready itself: until its exec it has the shell's trap.
		Argv: []string{"sh", "-c", `trap "exit 9" TERM
			sh -c 'echo $$ >"$1"; echo ready; exec sleep 1000' sh "$1" & wait`, "sh", child},
		Env: env(), Stdout: out, Signals: signals,
	})
	require.NoError(t, err)
	require.Equal(t, 9, code)
	requireGone(t, child)
}

// requireGone waits for the end of the process whose number a file has. A
// zombie that nobody reaps here is at its end too.
func requireGone(t *testing.T, file string) {
	t.Helper()
	pid, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		stat, err := os.ReadFile("/proc/" + strings.TrimSpace(string(pid)) + "/stat")
		return err != nil || strings.Contains(string(stat), ") Z ")
	}, time.Minute, time.Millisecond)
}

// A trigger does something once a word has been written to it.
type trigger struct {
	text strings.Builder
	word string
	do   func()
}

func (w *trigger) Write(p []byte) (int, error) {
	n, err := w.text.Write(p)
	if w.do != nil && strings.Contains(w.text.String(), w.word) {
		w.do()
		w.do = nil
	}
	return n, err
}

func TestTerminal(t *testing.T) {
	c := pair(t)
	resizes := make(chan Size, 1)
	out := &trigger{word: "24 80", do: func() { resizes <- Size{Rows: 50, Cols: 132} }}
	code, err := c.Run(t.Context(), Command{
		Argv: []string{"sh", "-c", `test -t 0 && test -t 2 || exit 1
			trap "stty size; exit 5" WINCH; stty size; while :; do sleep 0.01; done`},
		Env: env(), TTY: true, Size: Size{Rows: 24, Cols: 80}, Resizes: resizes, Stdout: out,
	})
	require.NoError(t, err)
	require.Equal(t, 5, code)
	require.Equal(t, "24 80\r\n50 132\r\n", out.text.String())
}

func TestTerminalInput(t *testing.T) {
	c := pair(t)
	var out bytes.Buffer
	code, err := c.Run(t.Context(), Command{
		Argv: []string{"sh", "-c", "read x; echo got $x"}, Env: env(), TTY: true,
		Stdin: strings.NewReader("word\n"), Stdout: &out,
	})
	require.NoError(t, err)
	require.Zero(t, code)
	require.Contains(t, out.String(), "got word\r\n")
}

func TestContextKills(t *testing.T) {
	c := pair(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	pid := filepath.Join(t.TempDir(), "pid")
	out := &trigger{word: "ready", do: func() { cancel(why) }}
	_, err := c.Run(ctx, Command{
		Argv: []string{"sh", "-c", `echo $$ >"$1"; echo ready; exec sleep 1000`, "sh", pid}, Env: env(), Stdout: out,
	})
	require.ErrorIs(t, err, why)
	requireGone(t, pid)
}

// A reader of the output that has stopped reading does not hold Run up for
// ever, neither while the command runs nor at its end.
func TestContextEndsBlockedWrites(t *testing.T) {
	for name, argv := range map[string][]string{"output": {"yes"}, "an error": {"husk-no-such"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := pair(t)
			ctx, cancel := context.WithCancelCause(t.Context())
			why := errors.New("enough")
			out := &stuck{entered: func() { cancel(why) }, release: make(chan struct{})}
			_, err := c.Run(ctx, Command{Argv: argv, Env: env(), Stdout: out, Stderr: out})
			require.ErrorIs(t, err, why)
			close(out.release)
		})
	}
}

// A slow reader of the output gets all of it, if it is not too slow.
func TestContextLetsWritesEnd(t *testing.T) {
	c := pair(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	out := &stuck{release: make(chan struct{})}
	out.entered = func() {
		cancel(why)
		close(out.release)
	}
	_, err := c.Run(ctx, Command{Argv: []string{"echo", "hello"}, Env: env(), Stdout: out})
	require.ErrorIs(t, err, why)
	require.Equal(t, "hello\n", out.text.String())
}

// A stuck writer says that it is written to, and waits to be released.
type stuck struct {
	text    bytes.Buffer
	entered func()
	release chan struct{}
}

func (w *stuck) Write(p []byte) (int, error) {
	w.entered()
	<-w.release
	return w.text.Write(p)
}

func TestSeveralAtOnce(t *testing.T) {
	c := pair(t)
	codes := make(chan int)
	for i := range 8 {
		go func() {
			code, err := c.Run(context.Background(), Command{Argv: []string{"sh", "-c", "exit " + string(rune('0'+i))}, Env: env()})
			if err != nil {
				code = -1
			}
			codes <- code
		}()
	}
	sum := 0
	for range 8 {
		sum += <-codes
	}
	require.Equal(t, 28, sum)
}

func TestConnectRefusals(t *testing.T) {
	tests := []struct {
		name  string
		hello func(w io.WriteCloser)
		want  error
		text  string
	}{
		{"the guest failed", func(w io.WriteCloser) { _ = Refuse(w, errors.New("no \x1b[2Jroot")) }, ErrGuest, "no ?[2Jroot"},
		{"another version", func(w io.WriteCloser) { _ = writeFrame(w, hello{Version: 99}) }, ErrProtocol, "rebuild"},
		{"not the protocol", func(w io.WriteCloser) { _, _ = w.Write([]byte("login: what is this")) }, ErrProtocol, ""},
		{"nothing", func(w io.WriteCloser) { _ = w.Close() }, io.EOF, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			host, guest := net.Pipe()
			defer guest.Close()
			go tt.hello(guest)
			_, err := Connect(t.Context(), host)
			require.ErrorIs(t, err, tt.want)
			require.ErrorContains(t, err, tt.text)
		})
	}
	t.Run("silence", func(t *testing.T) {
		host, guest := net.Pipe()
		defer guest.Close()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := Connect(ctx, host)
		require.ErrorIs(t, err, context.Canceled)
	})
}

// A guest that answers nonsense, or nothing, cannot hold the host up.
func TestHostileGuest(t *testing.T) {
	host, guest := net.Pipe()
	go func() { _ = new(Server).Serve(context.Background(), guest) }()
	c, err := Connect(t.Context(), host)
	require.NoError(t, err)
	_ = guest.Close()
	_, err = c.Run(t.Context(), Command{Argv: []string{"true"}})
	require.Error(t, err)
	_ = c.Close()
}

func FuzzReadFrame(f *testing.F) {
	for _, v := range []any{
		hello{Version: version, Error: "why"},
		start{Argv: []string{"sh", "-c", "true"}, Env: []string{"A=b"}, TTY: true, Size: Size{24, 80}},
		request{Signal: 2},
		request{Resize: &Size{1, 2}},
		outcome{Code: 3},
	} {
		var b bytes.Buffer
		require.NoError(f, writeFrame(&b, v))
		f.Add(b.Bytes())
	}
	f.Add([]byte("\xff\xff\xff\xff{}"))
	f.Add([]byte("\x00\xff\xff\xff{}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		_ = readFrame(bytes.NewReader(b), &hello{})
		_ = readFrame(bytes.NewReader(b), &request{})
		_ = readFrame(bytes.NewReader(b), &outcome{})
		var s start
		if readFrame(bytes.NewReader(b), &s) != nil {
			return
		}
		var again bytes.Buffer
		require.NoError(t, writeFrame(&again, s))
	})
}
