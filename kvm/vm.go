package kvm

import (
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// A VM is a virtual machine. Its methods may be called from any goroutine.
type VM struct {
	fd       int
	mmapSize int        // bytes of a vCPU's mapping
	draining sync.Mutex // the coalesced ring has one reader at a time
}

// Close closes the VM's file. The kernel frees the machine when its vCPUs,
// too, are closed.
func (v *VM) Close() error { return closeFD(&v.fd) }

// CheckExtension is System.CheckExtension, answered for this VM (KVM API §4.4).
func (v *VM) CheckExtension(c Cap) (int, error) {
	return checkExtension(v.fd, c)
}

// EnableCap switches on an extension for the VM (KVM API §4.37 and §7). It takes
// up to four args.
func (v *VM) EnableCap(c Cap, flags uint32, args ...uint64) error {
	return enable(v.fd, c, flags, args)
}

// SetBootCPUID says which vCPU starts up; 0 when not called. It comes before
// the first CreateVCPU (KVM API §4.41).
func (v *VM) SetBootCPUID(id int) error {
	_, err := ioctl(v.fd, reqSetBootCPUID, uintptr(id))
	return detail(err, "%d", id)
}

// CreateVCPU adds the vCPU id, which is its local APIC id, too (KVM API §4.7),
// and maps what it shares with the kernel (KVM API §4.5). An interrupt
// controller must come before it.
func (v *VM) CreateVCPU(id int) (*VCPU, error) {
	fd, err := ioctl(v.fd, reqCreateVCPU, uintptr(id))
	if err != nil {
		return nil, detail(err, "%d", id)
	}
	run, err := unix.Mmap(fd, 0, v.mmapSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("map vCPU %d (%d bytes): %w", id, v.mmapSize, err)
	}
	return &VCPU{fd: fd, id: id, vm: v, run: run}, nil
}
