package disk

import (
	"fmt"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/devices/iovec"
)

// Without the page cache, the host's device wants addresses, offsets and
// lengths that are multiples of its blocks. A guest's need not be: those
// requests go through a buffer.

const (
	maxAlign   = 4096
	bounceSize = 1 << 20
)

// bounces holds buffers of bounceSize bytes, aligned to maxAlign.
var bounces = sync.Pool{New: func() any {
	p := alignedBuffer(bounceSize)
	return &p
}}

func alignedBuffer(n int) []byte {
	p := make([]byte, n+maxAlign)
	skip := -uintptr(unsafe.Pointer(&p[0])) & (maxAlign - 1)
	return p[skip : int(skip)+n : int(skip)+n]
}

// findAlignment asks the kernel what requests must be aligned to, and where it
// cannot tell, tries.
func (f *file) findAlignment() {
	var st unix.Statx_t
	err := unix.Statx(f.fd, "", unix.AT_EMPTY_PATH, unix.STATX_DIOALIGN, &st)
	if err == nil && st.Mask&unix.STATX_DIOALIGN != 0 && st.Dio_offset_align > 0 && st.Dio_offset_align <= maxAlign {
		f.align, f.memAlign = int64(st.Dio_offset_align), int64(max(1, st.Dio_mem_align))
		return
	}
	p := alignedBuffer(maxAlign)
	for n := int64(512); n <= maxAlign; n *= 2 {
		f.align, f.memAlign = n, n
		if got, err := unix.Pread(f.fd, p[:n], 0); err == nil && got > 0 {
			return
		}
	}
}

// aligned tells whether v can go to off as it is.
func (f *file) aligned(v [][]byte, off int64) bool {
	if off&(f.align-1) != 0 {
		return false
	}
	for _, s := range v {
		if len(s) > 0 && (int64(len(s))&(f.align-1) != 0 || uintptr(unsafe.Pointer(&s[0]))&uintptr(f.memAlign-1) != 0) {
			return false
		}
	}
	return true
}

// readBounced reads the blocks around a range, and copies.
func (f *file) readBounced(v [][]byte, off int64) error {
	buf := bounces.Get().(*[]byte)
	defer bounces.Put(buf)
	for left := iovec.Len(v); left > 0; {
		start := off &^ (f.align - 1)
		end := min((off+left+f.align-1)&^(f.align-1), start+bounceSize)
		p := (*buf)[:end-start]
		if err := f.read([][]byte{p}, start); err != nil {
			return err
		}
		n := min(left, end-off)
		iovec.Scatter(v, p[off-start:off-start+n])
		off += n
		left -= n
		v = iovec.Slice(v, n, left)
	}
	return nil
}

// writeDirect writes v, through a buffer if it must.
func (f *file) writeDirect(v [][]byte, off int64) error {
	n := iovec.Len(v)
	if (off|n)&(f.align-1) != 0 {
		f.edges.Lock()
		defer f.edges.Unlock()
		return f.writeBounced(v, off)
	}
	f.edges.RLock()
	defer f.edges.RUnlock()
	if f.aligned(v, off) {
		return f.write(v, off)
	}
	return f.writeBounced(v, off)
}

// writeBounced copies, and writes whole blocks: those at the edges are read before.
func (f *file) writeBounced(v [][]byte, off int64) error {
	buf := bounces.Get().(*[]byte)
	defer bounces.Put(buf)
	for left := iovec.Len(v); left > 0; {
		start := off &^ (f.align - 1)
		end := min((off+left+f.align-1)&^(f.align-1), start+bounceSize)
		p := (*buf)[:end-start]
		n := min(left, end-off)
		for _, edge := range []struct {
			need bool
			at   int64
		}{{off > start, 0}, {off+n < end, end - start - f.align}} {
			if !edge.need {
				continue
			}
			if err := f.read([][]byte{p[edge.at : edge.at+f.align]}, start+edge.at); err != nil {
				return err
			}
		}
		iovec.Gather(p[off-start:off-start+n], v)
		if err := f.write([][]byte{p}, start); err != nil {
			return err
		}
		off += n
		left -= n
		v = iovec.Slice(v, n, left)
	}
	return nil
}

// deviceSize is a block device's size in bytes (BLKGETSIZE64).
func deviceSize(fd int) (int64, error) {
	var n uint64
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.BLKGETSIZE64, uintptr(unsafe.Pointer(&n)))
	if errno != 0 {
		return 0, fmt.Errorf("BLKGETSIZE64: %w", errno)
	}
	return int64(n), nil
}

// deviceRange does an ioctl that takes a range: BLKDISCARD, BLKZEROOUT.
func deviceRange(fd int, request uintptr, off, n int64) error {
	r := [2]uint64{uint64(off), uint64(n)}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(unsafe.Pointer(&r)))
	if errno != 0 {
		return errno
	}
	return nil
}
