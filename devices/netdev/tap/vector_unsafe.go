package tap

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// A vector is the segments of a frame as readv(2) and writev(2) take them. It is
// kept from frame to frame, so that none allocates one.
type vector []unix.Iovec

// set makes v of segments, and one more of extra. Empty ones are left out.
func (v *vector) set(segments [][]byte, extra []byte) {
	*v = (*v)[:0]
	for _, s := range segments {
		v.add(s)
	}
	v.add(extra)
}

func (v *vector) add(s []byte) {
	if len(s) > 0 {
		*v = append(*v, unix.Iovec{Base: unsafe.SliceData(s), Len: uint64(len(s))})
	}
}

// call makes SYS_READV or SYS_WRITEV, again if a signal interrupted it. The
// descriptor is non-blocking, so the runtime need not hear of the system call:
// telling it is a good part of what one costs, and after a pause wakes a thread.
// What v points to is forgotten.
func (v *vector) call(trap uintptr, fd uintptr) (int, error) {
	defer clear(*v)
	for {
		n, _, errno := unix.RawSyscall(trap, fd, uintptr(unsafe.Pointer(unsafe.SliceData(*v))), uintptr(len(*v)))
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}
