package image

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// OpenArchive opens a file to load images from. A FIFO is open at once, whether or not
// anybody writes to it: to wait for who does is Load's, which can be interrupted.
func OpenArchive(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
}

// A waiting reads a pipe or a terminal, and ends with its context though nothing comes. A
// read of a file that was opened by others cannot be interrupted, so it waits before it reads.
type waiting struct {
	ctx context.Context
	f   *os.File
}

func (w waiting) Read(p []byte) (int, error) {
	if err := w.wait(); err != nil {
		return 0, err
	}
	return w.f.Read(p)
}

// wait waits until there is something to read, or the end, or an error.
func (w waiting) wait() (err error) {
	if ready, err := poll(w.f, nil, 0); ready || err != nil {
		return err
	}
	bell, ring, err := os.Pipe()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bell.Close()) }()
	stop := context.AfterFunc(w.ctx, func() { _ = ring.Close() })
	defer func() {
		if stop() {
			_ = ring.Close()
		}
	}()
	for {
		if w.ctx.Err() != nil {
			return context.Cause(w.ctx)
		}
		if ready, err := poll(w.f, bell, -1); ready || err != nil {
			return err
		}
	}
}

// poll waits for so many milliseconds, -1 for no limit, until there is something to read of
// f, or of bell if it is not nil. It tells whether it is f.
func poll(f, bell *os.File, timeout int) (ready bool, err error) {
	fds := make([]unix.PollFd, 0, 2)
	var bad error
	last := func(fd uintptr) error {
		fds = append(fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
		_, bad = unix.Poll(fds, timeout)
		return nil
	}
	err = control(f, func(fd uintptr) error {
		if bell == nil {
			return last(fd)
		}
		fds = append(fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
		return control(bell, last)
	})
	if err == nil && bad != nil && !errors.Is(bad, unix.EINTR) {
		err = fmt.Errorf("%s: wait: %w", f.Name(), bad)
	}
	return err == nil && fds[0].Revents != 0, err
}

// control gives a file's descriptor to use. Unlike File.Fd, it leaves the file as it is.
func control(f *os.File, use func(fd uintptr) error) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	err = c.Control(func(fd uintptr) { inner = use(fd) })
	return errors.Join(err, inner)
}
