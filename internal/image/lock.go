package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// How a file can be locked (flock(2)). The kernel gives a lock back when its process ends,
// however it ends, and each open file has its own: so it is between goroutines, too.
const (
	shared    = unix.LOCK_SH
	exclusive = unix.LOCK_EX
)

// pollLock is how often a lock that another has is tried again. flock can wait, but not
// for a context.
const pollLock = 20 * time.Millisecond

// lockFile opens the file at path, made if need be, and locks it; it waits for who has
// it. What it gives is the file that has this name at that moment: who had it may have
// renamed or removed it. Closing it gives the lock back.
func lockFile(ctx context.Context, path string, how int) (*os.File, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		// Earlier versions, when they were killed, left files that are read-only.
		if errors.Is(err, fs.ErrPermission) && os.Chmod(path, 0o600) == nil {
			f, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		}
		if err != nil {
			return nil, err
		}
		locked, err := tryLock(f, how)
		if err == nil && locked && isAt(f, path) {
			return f, nil
		}
		_ = f.Close()
		if err != nil {
			return nil, err
		}
		if locked {
			continue
		}
		if err := pause(ctx, pollLock); err != nil {
			return nil, err
		}
	}
}

// pause waits, but not beyond the context's end.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// tryLock locks an open file, unless another has it.
func tryLock(f *os.File, how int) (bool, error) {
	for {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		switch {
		case err == nil:
			return true, nil
		case errors.Is(err, unix.EWOULDBLOCK):
			return false, nil
		case !errors.Is(err, unix.EINTR):
			return false, fmt.Errorf("lock %s: %w", f.Name(), err)
		}
	}
}

// isAt tells whether the open file is the one that path names now.
func isAt(f *os.File, path string) bool {
	ours, err := f.Stat()
	if err != nil {
		return false
	}
	there, err := os.Stat(path)
	return err == nil && os.SameFile(ours, there)
}
