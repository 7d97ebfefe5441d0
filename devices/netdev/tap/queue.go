package tap

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/devices/ethernet"
)

// A queue is one descriptor. Frames go through it in one readv or writev each,
// to and from the segments themselves. Waiting is the runtime's poller's, which
// takes no thread; the file is non-blocking.
type queue struct {
	file *os.File
	raw  syscall.RawConn

	// What a call gives to its function and gets back. The functions are made
	// once, so that no frame allocates one.
	in, out       transfer
	readv, writev func(fd uintptr)
	spill         [1]byte // where the end of a frame goes that does not fit

	// Of the Wait under way. poll is q.polled: a method value is an allocation.
	poll  func(fd uintptr) bool
	woken bool
	fds   [1]unix.PollFd
	// done is the context's that can interrupt Wait, stop releases it.
	done <-chan struct{}
	stop func() bool
}

type transfer struct {
	vector vector
	n      int
	err    error
}

func newQueue(file *os.File) (*queue, error) {
	raw, err := file.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	q := &queue{file: file, raw: raw, stop: func() bool { return true }}
	q.poll = q.polled
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
	q.watch(ctx)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		q.woken = false
		err := q.raw.Read(q.poll)
		if err == nil {
			return nil
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return closed(err)
		}
		// A context ended: ours, or late, one before it. The deadline is taken back
		// before ours is looked at, so that its end is not missed.
		if err := q.file.SetReadDeadline(time.Time{}); err != nil {
			return closed(err)
		}
	}
}

// polled is called when the poller listens, and again when it heard something.
// What came before it listened would not wake it.
func (q *queue) polled(fd uintptr) bool {
	if q.woken {
		return true
	}
	q.woken = true
	q.fds[0] = unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
	n, err := unix.Poll(q.fds[:], 0)
	return n > 0 || err != nil
}

// watch has the end of ctx interrupt Wait. It is set up once for a context, not
// for each Wait: one is between any two frames that come alone.
func (q *queue) watch(ctx context.Context) {
	done := ctx.Done()
	if done == q.done {
		return
	}
	q.stop()
	q.done = done
	q.stop = context.AfterFunc(ctx, func() {
		q.file.SetReadDeadline(time.Unix(1, 0)) //nolint:errcheck // a closed file wakes by itself
	})
}

// control makes an ioctl on the descriptor.
func (q *queue) control(name string, f func(fd int) error) (err error) {
	if cerr := q.raw.Control(func(fd uintptr) { err = f(int(fd)) }); cerr != nil {
		return closed(cerr)
	}
	if err != nil {
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

func (q *queue) close() error { return q.file.Close() }

// closed turns the error of a call that the runtime did not make into ours. There
// is one reason for it, and the runtime does not export that error.
func closed(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("tap: %w: %w", ethernet.ErrClosed, err)
}
