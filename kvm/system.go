// Package kvm issues the requests of the Linux KVM API on its three kinds of
// file: the system (/dev/kvm), a virtual machine, and a virtual CPU.
//
// It has types and names, and no policy: what a machine looks like is decided by
// its caller. Sections refer to the kernel's Documentation/virt/kvm/api.rst, as
// "KVM API §4.1". Every error of a request is an *Error that names it and wraps
// the kernel's errno.
package kvm

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// apiVersion is the only version there is; "applications should refuse to run"
// with another (KVM API §4.1).
const apiVersion = 12

// A System is an open /dev/kvm. Its methods may be called from any goroutine.
type System struct {
	fd int
}

// Open opens the KVM device at path, which is /dev/kvm on every distribution.
// The error names the path, and what can be done.
func Open(path string) (*System, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w%s", path, err, openRemedy(err))
	}
	s := &System{fd: fd}
	v, err := s.APIVersion()
	if err == nil && v != apiVersion {
		err = fmt.Errorf("KVM API version is %d, need %d", v, apiVersion)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s is not a usable KVM device: %w", path, err), s.Close())
	}
	return s, nil
}

func openRemedy(err error) string {
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return ": load the module with \"modprobe kvm_intel\" or \"modprobe kvm_amd\"; if it does not load, " +
			"switch on virtualization (VT-x, AMD-V, or nested virtualization) for this machine"
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return ": add yourself to its group with \"usermod -aG kvm USER\" and log in again, or run as root"
	}
	return ""
}

// Close closes the device. VMs that it has created live on.
func (s *System) Close() error { return closeFD(&s.fd) }

// closeFD closes *fd once.
func closeFD(fd *int) error {
	if *fd < 0 {
		return nil
	}
	err := unix.Close(*fd)
	*fd = -1
	return err
}

// APIVersion returns the version of the API, 12 (KVM API §4.1).
func (s *System) APIVersion() (int, error) {
	return ioctl(s.fd, reqGetAPIVersion, 0)
}

// CheckExtension returns 0 when the system lacks c, and else a value that c
// gives a meaning to, most often 1 (KVM API §4.4). A VM may answer differently.
func (s *System) CheckExtension(c Cap) (int, error) {
	return checkExtension(s.fd, c)
}

func checkExtension(fd int, c Cap) (int, error) {
	n, err := ioctl(fd, reqCheckExtension, uintptr(c))
	return n, detail(err, "%v", c)
}

// VCPUMmapSize returns the size in bytes of what a VCPU shares with the kernel:
// the kvm_run page, the page for port data and the coalesced ring (KVM API §4.5).
func (s *System) VCPUMmapSize() (int, error) {
	return ioctl(s.fd, reqGetVCPUMmapSize, 0)
}

// CreateVM creates a virtual machine without memory, vCPUs or devices (KVM API §4.2).
func (s *System) CreateVM() (*VM, error) {
	size, err := s.VCPUMmapSize()
	if err != nil {
		return nil, err
	}
	if size < runSize {
		return nil, &Error{Op: reqGetVCPUMmapSize.name, Err: fmt.Errorf("%d bytes, need %d", size, runSize)}
	}
	fd, err := ioctl(s.fd, reqCreateVM, 0)
	if err != nil {
		return nil, err
	}
	return &VM{fd: fd, mmapSize: size}, nil
}
