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
	segments      [][]byte
}

type transfer struct {
	segments [][]byte
	n        int
	err      error
}

func newQueue(file *os.File) (*queue, error) {
	raw, err := file.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	q := &queue{file: file, raw: raw}
	q.readv = func(fd uintptr) { q.in.n, q.in.err = retry(unix.Readv, int(fd), q.in.segments) }
	q.writev = func(fd uintptr) { q.out.n, q.out.err = retry(unix.Writev, int(fd), q.out.segments) }
	return q, nil
}

// retry makes a call again that a signal interrupted.
func retry(call func(int, [][]byte) (int, error), fd int, segments [][]byte) (n int, err error) {
	for {
		if n, err = call(fd, segments); !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// Send implements ethernet.Queue.
func (q *queue) Send(frame [][]byte) error {
	q.out.segments = frame
	err := q.raw.Control(q.writev)
	q.out.segments = nil
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
	q.segments = append(append(q.segments[:0], frame...), q.spill[:])
	q.in.segments = q.segments
	err := q.raw.Control(q.readv)
	q.in.segments = nil
	clear(q.segments)
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
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := q.file.SetReadDeadline(time.Time{}); err != nil {
		return closed(err)
	}
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		q.file.SetReadDeadline(time.Unix(1, 0)) //nolint:errcheck // a closed file wakes by itself
	})
	woken := false
	err := q.raw.Read(func(fd uintptr) bool {
		if woken {
			return true
		}
		// What came before the poller was armed would not wake it.
		woken = true
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, 0)
		return n > 0 || err != nil
	})
	if !stop() {
		<-ended
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return closed(err)
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
