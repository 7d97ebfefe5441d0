package testvm

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/huskvm/husk/internal/agent"
	"github.com/huskvm/husk/internal/smoke/console"
	"github.com/huskvm/husk/vmm"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A pretender is a machine whose guest is this test: its agent works on this host.
type pretender struct {
	calls  chan net.Conn
	end    chan *vmm.Result
	failed error
	closed bool
}

func newPretender() *pretender {
	return &pretender{calls: make(chan net.Conn, 1), end: make(chan *vmm.Result, 1)}
}

func (p *pretender) Run(ctx context.Context) (*vmm.Result, error) {
	select {
	case r := <-p.end:
		return r, p.failed
	case <-ctx.Done():
		return &vmm.Result{Outcome: vmm.Cancelled, Detail: context.Cause(ctx).Error()}, nil
	}
}

func (p *pretender) ListenVsock(uint32) (net.Listener, error) {
	return &listener{p.calls, make(chan struct{})}, nil
}

func (p *pretender) Close() error {
	p.closed = true
	return nil
}

type listener struct {
	calls <-chan net.Conn
	done  chan struct{}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.calls:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	close(l.done)
	return nil
}

func (l *listener) Addr() net.Addr { return nil }

// begin starts a guest on a pretender.
func begin(ctx context.Context, t *testing.T, noAgent bool) (*Guest, *pretender) {
	t.Helper()
	in, keys, err := os.Pipe()
	require.NoError(t, err)
	g, p := newGuest(noAgent, false), newPretender()
	g.keys = keys
	require.NoError(t, g.start(ctx, p, in))
	t.Cleanup(func() {
		_ = g.Close()
		require.True(t, p.closed)
	})
	return g, p
}

// call is the guest's agent, which calls.
func (p *pretender) call(t *testing.T) {
	host, guest := net.Pipe()
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = new(agent.Server).Serve(context.Background(), guest)
	}()
	p.calls <- host
	t.Cleanup(func() {
		_ = host.Close()
		<-served
	})
}

func pattern(t *testing.T, text string) console.Pattern {
	t.Helper()
	p, err := console.ParsePattern(text)
	require.NoError(t, err)
	return p
}

func TestExpect(t *testing.T) {
	g, p := begin(t.Context(), t, true)
	go func() {
		g.console.Add(0, []byte("Linux version 6.1\nhost login: "))
	}()
	m, err := g.Expect(t.Context(), pattern(t, "/version ([0-9.]+)/"))
	require.NoError(t, err)
	require.Equal(t, []string{"6.1"}, m.Groups)
	_, err = g.Expect(t.Context(), pattern(t, "login: "))
	require.NoError(t, err)

	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	cancel(why)
	_, err = g.Expect(ctx, pattern(t, "more"))
	require.ErrorIs(t, err, why)
	require.ErrorContains(t, err, "more is not on the console: enough")

	p.end <- &vmm.Result{Outcome: vmm.GuestPanic, Detail: "Kernel panic - not syncing: x"}
	_, err = g.Expect(t.Context(), pattern(t, "more"))
	ended := new(Ended)
	require.ErrorAs(t, err, &ended)
	require.Equal(t, vmm.GuestPanic, ended.Result.Outcome)
	require.ErrorContains(t, err, "the guest has ended: guest-panic: Kernel panic")
	r, err := g.Wait(t.Context())
	require.NoError(t, err)
	require.Equal(t, vmm.GuestPanic, r.Outcome)
}

