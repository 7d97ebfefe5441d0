package term

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Input reads a file that may never have anything to read, and can be
// interrupted. Go's own deadlines would need O_NONBLOCK, which is a property of
// the open file and so would be set for every process that shares it: the
// shell too.
type Input struct {
	f    *os.File
	wake int // eventfd: the deadline has changed

	mu       sync.Mutex
	deadline time.Time
}

// NewInput reads from f, which stays the caller's to close.
func NewInput(f *os.File) (*Input, error) {
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	return &Input{f: f, wake: wake}, nil
}

// Close frees what NewInput took. No Read may be under way.
func (i *Input) Close() error { return unix.Close(i.wake) }

// SetReadDeadline makes a Read that waits at t, or after it, return
// os.ErrDeadlineExceeded. The zero time takes the deadline away.
func (i *Input) SetReadDeadline(t time.Time) error {
	i.mu.Lock()
	i.deadline = t
	i.mu.Unlock()
	one := [8]byte{1}
	_, err := unix.Write(i.wake, one[:])
	return err
}

// Read waits for something to read, or for the deadline.
func (i *Input) Read(p []byte) (int, error) {
	for {
		fds := []unix.PollFd{
			{Fd: int32(i.f.Fd()), Events: unix.POLLIN},
			{Fd: int32(i.wake), Events: unix.POLLIN},
		}
		timeout, expired := i.remaining()
		if expired {
			return 0, os.ErrDeadlineExceeded
		}
		_, err := unix.Poll(fds, timeout)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return 0, fmt.Errorf("poll %s: %w", i.f.Name(), err)
		}
		if err == nil && fds[1].Revents != 0 {
			var count [8]byte
			_, _ = unix.Read(i.wake, count[:]) // empty it; what it counted is of no interest
			continue
		}
		if err == nil && fds[0].Revents != 0 {
			return i.f.Read(p)
		}
	}
}

// remaining is the time to the deadline in milliseconds as poll(2) wants it,
// rounded up, -1 for none.
func (i *Input) remaining() (timeout int, expired bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.deadline.IsZero() {
		return -1, false
	}
	left := time.Until(i.deadline)
	const longest = time.Hour // poll's int would overflow; waking once an hour costs nothing
	return int((min(left, longest) + time.Millisecond - 1) / time.Millisecond), left <= 0
}
