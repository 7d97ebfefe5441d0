package process_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/huskvm/husk/devices/netdev"
	"github.com/huskvm/husk/internal/agent"
	"github.com/huskvm/husk/internal/machine"
	"github.com/huskvm/husk/internal/machine/process"
	"github.com/huskvm/husk/vmm"
)

// role makes the test's own program a machine's process: what is odd about its guest.
const role = "HUSK_MACHINE_PROCESS_TEST"

func TestMain(m *testing.M) {
	if odd := os.Getenv(role); odd != "" {
		if err := serve(odd, os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, "husk:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// serve is a machine's process, with this host for a guest.
func serve(odd string, args []string) error {
	inherited, err := machine.Inherit(args)
	if err != nil {
		return err
	}
	return process.Serve(context.Background(), inherited, process.Options{
		Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
		NewVM: func(_ *machine.Machine, console io.Writer) (process.VM, error) {
			if odd == "unmakable" {
				return nil, fmt.Errorf("kernel /nowhere: no such file")
			}
			return &fakeVM{
				odd: odd, console: console, calls: make(chan net.Conn, 1), off: make(chan *vmm.Result, 1), closed: make(chan struct{}),
			}, nil
		},
	})
}

// A fakeVM is a virtual machine whose guest's agent runs in this process, and its commands
// on this host.
type fakeVM struct {
	odd     string
	console io.Writer
	calls   chan net.Conn
	off     chan *vmm.Result
	closed  chan struct{}
	once    sync.Once
}

func (v *fakeVM) Run(ctx context.Context) (*vmm.Result, error) {
	_, _ = io.WriteString(v.console, "the guest boots\n")
	switch v.odd {
	case "hangs":
		<-ctx.Done()
		return &vmm.Result{Outcome: vmm.Cancelled}, nil
	case "panics":
		return &vmm.Result{Outcome: vmm.GuestPanic, Detail: "no root"}, nil
	}
	host, guest := net.Pipe()
	v.calls <- host
	if v.odd == "refuses" {
		_ = agent.Refuse(guest, fmt.Errorf("network: no card"))
		<-ctx.Done()
		return &vmm.Result{Outcome: vmm.Cancelled}, nil
	}
	server := agent.Server{PowerOff: func() error {
		if v.odd == "written" {
			time.Sleep(3 * time.Second) // it is longer about it than about killing
			_, _ = io.WriteString(v.console, "all is written\n")
		}
		v.end(&vmm.Result{Outcome: vmm.PowerOff})
		return nil
	}}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(ctx, guest)
	}()
	defer func() { _ = guest.Close(); <-served }()
	select {
	case r := <-v.off:
		return r, nil
	case <-ctx.Done():
		return &vmm.Result{Outcome: vmm.Cancelled}, nil
	}
}

func (v *fakeVM) end(r *vmm.Result) {
	select {
	case v.off <- r:
	default:
	}
}

func (v *fakeVM) ListenVsock(uint32) (net.Listener, error) { return v, nil }
func (v *fakeVM) Accept() (net.Conn, error) {
	select {
	case <-v.closed:
		return nil, net.ErrClosed
	default:
	}
	select {
	case c := <-v.calls:
		return c, nil
	case <-v.closed:
		return nil, net.ErrClosed
	}
}
func (v *fakeVM) Addr() net.Addr              { return nil }
func (v *fakeVM) Published() []netdev.Publish { return nil }
func (v *fakeVM) Pause() error                { return nil }
func (v *fakeVM) Resume() error               { return nil }
func (v *fakeVM) Stats() vmm.Stats {
	if v.odd == "intruder" { // a program of the guest's calls as its agent does
		host, guest := net.Pipe()
		v.calls <- host
		go func() {
			select {
			case <-v.closed:
				_ = guest.Close()
			default:
				_ = agent.Refuse(guest, fmt.Errorf("I am the agent now"))
			}
		}()
	}
	return vmm.Stats{Memory: vmm.MemoryStats{GuestRAM: 1 << 20}, IO: vmm.IOStats{ReadBytes: 7}}
}

func (v *fakeVM) Close() error {
	v.once.Do(func() { close(v.closed) })
	return nil
}

// A host is where machines are.
type host struct {
	*testing.T
	*machine.Machines
	dir string
	odd string // of the guests that are started
}

func newHost(t *testing.T) *host {
	t.Helper()
	dir := t.TempDir()
	ms, err := machine.Open(filepath.Join(dir, "run"), filepath.Join(dir, "data"))
	require.NoError(t, err)
	h := &host{t, ms, dir, "none"}
	t.Cleanup(func() {
		list, err := ms.List()
		require.NoError(t, err)
		for _, m := range list {
			require.NoError(t, m.Remove(context.Background(), true))
		}
		left, err := filepath.Glob(dir + "/*/machines/*")
		require.NoError(t, err)
		for _, path := range left {
			require.Equal(t, "lock", filepath.Base(path), "it was left behind")
		}
	})
	return h
}

// argv starts a machine's process.
func (h *host) argv() []string {
	self, err := os.Executable()
	require.NoError(h, err)
	// The race detector would have each process wait a second at its end.
	return []string{"/usr/bin/env", role + "=" + h.odd, "GORACE=atexit_sleep_ms=0", self}
}

// create makes a machine that runs a shell's script.
func (h *host) create(script string, change ...func(*machine.Spec)) *machine.Machine {
	h.Helper()
	spec := machine.Spec{Process: machine.Process{Argv: []string{"/bin/sh", "-c", script}}}
	for _, f := range change {
		f(&spec)
	}
	m, err := h.Create(h.Context(), spec)
	require.NoError(h, err)
	return m
}

// start starts it too.
func (h *host) start(script string, change ...func(*machine.Spec)) *machine.Machine {
	h.Helper()
	m := h.create(script, change...)
	require.NoError(h, m.Start(h.Context(), h.argv()))
	return m
}

// A buffer can be written to and looked at by several.
type buffer struct {
	mu   sync.Mutex
	text strings.Builder
	more chan struct{}
}

func newBuffer() *buffer { return &buffer{more: make(chan struct{}, 1)} }

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.text.Write(p)
	select {
	case b.more <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// await waits until it has text in it.
func (b *buffer) await(t *testing.T, text string) {
	t.Helper()
	for !strings.Contains(b.String(), text) {
		select {
		case <-b.more:
		case <-t.Context().Done():
			require.Fail(t, "it never came", "%q in %q", text, b.String())
		}
	}
}

func interactive(s *machine.Spec) { s.Process.OpenStdin = true }
func removed(s *machine.Spec)     { s.AutoRemove = true }
func tty(s *machine.Spec)         { s.Process.TTY, s.Process.OpenStdin = true, true }