// TestAPanicEndsTheGuest that would wait for somebody to look at it.
func TestAPanicEndsTheGuest(t *testing.T) {
	for name, text := range map[string]string{
		"with its end": "[    1.500000] Kernel panic - not syncing: sysrq triggered crash\n[    1.500000] Call Trace:\n[    1.500000]  dump_stack_lvl+0x44/0x5c\n[    1.600000] ---[ end Kernel panic - not syncing: sysrq triggered crash ]---\n",
		"cut off":      "[    1.500000] Kernel panic - not syncing: sysrq triggered crash\n[    1.500000] Call Trace:\n[    1.500000]  dump_stack_lvl+0x44/0x5c\n",
	} {
		t.Run(name, func(t *testing.T) {
			g, _ := begin(t.Context(), t, true)
			go g.console.Add(0, []byte(text))
			_, err := g.Expect(t.Context(), pattern(t, "login:"))
			ended := new(Ended)
			require.ErrorAs(t, err, &ended)
			require.Equal(t, vmm.GuestPanic, ended.Result.Outcome)
			require.Equal(t, "Kernel panic - not syncing: sysrq triggered crash", ended.Result.Detail)
			require.Len(t, g.Findings(), 1)
			require.Contains(t, strings.Join(g.Findings()[0].Trace, "\n"), "dump_stack_lvl")
		})
	}
}

func TestAPanicThatIsAllowed(t *testing.T) {
	in, keys, err := os.Pipe()
	require.NoError(t, err)
	g, p := newGuest(true, true), newPretender()
	g.keys = keys
	require.NoError(t, g.start(t.Context(), p, in))
	defer g.Close()
	g.console.Add(0, []byte("[    1.500000] Kernel panic - not syncing: x\n[    1.500000] ---[ end Kernel panic - not syncing: x ]---\nkdump: saving\n"))
	_, err = g.Expect(t.Context(), pattern(t, "saving"))
	require.NoError(t, err)
}

func TestCommandsWaitForTheAgent(t *testing.T) {
	g, p := begin(t.Context(), t, false)
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	_, err := g.Agent(ctx)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, "does not run commands yet")

	time.AfterFunc(10*time.Millisecond, func() { p.call(t) })
	var out strings.Builder
	require.NoError(t, g.With(t.Context(), func(ctx context.Context, c *agent.Client) error {
		code, err := c.Run(ctx, agent.Command{Argv: []string{"sh", "-c", "echo hello; exit 3"}, Stdout: &out})
		require.Equal(t, 3, code)
		return err
	}))
	require.Equal(t, "hello\n", out.String())

	// Its end is the command's, and says how it came.
	time.AfterFunc(10*time.Millisecond, func() { p.end <- &vmm.Result{Outcome: vmm.TripleFault} })
	err = g.With(t.Context(), func(ctx context.Context, c *agent.Client) error {
		_, err := c.Run(ctx, agent.Command{Argv: []string{"sleep", "1000"}})
		return err
	})
	require.ErrorContains(t, err, "the guest has ended: triple-fault")
	_, err = g.Agent(t.Context())
	require.ErrorContains(t, err, "the guest has ended: triple-fault")
}

// TestAGuestThatHangs takes nothing more off its connection.
func TestAGuestThatHangs(t *testing.T) {
	g, p := begin(t.Context(), t, false)
	host, guest := net.Pipe()
	stalled := &stall{Conn: guest, gone: make(chan struct{})}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = new(agent.Server).Serve(context.Background(), stalled)
	}()
	p.calls <- host
	t.Cleanup(func() {
		close(stalled.gone)
		_ = guest.Close()
		<-served
	})
	err := g.With(t.Context(), func(ctx context.Context, c *agent.Client) error {
		stalled.on.Store(true)
		time.AfterFunc(50*time.Millisecond, func() { p.end <- &vmm.Result{Outcome: vmm.GuestPanic} })
		_, err := c.Run(ctx, agent.Command{Argv: []string{"true"}})
		return err
	})
	require.ErrorContains(t, err, "guest-panic")
}

// stall is a connection from which nothing is read once it is on.
type stall struct {
	net.Conn
	on   atomic.Bool
	gone chan struct{}
}

func (s *stall) Read(p []byte) (int, error) {
	if s.on.Load() {
		<-s.gone
	}
	return s.Conn.Read(p)
}

func TestAGuestThatIsEnded(t *testing.T) {
	why := errors.New("its time was up")
	ctx, cancel := context.WithCancelCause(t.Context())
	g, _ := begin(ctx, t, false)
	cancel(why)
	_, err := g.Agent(t.Context())
	require.ErrorContains(t, err, "the guest was ended: its time was up")
	require.ErrorContains(t, g.Send(t.Context(), "x"), "its time was up")
	require.NoError(t, g.Close())
	require.NoError(t, g.Close(), "twice is harmless")
}

