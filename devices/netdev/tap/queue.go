package tap

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/devices/ethernet"
	"github.com/huskvm/husk/devices/eventfd"
)

// A queue is one descriptor. Frames go through it in one readv or writev each,
// to and from the segments themselves. The file is non-blocking.
type queue struct {
	file *os.File
	raw  syscall.RawConn

	// What a call gives to its function and gets back. The functions are made
	// once, so that no frame allocates one.
	in, out       transfer
	readv, writev func(fd uintptr)
	spill         [1]byte // where the end of a frame goes that does not fit

	// Of the Wait under way.
	poll   func(fd uintptr)
	ctx    context.Context
	waited error
	event  *eventfd.Event // ends it
}

var errGone = errors.New("tap: the interface is gone")

type transfer struct {
	vector vector
	n      int
	err    error
}

// newQueue takes fd over.
func newQueue(fd int) (*queue, error) {
	// The file is for its count of users alone. It shall not be in the runtime's
	// poller, which every frame would wake, so it is non-blocking only now.
	file := os.NewFile(uintptr(fd), clone)
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	raw, err := file.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	event, err := eventfd.New()
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	q := &queue{file: file, raw: raw, event: event}
	q.poll = func(fd uintptr) { q.waited = q.event.BlockFor(q.ctx, int(fd)) }
	q.readv = func(fd uintptr) { q.in.n, q.in.err = q.in.vector.call(unix.SYS_READV, fd) }
	q.writev = func(fd uintptr) { q.out.n, q.out.err = q.out.vector.call(unix.SYS_WRITEV, fd) }
	return q, nil
}

// Send implements ethernet.Queue.
func (q *queue) Send(frame [][]byte) error {
	q.out.vector.set(frame, nil)
	err := q.raw.Control(q.writev)
	if err != nil {
		return closed(err)
	}
	switch err := q.out.err; {
	case err == nil:
		return nil
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.ENOBUFS), errors.Is(err, unix.ENOMEM),
		errors.Is(err, unix.EIO), errors.Is(err, unix.ENETDOWN), errors.Is(err, unix.EBADFD):
		// Full, or the interface is down (EIO) or gone (EBADFD).
		return fmt.Errorf("tap: %w: %w", ethernet.ErrDropped, err)
	default:
		return fmt.Errorf("tap: %w: %w", ethernet.ErrFrame, err)
	}
}

// Receive implements ethernet.Queue.
func (q *queue) Receive(frame [][]byte) (int, error) {
	room := 0
	for _, s := range frame {
		room += len(s)
	}
	// The driver cuts a frame that does not fit without saying so; a byte too
	// many tells.
	q.in.vector.set(frame, q.spill[:])
	err := q.raw.Control(q.readv)
	if err != nil {
		return 0, closed(err)
	}
	switch n, err := q.in.n, q.in.err; {
	case errors.Is(err, unix.EAGAIN):
		return 0, nil
	case err != nil:
		return 0, fmt.Errorf("tap: read: %w", err)
	case n > room:
		return 0, fmt.Errorf("tap: %w: %d bytes", ethernet.ErrTooLong, room)
	default:
		return n, nil
	}
}

// Wait implements ethernet.Queue.
func (q *queue) Wait(ctx context.Context) error {
	q.ctx = ctx
	if err := q.raw.Control(q.poll); err != nil {
		return closed(err)
	}
	if errors.Is(q.waited, os.ErrClosed) {
		return fmt.Errorf("tap: %w", ethernet.ErrClosed)
	}
	return q.waited
}

// Control implements ethernet.Descriptor.
func (q *queue) Control(f func(fd int) error) (err error) {
	if cerr := q.raw.Control(func(fd uintptr) { err = f(int(fd)) }); cerr != nil {
		return closed(cerr)
	}
	return err
}

// Check implements ethernet.Descriptor. The driver wakes nobody who polls for errors
// alone, so this is to be asked now and then.
func (q *queue) Check() error {
	return q.Control(func(fd int) error {
		p := []unix.PollFd{{Fd: int32(fd)}}
		if n, err := unix.Poll(p, 0); n > 0 && err == nil && p[0].Revents&unix.POLLERR != 0 {
			return errGone
		}
		return nil
	})
}

// control makes an ioctl on the descriptor.
func (q *queue) control(name string, f func(fd int) error) error {
	if err := q.Control(f); err != nil {
		return fmt.Errorf("tap: %s: %w", name, err)
	}
	return nil
}

// steer attaches the queue to the interface, or detaches it.
func (q *queue) steer(flag uint16) error {
	return q.control("TUNSETQUEUE", func(fd int) error {
		ifr, err := unix.NewIfreq("")
		if err != nil {
			return err
		}
		ifr.SetUint16(flag)
		return unix.IoctlIfreq(fd, unix.TUNSETQUEUE, ifr)
	})
}

// close ends a Wait: the file is closed when nobody uses it.
func (q *queue) close() error { return errors.Join(q.file.Close(), q.event.Close()) }

// closed turns the error of a call that the runtime did not make into ours. There
// is one reason for it, and the runtime does not export that error.
func closed(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("tap: %w: %w", ethernet.ErrClosed, err)
}
