package disk

import (
	"errors"
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// PunchHole gives the space of a range back. The range may read as anything
// afterwards on a device, and as zeroes in a file. A host that cannot do it does nothing.
func (f *file) PunchHole(off, n int64) error {
	if f.noPunch.Load() || n == 0 {
		return nil
	}
	err := f.space(unix.BLKDISCARD, unix.FALLOC_FL_PUNCH_HOLE, off, n)
	if cannot(err, &f.noPunch) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("discard: %w", err)
	}
	return nil
}

// zero makes a range zero, and keeps its space unless mayUnmap.
func (f *file) zero(off, n int64, mayUnmap bool) error {
	if n == 0 {
		return nil
	}
	if mayUnmap && !f.device && !f.noPunch.Load() {
		err := f.space(0, unix.FALLOC_FL_PUNCH_HOLE, off, n)
		if err == nil {
			return nil
		}
		if !cannot(err, &f.noPunch) {
			return fmt.Errorf("write zeroes: %w", err)
		}
	}
	if !f.noZero.Load() {
		err := f.space(unix.BLKZEROOUT, unix.FALLOC_FL_ZERO_RANGE, off, n)
		if err == nil {
			return nil
		}
		if !cannot(err, &f.noZero) {
			return fmt.Errorf("write zeroes: %w", err)
		}
	}
	return f.writeZeroes(off, n)
}

// space does one of the two, by the kind of file.
func (f *file) space(request uintptr, mode uint32, off, n int64) error {
	if f.device {
		return deviceRange(f.fd, request, off, n)
	}
	_, err := retry(func() (struct{}, error) {
		return struct{}{}, unix.Fallocate(f.fd, mode|unix.FALLOC_FL_KEEP_SIZE, off, n)
	})
	return err
}

// cannot tells that something is not there, rather than that it failed, and
// notes it. EINVAL may be this range's alignment, so the next one is tried again.
func cannot(err error, note *atomic.Bool) bool {
	if errors.Is(err, unix.EINVAL) {
		return true
	}
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.ENOSYS) {
		note.Store(true)
		return true
	}
	return false
}

// writeZeroes writes them.
func (f *file) writeZeroes(off, n int64) error {
	const most = 64
	p := alignedBuffer(64 << 10)
	for n > 0 {
		var v [][]byte
		at := off
		for ; n > 0 && len(v) < most; n -= min(n, int64(len(p))) {
			v = append(v, p[:min(n, int64(len(p)))])
			off += min(n, int64(len(p)))
		}
		if err := f.WriteAt(v, at); err != nil {
			return err
		}
	}
	return nil
}