func TestAMachineThatFails(t *testing.T) {
	g, p := begin(t.Context(), t, true)
	p.failed = errors.New("no more memory")
	p.end <- nil
	_, err := g.Wait(t.Context())
	require.ErrorIs(t, err, p.failed)
	_, err = g.Expect(t.Context(), pattern(t, "x"))
	require.ErrorContains(t, err, "the machine failed: no more memory")
	_, err = g.Agent(t.Context())
	require.ErrorIs(t, err, ErrNoAgent)
	require.ErrorIs(t, g.Close(), p.failed)
}

func TestSendToAGuestThatDoesNotRead(t *testing.T) {
	g, _ := begin(t.Context(), t, true)
	require.NoError(t, g.Send(t.Context(), "root\n"))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, g.Send(ctx, strings.Repeat("x", 1<<20)), context.DeadlineExceeded)
}

func TestCopies(t *testing.T) {
	g, p := begin(t.Context(), t, false)
	p.call(t)
	host, guest := t.TempDir(), t.TempDir()
	require.NoError(t, os.MkdirAll(host+"/in/sub", 0o755))
	require.NoError(t, os.WriteFile(host+"/in/sub/file", []byte("text"), 0o640))
	require.NoError(t, os.Symlink("sub/file", host+"/in/link"))
	ctx := t.Context()

	require.NoError(t, g.CopyIn(ctx, host+"/in", guest+"/a/b"))
	text, err := os.ReadFile(guest + "/a/b/link")
	require.NoError(t, err)
	require.Equal(t, "text", string(text))
	require.NoError(t, g.CopyIn(ctx, host+"/in/sub/file", guest+"/other"))
	require.FileExists(t, guest+"/other")

	require.NoError(t, g.CopyOut(ctx, guest+"/a", host+"/back/again"))
	text, err = os.ReadFile(host + "/back/again/b/sub/file")
	require.NoError(t, err)
	require.Equal(t, "text", string(text))
	require.NoError(t, g.CopyOut(ctx, guest+"/other", filepath.Join(host, "o")))
	require.FileExists(t, host+"/o")

	require.ErrorIs(t, g.CopyOut(ctx, guest+"/none", host+"/o"), agent.ErrFiles)
	require.ErrorContains(t, g.CopyOut(ctx, guest+"/none", host+"/o"), "no such file")
	require.ErrorIs(t, g.CopyIn(ctx, host+"/none", guest+"/o"), os.ErrNotExist)
	require.ErrorContains(t, g.CopyIn(ctx, host+"/in", "relative"), "must be absolute")
	require.ErrorContains(t, g.CopyOut(ctx, "/", host+"/root"), "not the root")
}

func TestAConnectionThatIsNoAgents(t *testing.T) {
	g, p := begin(t.Context(), t, false)
	host, guest := net.Pipe()
	p.calls <- host
	_, _ = io.WriteString(guest, "GET / HTTP/1.0\r\n\r\n")
	_ = guest.Close()
	p.call(t)
	_, err := g.Agent(t.Context())
	require.NoError(t, err, "the next one is")
}

// TestASecondExpect does not wait longer than it may for the first.
func TestASecondExpect(t *testing.T) {
	g, _ := begin(t.Context(), t, true)
	g.expecting <- struct{}{}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	_, err := g.Expect(ctx, pattern(t, "x"))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	<-g.expecting
}

// TestWhyAGuestWasEnded: the end of the caller's own context is the reason that it is told.
func TestWhyAGuestWasEnded(t *testing.T) {
	why := errors.New("the time is up")
	ctx, cancel := context.WithCancelCause(t.Context())
	g, p := begin(ctx, t, false)
	p.call(t)
	err := g.With(ctx, func(context.Context, *agent.Client) error {
		cancel(why)
		<-g.Done()
		return errors.New("what came of it")
	})
	require.ErrorIs(t, err, why)
	_, err = g.Agent(ctx)
	require.ErrorIs(t, err, why)
}
