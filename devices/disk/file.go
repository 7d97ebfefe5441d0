package disk

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/devices/iovec"
)

// ErrNoDirect is a file system that has no O_DIRECT.
var ErrNoDirect = errors.New("the file system cannot bypass the page cache (O_DIRECT)")

// ErrLost is every flush after one that failed: the kernel drops what it could
// not write, so later success means nothing.
var ErrLost = errors.New("an earlier flush failed, so written data may be lost")

// iovMax is how many pieces a system call takes (UIO_MAXIOV).
const iovMax = 1024

// A file is an image's file or block device on the host.
type file struct {
	path   string
	fd     int
	device bool
	cache  Cache

	// align is what offsets and lengths must be multiples of, and memAlign what
	// addresses must be: 1, unless the page cache is bypassed.
	align, memAlign int64
	// edges keeps requests apart from one that reads a block, changes a part of
	// it and writes it back. Only with align above 512.
	edges sync.RWMutex

	noPunch, noZero atomic.Bool // the file system has said that it cannot
	lost            atomic.Bool // a sync has failed
}

// openFile opens a regular file or a block device.
func openFile(path string, write bool, cache Cache) (_ *file, err error) {
	// A pipe would block, and opening a device can do things: an image may name
	// any file as its backing file.
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	if !isDisk(&st) {
		return nil, fmt.Errorf("%s is neither a regular file nor a block device", path)
	}
	flags := unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_RDONLY
	if write {
		flags |= unix.O_RDWR
		if st.Mode&unix.S_IFMT == unix.S_IFBLK {
			flags |= unix.O_EXCL // refused while it is mounted, or part of another device
		}
	}
	if cache == Direct {
		flags |= unix.O_DIRECT
	}
	fd, err := retry(func() (int, error) { return unix.Open(path, flags, 0) })
	switch {
	case errors.Is(err, unix.EINVAL) && cache == Direct:
		return nil, fmt.Errorf("%s: %w; use cache=writeback", path, ErrNoDirect)
	case write && (errors.Is(err, unix.EACCES) || errors.Is(err, unix.EROFS) || errors.Is(err, unix.EPERM)):
		return nil, fmt.Errorf("%s cannot be opened for writing: %w; add ro or snapshot=on, or change its permissions", path, err)
	case write && errors.Is(err, unix.EBUSY):
		return nil, fmt.Errorf("%s is mounted, or in use by another device: %w; unmount it, or add ro", path, err)
	case err != nil:
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	f := &file{path: path, fd: fd, cache: cache, align: 1, memAlign: 1}
	defer func() {
		if err != nil {
			_ = f.Close()
		}
	}()
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("stat %s: %w", path, err)
	}
	if !isDisk(&st) {
		return nil, fmt.Errorf("%s is neither a regular file nor a block device", path)
	}
	f.device = st.Mode&unix.S_IFMT == unix.S_IFBLK
	if cache == Direct {
		f.findAlignment()
	}
	return f, nil
}

// lock takes the locks of a reader or of a writer. Locks that the file system
// lacks are a warning: QEMU goes on without, too.
func (f *file) lock(write bool, log *slog.Logger) error {
	err := lock(f.fd, write)
	switch {
	case err == nil:
		return nil
	case noLocks(err):
		log.Warn("the file system has no locks: nothing keeps another program from using the image", "file", f.path, "error", err)
		return nil
	}
	return fmt.Errorf("%s: %w; stop the other program, or give each its own overlay (qemu-img create -f qcow2 -b IMAGE -F FORMAT)", f.path, err)
}

func isDisk(st *unix.Stat_t) bool {
	kind := st.Mode & unix.S_IFMT
	return kind == unix.S_IFREG || kind == unix.S_IFBLK
}

// retry calls f until no signal interrupts it.
func retry[T any](f func() (T, error)) (T, error) {
	for {
		v, err := f()
		if !errors.Is(err, unix.EINTR) {
			return v, err
		}
	}
}

// Size is the file's length in bytes.
func (f *file) Size() (int64, error) {
	if f.device {
		n, err := deviceSize(f.fd)
		if err != nil {
			return 0, fmt.Errorf("size of %s: %w", f.path, err)
		}
		return n, nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(f.fd, &st); err != nil {
		return 0, fmt.Errorf("stat %s: %w", f.path, err)
	}
	return st.Size, nil
}

// identity tells files apart, by whatever name.
func (f *file) identity() (fileID, error) {
	var st unix.Stat_t
	if err := unix.Fstat(f.fd, &st); err != nil {
		return fileID{}, fmt.Errorf("stat %s: %w", f.path, err)
	}
	return fileID{st.Dev, st.Ino}, nil
}

type fileID struct{ dev, ino uint64 }

// ReadAt fills v. Behind the end of the file there are zeroes.
func (f *file) ReadAt(v [][]byte, off int64) error {
	if f.align > 1 && !f.aligned(v, off) {
		return f.readBounced(v, off)
	}
	return f.read(v, off)
}

// read reads straight into v.
func (f *file) read(v [][]byte, off int64) error {
	for left := iovec.Len(v); left > 0; {
		n, err := retry(func() (int, error) { return unix.Preadv(f.fd, v[:min(len(v), iovMax)], off) })
		if err != nil {
			return fmt.Errorf("read: %w", err)
		}
		if n == 0 || int64(n) < left && int64(n)%f.align != 0 { // the end
			iovec.Zero(iovec.Slice(v, int64(n), left-int64(n)))
			return nil
		}
		off += int64(n)
		left -= int64(n)
		v = iovec.Slice(v, int64(n), left)
	}
	return nil
}

// WriteAt writes all of v.
func (f *file) WriteAt(v [][]byte, off int64) error {
	if f.align > 1 {
		return f.writeDirect(v, off)
	}
	return f.write(v, off)
}

// write writes straight from v.
func (f *file) write(v [][]byte, off int64) error {
	for left := iovec.Len(v); left > 0; {
		n, err := retry(func() (int, error) { return unix.Pwritev(f.fd, v[:min(len(v), iovMax)], off) })
		if err == nil && n == 0 {
			err = io.ErrShortWrite
		}
		if err != nil {
			return fmt.Errorf("write: %w", err)
		}
		off += int64(n)
		left -= int64(n)
		v = iovec.Slice(v, int64(n), left)
	}
	return nil
}

// Sync is fdatasync, or nothing with cache=unsafe.
func (f *file) Sync() error {
	if f.cache == Unsafe {
		return nil
	}
	if f.lost.Load() {
		return fmt.Errorf("flush of %s: %w; the guest should be shut down", f.path, ErrLost)
	}
	_, err := retry(func() (struct{}, error) { return struct{}{}, unix.Fdatasync(f.fd) })
	if err == nil {
		return nil
	}
	if f.cache != Direct { // there the page cache holds nothing
		f.lost.Store(true)
	}
	return fmt.Errorf("fdatasync: %w", err)
}

// Close closes the file; its locks go with it.
func (f *file) Close() error {
	if err := unix.Close(f.fd); err != nil {
		return fmt.Errorf("close %s: %w", f.path, err)
	}
	return nil
}
