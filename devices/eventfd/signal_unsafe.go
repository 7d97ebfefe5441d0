package eventfd

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Signal signals the eventfd fd, which must be non-blocking. So the runtime
// need not hear of the system call: telling it is most of what one costs, and
// after a pause wakes a thread.
func Signal(fd int) {
	one := uint64(1)
	// It fails only when the counter is full, and then the event is signalled.
	_, _, _ = unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&one)), unsafe.Sizeof(one))
}
