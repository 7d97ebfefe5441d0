package machine

import (
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// A machine's lock is held by who makes it, and then by its process, to which the open
// file is handed down, so that there is no moment in between. It is one of those that belong
// to the open file and not to a process (F_OFD_SETLK, fcntl(2)), and whether somebody has it
// can be asked without taking it. The kernel frees it however a process ends.

// tryLock takes a lock. It is false where another has it.
func tryLock(f *os.File) (bool, error) {
	err := fcntlLock(f, unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		return false, nil
	}
	return err == nil, err
}

// locked tells whether somebody has the lock of a file. One that is not there is nobody's.
func locked(path string) (bool, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	l := unix.Flock_t{Type: unix.F_WRLCK}
	err = fcntlLock(f, unix.F_OFD_GETLK, &l)
	return l.Type != unix.F_UNLCK, err
}

func fcntlLock(f *os.File, what int, l *unix.Flock_t) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = unix.FcntlFlock(fd, what, l) }); err != nil {
		return err
	}
	return os.NewSyscallError("fcntl", failed)
}

// between is how long to wait before something is looked at again of which nobody tells.
const between = 10 * time.Millisecond

// lock opens a file, which is made if need be, and waits for its lock.
func lock(ctx context.Context, path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		got, err := tryLock(f)
		if got {
			return f, nil
		}
		if err == nil {
			err = moment(ctx)
		}
		if err != nil {
			_ = f.Close()
			return nil, err
		}
	}
}

// moment waits for a moment, or for the end of ctx.
func moment(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(between):
		return nil
	}
}
