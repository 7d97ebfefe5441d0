package kvm

import "github.com/bobuhiro11/gokvm/kvm"

// UserspaceMemoryRegion is struct kvm_userspace_memory_region.
type UserspaceMemoryRegion = kvm.UserspaceMemoryRegion

// The flags of a MemoryRegion.
const (
	MemLogDirtyPages uint32 = 1 << 0 // KVM_MEM_LOG_DIRTY_PAGES: DirtyLog has its writes
	MemReadOnly      uint32 = 1 << 1 // KVM_MEM_READONLY: a guest's write is an MMIOExit
)

// A MemoryRegion maps host memory into the guest's physical address space. GPA,
// Size and HVA are in bytes and multiples of the page size.
type MemoryRegion struct {
	Slot  uint32 // number of the region; bits 31-16 are the address space, 1 for SMM
	Flags uint32 // MemLogDirtyPages, MemReadOnly
	GPA   uint64
	Size  uint64  // 0 deletes the slot
	HVA   uintptr // memory that Go does not move: from mmap, and mapped until the slot is deleted
}

// SetMemoryRegion creates, moves, changes the flags of or deletes a slot (KVM
// API §4.35). Slots must not overlap.
func (v *VM) SetMemoryRegion(r MemoryRegion) error {
	u := UserspaceMemoryRegion{
		Slot:          r.Slot,
		Flags:         r.Flags,
		GuestPhysAddr: r.GPA,
		MemorySize:    r.Size,
		UserspaceAddr: uint64(r.HVA),
	}
	return detail(set(v.fd, reqSetUserMemoryRegion, &u),
		"slot %d gpa %#x size %#x hva %#x flags %#x", r.Slot, r.GPA, r.Size, r.HVA, r.Flags)
}

// SetTSSAddr places the three pages that Intel processors need to run real mode
// in the guest (KVM API §4.36). gpa lies below 4 GiB, where the guest has
// neither memory nor devices.
func (v *VM) SetTSSAddr(gpa uint64) error {
	_, err := ioctl(v.fd, reqSetTSSAddr, uintptr(gpa))
	return detail(err, "%#x", gpa)
}

// SetIdentityMapAddr places the page of the identity map that Intel processors
// need, under the same conditions (KVM API §4.40). It comes before the first
// CreateVCPU.
func (v *VM) SetIdentityMapAddr(gpa uint64) error {
	return detail(set(v.fd, reqSetIdentityMapAddr, &gpa), "%#x", gpa)
}
