package disk

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// ErrInUse is an image that another program uses in a way that excludes ours.
var ErrInUse = errors.New("the image is in use by another program")

// QEMU's locks (block/file-posix.c): who holds a permission has a shared lock on
// its byte behind 100, and who does not share it with others one behind
// 200. Nobody holds an exclusive lock: after taking its own, everybody looks whether
// there is one that excludes it.
const (
	lockHeld     = 100
	lockUnshared = 200

	permRead   = 0 // BLK_PERM_CONSISTENT_READ
	permWrite  = 1 // BLK_PERM_WRITE
	permResize = 3 // BLK_PERM_RESIZE
)

// lock takes the locks of a reader, or of a writer, on an open file. They go
// with the open file description. An error of ErrInUse names no file.
func lock(fd int, write bool) error {
	held := []int64{permRead}
	if write {
		held = append(held, permWrite, permResize)
	}
	unshared := []int64{permWrite, permResize}
	for _, p := range held {
		if err := lockByte(fd, lockHeld+p); err != nil {
			return err
		}
	}
	for _, p := range unshared {
		if err := lockByte(fd, lockUnshared+p); err != nil {
			return err
		}
	}
	for _, p := range held {
		if err := testByte(fd, lockUnshared+p); err != nil {
			return err
		}
	}
	for _, p := range unshared {
		if err := testByte(fd, lockHeld+p); err != nil {
			return fmt.Errorf("%w, which may write to it", err)
		}
	}
	return nil
}

func lockByte(fd int, at int64) error {
	l := unix.Flock_t{Type: unix.F_RDLCK, Start: at, Len: 1}
	err := unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &l)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		return ErrInUse // somebody else's exclusive lock; not QEMU's
	}
	return err
}

// testByte fails if anybody else has a lock on a byte.
func testByte(fd int, at int64) error {
	l := unix.Flock_t{Type: unix.F_WRLCK, Start: at, Len: 1}
	if err := unix.FcntlFlock(uintptr(fd), unix.F_OFD_GETLK, &l); err != nil {
		return err
	}
	if l.Type != unix.F_UNLCK {
		return ErrInUse
	}
	return nil
}

// noLocks tells that a file system has no such locks.
func noLocks(err error) bool {
	return errors.Is(err, unix.ENOLCK) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS)
}
