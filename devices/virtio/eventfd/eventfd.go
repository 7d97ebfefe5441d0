// Package eventfd is an event that the kernel can signal and listen to: KVM's
// ioeventfd and irqfd. It is the Kick and the Interrupt of a virtqueue.
package eventfd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// An Event is an eventfd.
type Event struct {
	fd   int
	file *os.File
	conn syscall.RawConn
	poll func(uintptr) bool // e.polled; kept, as a method value is an allocation

	// Of the Wait under way.
	idle  func() bool
	asked bool
	// done is the context's that can interrupt Wait, stop releases it.
	done <-chan struct{}
	stop func() bool
}

// New opens an eventfd. Close closes it.
func New() (*Event, error) {
	fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("eventfd: %w; too many open files? raise the limit (ulimit -n)", err)
	}
	e := &Event{fd: fd, file: os.NewFile(uintptr(fd), "eventfd"), stop: func() bool { return true }}
	e.poll = e.polled
	if e.conn, err = e.file.SyscallConn(); err == nil {
		err = e.file.SetReadDeadline(time.Time{}) // fails unless Go's poller has it
	}
	if err != nil {
		_ = e.file.Close()
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	return e, nil
}

// FD is the descriptor, for KVM_IOEVENTFD and KVM_IRQFD. It is the Event's, and
// valid until Close.
func (e *Event) FD() int { return e.fd }

// Signal signals the event. It does not block.
func (e *Event) Signal() { Signal(e.fd) }

// Wait calls idle, and if that returns true, waits for a signal that comes after
// that call began. It returns the error of ctx when that ends, and os.ErrClosed
// after Close. It may return early. Only one Wait may run at a time.
//
// The counter is not read: Go's poller is edge-triggered and hears of every
// signal. So a wait costs no system call but the poller's own.
func (e *Event) Wait(ctx context.Context, idle func() bool) error {
	e.watch(ctx)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		e.idle, e.asked = idle, false
		err := e.conn.Read(e.poll)
		if err == nil {
			return nil
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return fmt.Errorf("eventfd: %w", os.ErrClosed) // the poller's own error for that is internal
		}
		// A context ended: ours, or late, one before it. The deadline is taken back
		// before ours is looked at, so that its end is not missed.
		if err := e.file.SetReadDeadline(time.Time{}); err != nil {
			return err
		}
	}
}

// polled is called when the poller listens, and again when it heard a signal.
func (e *Event) polled(uintptr) bool {
	if e.asked {
		return true
	}
	e.asked = true
	return !e.idle()
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
	e.stop = context.AfterFunc(ctx, func() { _ = e.file.SetReadDeadline(time.Unix(1, 0)) })
}

// Close closes the eventfd and ends a Wait.
func (e *Event) Close() error { return e.file.Close() }
