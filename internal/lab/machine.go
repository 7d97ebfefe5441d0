package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/internal/agent"
)

// errHang says that a lab did not answer in time. It is worth another try: a
// software CPU on a loaded host has been seen to hang about once in 60 boots.
var errHang = errors.New("no answer in time")

// A machine is a lab that runs.
type machine struct {
	client  *agent.Client
	console *tail // what the kernel printed
	errors  *tail // what QEMU printed
	pid     int
	killed  atomic.Bool   // by us
	done    chan struct{} // closed once QEMU has ended
	err     error         // how, after done
}

// bootMachine starts QEMU and waits for the lab's agent.
func bootMachine(ctx context.Context, o Options, f files, logging string) (*machine, error) {
	// A pair of sockets instead of one with a name: no path, no listening, and
	// our end sees the end of QEMU.
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socketpair: %w", err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "agent")
	err = unix.SetNonblock(pair[0], true)
	ours := os.NewFile(uintptr(pair[0]), "agent")
	if err != nil {
		_, _ = ours.Close(), theirs.Close()
		return nil, fmt.Errorf("fcntl: %w", err)
	}

	m := &machine{console: newTail(o.Console), errors: newTail(nil), done: make(chan struct{})}
	cmd := exec.Command(o.QEMU, o.args(logging)...)
	cmd.Stdout, cmd.Stderr = m.console, m.errors
	cmd.ExtraFiles = []*os.File{theirs, f.kernel, f.initrd} // agentFD, kernelFD, initrdFD
	// QEMU has a process group of its own, so that a terminal's Ctrl-C is the
	// command's and not QEMU's.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	err = m.start(cmd)
	_ = theirs.Close() // or we would not see the end of QEMU's
	if err != nil {
		_ = ours.Close()
		return nil, fmt.Errorf("%w: %w", ErrBoot, err)
	}

	limit, cancel := context.WithTimeoutCause(ctx, o.BootTimeout, errHang)
	defer cancel()
	m.client, err = agent.Connect(limit, ours)
	if err == nil {
		return m, nil
	}
	// QEMU's end is why the connection ended, or else nothing ends by itself.
	if !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		m.kill()
	}
	<-m.done
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if errors.Is(err, errHang) && logging == quiet {
		return nil, err // the second start will tell more
	}
	if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
		err = errors.New("QEMU ended")
	}
	return nil, m.explain(fmt.Errorf("%w: %w", ErrBoot, err))
}

// start starts QEMU and reaps it. The parent-death signal comes when the thread
// ends that started the process, so one thread is kept for that.
func (m *machine) start(cmd *exec.Cmd) error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		if err == nil {
			m.pid = cmd.Process.Pid
		}
		started <- err
		if err == nil {
			m.err = cmd.Wait()
			close(m.done)
		}
	}()
	return <-started
}

// kill ends QEMU. It is harmless after its end: done is closed only once the
// process is reaped, and nobody else reaps it.
func (m *machine) kill() {
	select {
	case <-m.done:
	default:
		m.killed.Store(true)
		_ = unix.Kill(m.pid, unix.SIGKILL)
	}
}

// close ends the machine and waits for its end.
func (m *machine) close() {
	_ = m.client.Close()
	m.kill()
	<-m.done
}

// ended says whether QEMU has ended, or does so while we look: its connection
// closes a moment earlier.
func (m *machine) ended() bool {
	select {
	case <-m.done:
		return true
	case <-time.After(time.Second):
		return false
	}
}

// explain adds to an error what QEMU and the lab's kernel said last, and leaves
// the whole console in a file.
func (m *machine) explain(err error) error {
	var b strings.Builder
	if m.err != nil && !m.killed.Load() {
		fmt.Fprintf(&b, "\nQEMU: %v", m.err)
	}
	if text := m.errors.last(10); text != "" {
		fmt.Fprintf(&b, "\nQEMU says:\n%s", text)
	}
	if text := m.console.last(15); text != "" {
		fmt.Fprintf(&b, "\nthe end of the lab's console:\n%s", text)
	}
	if f, ferr := os.CreateTemp("", "husk-lab-*.log"); ferr == nil {
		_, _ = f.Write(m.console.bytes())
		_ = f.Close()
		fmt.Fprintf(&b, "\nits whole console is in %s", f.Name())
	}
	return fmt.Errorf("%w%s", err, b.String())
}
