package vhost

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// The requests (Linux include/uapi/linux/vhost.h), as x86 and arm64 number them.
const (
	reqGetFeatures = 0x8008af00 // VHOST_GET_FEATURES
	reqSetFeatures = 0x4008af00 // VHOST_SET_FEATURES
	reqSetOwner    = 0x0000af01 // VHOST_SET_OWNER
	reqSetMemTable = 0x4008af03 // VHOST_SET_MEM_TABLE
	reqSetSize     = 0x4008af10 // VHOST_SET_VRING_NUM
	reqSetAddress  = 0x4028af11 // VHOST_SET_VRING_ADDR
	reqSetNext     = 0x4008af12 // VHOST_SET_VRING_BASE
	reqGetNext     = 0xc008af12 // VHOST_GET_VRING_BASE
	reqSetKick     = 0x4008af20 // VHOST_SET_VRING_KICK
	reqSetCall     = 0x4008af21 // VHOST_SET_VRING_CALL
	reqSetError    = 0x4008af22 // VHOST_SET_VRING_ERR
	reqSetBackend  = 0x4008af30 // VHOST_NET_SET_BACKEND
)

// vringState is struct vhost_vring_state.
type vringState struct {
	index uint32
	num   uint32
}

// vringFile is struct vhost_vring_file.
type vringFile struct {
	index uint32
	fd    int32 // -1 for none
}

// vringAddr is struct vhost_vring_addr: host-virtual addresses.
type vringAddr struct {
	index             uint32
	flags             uint32
	desc, used, avail uint64
	log               uint64
}

// memoryRegion is struct vhost_memory_region.
type memoryRegion struct {
	gpa, size, hva uint64
	_              uint64
}

// memoryTable is struct vhost_memory, with as many regions as Linux takes by
// default (max_mem_regions).
type memoryTable struct {
	n       uint32
	_       uint32
	regions [64]memoryRegion
}

func ioctl(fd int, request uintptr, arg unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg)); errno != 0 {
		return errno
	}
	return nil
}

// A descriptor is an open /dev/vhost-net.
type descriptor int

// own makes this process the owner, whose memory the kernel's thread works in.
func (d descriptor) own() error { return ioctl(int(d), reqSetOwner, nil) }

func (d descriptor) features() (f uint64, err error) {
	err = ioctl(int(d), reqGetFeatures, unsafe.Pointer(&f))
	return f, err
}

func (d descriptor) setMemory(regions []Region) error {
	t := new(memoryTable)
	for i, r := range regions {
		t.regions[i] = memoryRegion{gpa: r.GPA, size: r.Size, hva: uint64(r.HVA)}
	}
	t.n = uint32(len(regions))
	return ioctl(int(d), reqSetMemTable, unsafe.Pointer(t))
}

// SetFeatures implements kernel.
func (d descriptor) SetFeatures(f uint64) error {
	return ioctl(int(d), reqSetFeatures, unsafe.Pointer(&f))
}

// SetNumber implements kernel.
func (d descriptor) SetNumber(request uintptr, ring int, n uint32) error {
	return ioctl(int(d), request, unsafe.Pointer(&vringState{uint32(ring), n}))
}

// Next implements kernel.
func (d descriptor) Next(ring int) (uint16, error) {
	s := vringState{index: uint32(ring)}
	err := ioctl(int(d), reqGetNext, unsafe.Pointer(&s))
	return uint16(s.num), err
}

// SetAreas implements kernel.
func (d descriptor) SetAreas(ring int, desc, avail, used []byte) error {
	return ioctl(int(d), reqSetAddress, unsafe.Pointer(&vringAddr{
		index: uint32(ring), desc: addressOf(desc), avail: addressOf(avail), used: addressOf(used),
	}))
}

// SetFile implements kernel.
func (d descriptor) SetFile(request uintptr, ring, fd int) error {
	return ioctl(int(d), request, unsafe.Pointer(&vringFile{uint32(ring), int32(fd)}))
}

// Close implements kernel. The kernel's thread ends with it.
func (d descriptor) Close() error { return unix.Close(int(d)) }

func addressOf(b []byte) uint64 { return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) }
