package kvm

import (
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Run runs the guest on the calling thread until something needs the VMM (KVM
// API §4.10). What it returns is kept in the VCPU and valid until the next Run.
// It does not allocate.
//
// A signal, or SetImmediateExit, makes it return unix.EINTR; a vCPU that waits
// for its start-up interrupt may return unix.EAGAIN. Neither is a failure. The
// answer to an IOExit or MMIOExit takes effect when Run is called again, even
// if that ends in EINTR at once.
func (c *VCPU) Run() (Exit, error) {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(c.fd), reqRun.num, 0)
	switch errno {
	case 0:
		return c.exit.decode(c.run)
	case unix.EINTR:
		return nil, unix.EINTR // a constant: the conversion does not allocate
	case unix.EAGAIN:
		return nil, unix.EAGAIN
	}
	return nil, c.runError(errno)
}

// SetImmediateExit makes the next Run, or one that is about to enter the guest,
// return unix.EINTR (KVM API §5, immediate_exit); false takes it back. A Run in
// the guest needs a signal in addition. It may be called from any goroutine, but
// not after Close.
func (c *VCPU) SetImmediateExit(on bool) {
	const immediateExit = 1 << (8 * offImmediateExit)
	c.setRequest(immediateExit, on)
}

// RequestInterruptWindow makes Run return an InterruptWindowExit as soon as the
// guest can take an Interrupt (KVM API §5, request_interrupt_window). It is
// for VMs without interrupt controllers in the kernel.
func (c *VCPU) RequestInterruptWindow(on bool) {
	const requestInterruptWindow = 1 << (8 * offRequestInterruptWindow)
	c.setRequest(requestInterruptWindow, on)
}

// setRequest changes bits of the first word of kvm_run, which the kernel only
// reads. Go has no atomic store of a byte.
func (c *VCPU) setRequest(bit uint32, on bool) {
	if on {
		atomic.OrUint32(c.word(0), bit)
	} else {
		atomic.AndUint32(c.word(0), ^bit)
	}
}

// word returns the aligned 32-bit word at off of the shared pages, for atomic
// access.
func (c *VCPU) word(off int) *uint32 {
	return (*uint32)(unsafe.Pointer(&c.run[off : off+4][0]))
}
