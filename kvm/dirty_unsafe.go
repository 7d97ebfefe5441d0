package kvm

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// dirtyLog is struct kvm_dirty_log.
type dirtyLog struct {
	slot   uint32
	_      uint32
	bitmap unsafe.Pointer
}

// clearDirtyLog is struct kvm_clear_dirty_log.
type clearDirtyLog struct {
	slot   uint32
	pages  uint32
	first  uint64
	bitmap unsafe.Pointer
}

// DirtyLog returns which of a slot's pages the guest has written since the last
// call, one bit a page from bit 0 of the first word (KVM API §4.8). pages is the
// slot's whole size. The slot has MemLogDirtyPages. KVM does not see what the
// VMM itself writes.
func (v *VM) DirtyLog(slot uint32, pages int) ([]uint64, error) {
	if pages <= 0 {
		return nil, &Error{Op: reqGetDirtyLog.name, Err: unix.EINVAL}
	}
	bitmap := make([]uint64, (pages+63)/64)
	d := dirtyLog{slot: slot, bitmap: unsafe.Pointer(&bitmap[0])}
	if err := set(v.fd, reqGetDirtyLog, &d); err != nil {
		return nil, detail(err, "slot %d, %d pages", slot, pages)
	}
	return bitmap, nil
}

// ClearDirtyLog forgets the writes to the pages whose bits are set, and traps
// the next ones (KVM API §4.117). It needs CapManualDirtyLog2 enabled. first is
// a multiple of 64, and so is pages unless it reaches the slot's end.
func (v *VM) ClearDirtyLog(slot uint32, first uint64, pages int, bitmap []uint64) error {
	if pages <= 0 || (pages+63)/64 > len(bitmap) {
		return &Error{Op: reqClearDirtyLog.name, Err: unix.EINVAL}
	}
	c := clearDirtyLog{slot: slot, pages: uint32(pages), first: first, bitmap: unsafe.Pointer(&bitmap[0])}
	return detail(set(v.fd, reqClearDirtyLog, &c), "slot %d, %d pages from %d", slot, pages, first)
}
