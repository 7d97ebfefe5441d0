// Package eventfd is an event that the kernel can signal and listen to: KVM's
// ioeventfd and irqfd. It is the Kick and the Interrupt of a virtqueue.
package eventfd

import (
	"context"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// An Event is an eventfd.
type Event struct {
	fd     int
	closed atomic.Bool
	wait   sync.Mutex // held by the Wait, Block or BlockFor under way, whose the rest is

	// done is the context's that can interrupt it, stop releases that.
	done <-chan struct{}
	stop func() bool

	// Of Block and BlockFor.
	count [8]byte
	fds   [2]unix.PollFd

	// Of Wait. file is nil before the first one: from then on, the descriptor is in
	// Go's poller.
	file  *os.File
	conn  syscall.RawConn
	poll  func(uintptr) bool // e.polled; kept, as a method value is an allocation
	ctx   context.Context    // of the Wait under way
	idle  func() bool
	asked bool
}

// New opens an eventfd. Close closes it.
func New() (*Event, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("eventfd: %w; too many open files? raise the limit (ulimit -n)", err)
	}
	return &Event{fd: fd, stop: func() bool { return true }}, nil
}

// FD is the descriptor, for KVM_IOEVENTFD and KVM_IRQFD. It is the Event's, and
// valid until Close.
func (e *Event) FD() int { return e.fd }

// Signal signals the event. It does not block.
func (e *Event) Signal() { Signal(e.fd) }

// Wait calls idle, and if that returns true, waits for a signal that comes after
// that call began. It returns the error of ctx when that ends, and os.ErrClosed
// after Close. It may return early. Only one Wait, Block or BlockFor may run at a
// time.
//
// The goroutine waits in Go's poller, so that those it has woken run meanwhile. The
// counter is not read: the poller is edge-triggered and hears of every signal. So a
// wait costs no system call but the poller's own.
func (e *Event) Wait(ctx context.Context, idle func() bool) error {
	e.wait.Lock()
	defer e.wait.Unlock()
	if err := e.ready(ctx); err != nil {
		return err
	}
	if err := e.register(); err != nil {
		return err
	}
	e.ctx, e.idle, e.asked = ctx, idle, false
	if err := e.conn.Read(e.poll); err != nil {
		return fmt.Errorf("eventfd: %w", err)
	}
	return e.over(ctx)
}

// register has Go's poller listen to the event.
func (e *Event) register() (err error) {
	if e.file != nil {
		return nil
	}
	if err := unix.SetNonblock(e.fd, true); err != nil {
		return fmt.Errorf("eventfd: %w", err)
	}
	e.poll = e.polled
	e.file = os.NewFile(uintptr(e.fd), "eventfd")
	if e.conn, err = e.file.SyscallConn(); err == nil {
		err = e.file.SetReadDeadline(time.Time{}) // fails unless the poller has it
	}
	if err != nil {
		return fmt.Errorf("eventfd: %w", err)
	}
	return nil
}

// polled is called when the poller listens, and again when it heard a signal.
func (e *Event) polled(uintptr) bool {
	if e.asked {
		return true
	}
	e.asked = true
	return e.over(e.ctx) != nil || !e.idle()
}

// Block is Wait for a goroutine that has its thread to itself, and blocks that. A
// thread that sleeps in a read is awake sooner than a goroutine, by a switch of
// threads or two.
func (e *Event) Block(ctx context.Context, idle func() bool) error {
	e.wait.Lock()
	defer e.wait.Unlock()
	if err := e.ready(ctx); err != nil {
		return err
	}
	if !idle() {
		return nil
	}
	e.read()
	return e.over(ctx)
}

// BlockFor is Block until fd can be read from, too.
func (e *Event) BlockFor(ctx context.Context, fd int) error {
	e.wait.Lock()
	defer e.wait.Unlock()
	if err := e.ready(ctx); err != nil {
		return err
	}
	e.fds = [2]unix.PollFd{{Fd: int32(e.fd), Events: unix.POLLIN}, {Fd: int32(fd), Events: unix.POLLIN}}
	// It fails where a signal of the process's comes: that is early.
	if n, err := unix.Poll(e.fds[:], -1); err == nil && n > 0 && e.fds[0].Revents != 0 {
		e.read()
	}
	return e.over(ctx)
}

// read waits until the event is signalled, unless it has been, and takes that back.
func (e *Event) read() {
	_, err := unix.Read(e.fd, e.count[:])
	if err == unix.EAGAIN { // it has been in a Wait, and is non-blocking
		e.fds[0] = unix.PollFd{Fd: int32(e.fd), Events: unix.POLLIN}
		_, _ = unix.Poll(e.fds[:1], -1)
		_, _ = unix.Read(e.fd, e.count[:]) // other errors are signals, as above
	}
}

// ready has the end of ctx be a signal.
func (e *Event) ready(ctx context.Context) error {
	e.watch(ctx)
	return e.over(ctx)
}

// over tells whether nobody shall wait any more.
func (e *Event) over(ctx context.Context) error {
	if e.closed.Load() {
		return os.ErrClosed
	}
	return ctx.Err()
}

// watch has the end of ctx interrupt Wait. It is set up once for a context, not
// for each Wait.
func (e *Event) watch(ctx context.Context) {
	done := ctx.Done()
	if done == e.done {
		return
	}
	e.stop()
	e.done = done
	e.stop = context.AfterFunc(ctx, e.Signal)
}

// Close ends a Wait, and closes the eventfd.
func (e *Event) Close() error {
	if e.closed.Swap(true) {
		return os.ErrClosed
	}
	e.Signal()
	e.wait.Lock()
	defer e.wait.Unlock()
	e.stop()
	if e.file != nil {
		return e.file.Close()
	}
	return unix.Close(e.fd)
}
