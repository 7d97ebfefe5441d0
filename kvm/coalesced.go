package kvm

import (
	"encoding/binary"
	"sync/atomic"
)

// coalescedZone is struct kvm_coalesced_mmio_zone.
type coalescedZone struct {
	addr uint64
	size uint32
	pio  uint32
}

// RegisterCoalesced makes KVM collect the guest's stores to a range instead of
// ending Run for each (KVM API §4.116). They are read with DrainCoalesced. Ports
// need CapCoalescedPIO. When the ring is full, a store ends Run as usual.
func (v *VM) RegisterCoalesced(addr uint64, size uint32, pio bool) error {
	return v.coalesced(reqRegisterCoalesced, addr, size, pio)
}

// UnregisterCoalesced undoes RegisterCoalesced.
func (v *VM) UnregisterCoalesced(addr uint64, size uint32, pio bool) error {
	return v.coalesced(reqUnregisterCoalesced, addr, size, pio)
}

func (v *VM) coalesced(r request, addr uint64, size uint32, pio bool) error {
	z := coalescedZone{addr: addr, size: size}
	if pio {
		z.pio = 1
	}
	return detail(set(v.fd, r, &z), "addr %#x size %#x pio %v", addr, size, pio)
}

// The ring of a VM is mapped with each of its vCPUs. It is struct
// kvm_coalesced_mmio_ring: first, which we advance, last, which the kernel
// advances, and entries of struct kvm_coalesced_mmio to the page's end.
const (
	pageSize         = 4096
	offCoalesced     = 2 * pageSize // KVM_COALESCED_MMIO_PAGE_OFFSET
	offCoalescedLast = offCoalesced + 4
	offCoalescedRing = offCoalesced + 8
	coalescedSize    = 24
	coalescedEntries = (pageSize - 8) / coalescedSize
)

// A CoalescedStore is one store that KVM has collected.
type CoalescedStore struct {
	Addr uint64 // guest-physical, or a port
	PIO  bool
	Data []byte // 1 to 8 bytes, shared with the kernel
}

// DrainCoalesced calls fn for each store that KVM has collected, oldest first.
// It is to be called after each Run and before the exit is handled, for the guest
// made these stores earlier. The ring belongs to the VM: it has the stores of all
// vCPUs, and any of them may drain it. fn is called with the ring locked; the
// store's Data is valid until fn returns.
func (c *VCPU) DrainCoalesced(fn func(CoalescedStore)) {
	if len(c.run) < offCoalesced+pageSize {
		return
	}
	first, last := c.word(offCoalesced), c.word(offCoalescedLast)
	if atomic.LoadUint32(first) == atomic.LoadUint32(last) {
		return
	}
	c.vm.draining.Lock()
	defer c.vm.draining.Unlock()
	for {
		i, end := atomic.LoadUint32(first), atomic.LoadUint32(last)
		if i == end || i >= coalescedEntries || end >= coalescedEntries {
			return
		}
		fn(coalescedStore(c.run[offCoalescedRing+int(i)*coalescedSize:][:coalescedSize]))
		atomic.StoreUint32(first, (i+1)%coalescedEntries)
	}
}

func coalescedStore(b []byte) CoalescedStore {
	le := binary.LittleEndian
	n := min(le.Uint32(b[8:]), 8)
	return CoalescedStore{Addr: le.Uint64(b), PIO: le.Uint32(b[12:]) != 0, Data: b[16 : 16+n : 16+n]}
}
