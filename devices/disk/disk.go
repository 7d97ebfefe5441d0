// Package disk opens disk images for a guest: raw files, block devices and
// qcow2, with backing files and throwaway overlays. It knows nothing of virtio:
// who offers a Disk to a guest declares what it needs of it.
package disk

import (
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/huskvm/husk/devices/iovec"
)

// Errors of requests. What the host says (ENOSPC, EIO) comes as its errno.
var (
	// ErrRange is a request that is not all inside of the disk.
	ErrRange = errors.New("outside of the disk")
	// ErrReadOnly is a change of a disk that is open read-only.
	ErrReadOnly = errors.New("the disk is read-only")
)

// A backend is a format: what it gets lies inside the disk, and changes only
// come if it is writable.
type backend interface {
	ReadAt(v [][]byte, off int64) error
	WriteAt(v [][]byte, off int64) error
	Flush() error
	Discard(off, n int64) error
	WriteZeroes(off, n int64, mayUnmap bool) error
	Size() int64
	Close() error
}

// A Topology is what a guest should know of a disk's blocks, in bytes.
type Topology struct {
	Logical            int // the smallest unit of a request, 512 or the host device's
	Physical           int // the smallest unit that is written without reading first
	OptimalIO          int // 0 if nothing is special
	DiscardGranularity int // the smallest range that discarding gives back
}

// A Disk is an open image. All its methods but Close may be called by several
// goroutines at once. Offsets and sizes are in bytes, of any alignment.
type Disk struct {
	spec     Spec
	backend  backend
	size     int64
	topology Topology
	readOnly bool
	log      *slog.Logger

	lastLog    atomic.Int64 // when a failure was logged, Unix time in ns
	suppressed atomic.Int64 // failures not logged since
}

// Size is the disk's size, a multiple of 512.
func (d *Disk) Size() int64 { return d.size }

// Topology describes the disk's blocks.
func (d *Disk) Topology() Topology { return d.topology }

// ReadOnly tells whether the disk refuses changes with ErrReadOnly.
func (d *Disk) ReadOnly() bool { return d.readOnly }

// Spec is how the disk was asked for; its Format is the one found.
func (d *Disk) Spec() Spec { return d.spec }

// ReadAt fills v, which may be guest memory, with the bytes from off on.
func (d *Disk) ReadAt(v [][]byte, off int64) error {
	if err := d.check("read", off, iovec.Len(v), false); err != nil {
		return err
	}
	return d.done("read", off, d.backend.ReadAt(v, off))
}

// WriteAt writes v, which may be guest memory, from off on.
func (d *Disk) WriteAt(v [][]byte, off int64) error {
	if err := d.check("write", off, iovec.Len(v), true); err != nil {
		return err
	}
	return d.done("write", off, d.backend.WriteAt(v, off))
}

// Flush returns when all writes that have returned before will survive a crash
// of the host. With cache=unsafe they may not.
func (d *Disk) Flush() error {
	if d.readOnly {
		return nil
	}
	return d.done("flush", 0, d.backend.Flush())
}

// Discard tells that the guest does not need n bytes from off on any more. What
// they read as afterwards is not specified. Without discard=on it does nothing.
func (d *Disk) Discard(off, n int64) error {
	if err := d.check("discard", off, n, true); err != nil || !d.spec.Discard {
		return err
	}
	return d.done("discard", off, d.backend.Discard(off, n))
}

// WriteZeroes makes n bytes from off on zero. mayUnmap allows to give up their
// space, with discard=on.
func (d *Disk) WriteZeroes(off, n int64, mayUnmap bool) error {
	if err := d.check("write zeroes", off, n, true); err != nil {
		return err
	}
	return d.done("write zeroes", off, d.backend.WriteZeroes(off, n, mayUnmap && d.spec.Discard))
}

// Close flushes the disk and closes it, with all files behind it. No other
// method may be at work, and none may be called afterwards.
func (d *Disk) Close() error {
	if err := d.backend.Close(); err != nil {
		return fmt.Errorf("disk %s: close: %w", d.spec.File, err)
	}
	return nil
}

func (d *Disk) check(op string, off, n int64, change bool) error {
	if change && d.readOnly {
		return fmt.Errorf("disk %s: %s: %w", d.spec.File, op, ErrReadOnly)
	}
	if off < 0 || n < 0 || off > d.size || n > d.size-off {
		return fmt.Errorf("disk %s: %s of %d bytes at %#x: %w of %#x bytes", d.spec.File, op, n, off, ErrRange, d.size)
	}
	return nil
}

// done logs a failure, one line in a second at most: a guest can repeat it as
// fast as it likes.
func (d *Disk) done(op string, off int64, err error) error {
	if err == nil {
		return nil
	}
	err = fmt.Errorf("disk %s: %s at %#x: %w", d.spec.File, op, off, err)
	now, last := time.Now().UnixNano(), d.lastLog.Load()
	if now-last < int64(time.Second) || !d.lastLog.CompareAndSwap(last, now) {
		d.suppressed.Add(1)
		return err
	}
	d.log.Error("the guest gets an I/O error", "error", err, "more_before", d.suppressed.Swap(0))
	return err
}
