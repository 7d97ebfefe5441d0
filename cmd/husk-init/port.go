package main

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// The ports of husk's machine that a guest may write to.
const (
	debugExitPort = 0xf4  // the guest's exit code; the machine ends
	markerPort    = 0x520 // a number; husk notes the time
)

// outb stores a byte to an I/O port. The thread must be allowed to.
func outb(port uint16, value byte)

// writePort stores a byte to an I/O port. /dev/port would do, but the kernels
// for clouds have none.
func writePort(port uint16, value byte) error {
	runtime.LockOSThread() // ioperm(2) is for one thread
	defer runtime.UnlockOSThread()
	if err := unix.Ioperm(int(port), 1, 1); err != nil {
		return fmt.Errorf("port %#x: %w", port, err)
	}
	defer func() { _ = unix.Ioperm(int(port), 1, 0) }()
	outb(port, value)
	return nil
}
