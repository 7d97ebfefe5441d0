package kvm

// An IRQFD turns a write to an eventfd into an interrupt, without the VMM.
type IRQFD struct {
	FD  int // of an eventfd
	GSI uint32
	// Resample makes it level triggered: the line stays high until the guest
	// ends the interrupt, and then ResampleFD, an eventfd, is signalled.
	Resample   bool
	ResampleFD int
}

const (
	irqfdDeassign = 1 << 0 // KVM_IRQFD_FLAG_DEASSIGN
	irqfdResample = 1 << 1 // KVM_IRQFD_FLAG_RESAMPLE
)

// irqfd is struct kvm_irqfd.
type irqfd struct {
	fd         uint32
	gsi        uint32
	flags      uint32
	resampleFD uint32
	_          [16]uint8
}

// AssignIRQFD connects an eventfd to a GSI (KVM API §4.75).
func (v *VM) AssignIRQFD(i IRQFD) error {
	k := irqfd{fd: uint32(i.FD), gsi: i.GSI}
	if i.Resample {
		k.flags = irqfdResample
		k.resampleFD = uint32(i.ResampleFD)
	}
	return detail(set(v.fd, reqIRQFD, &k), "fd %d gsi %d", i.FD, i.GSI)
}

// DeassignIRQFD undoes AssignIRQFD. When it returns, no event is on its way.
func (v *VM) DeassignIRQFD(i IRQFD) error {
	k := irqfd{fd: uint32(i.FD), gsi: i.GSI, flags: irqfdDeassign}
	return detail(set(v.fd, reqIRQFD, &k), "fd %d gsi %d, deassign", i.FD, i.GSI)
}

// An IOEvent turns a guest's store into a signal of an eventfd. The store then
// is no exit.
type IOEvent struct {
	FD    int    // of an eventfd
	Addr  uint64 // guest-physical address, or port
	Len   uint32 // width of the store in bytes, 1, 2, 4 or 8; 0 is any width
	PIO   bool   // Addr is a port
	Match bool   // only a store of Data counts; needs a Len
	Data  uint64
}

const (
	ioeventfdDatamatch = 1 << 0 // KVM_IOEVENTFD_FLAG_DATAMATCH
	ioeventfdPIO       = 1 << 1 // KVM_IOEVENTFD_FLAG_PIO
	ioeventfdDeassign  = 1 << 2 // KVM_IOEVENTFD_FLAG_DEASSIGN
)

// ioeventfd is struct kvm_ioeventfd.
type ioeventfd struct {
	datamatch uint64
	addr      uint64
	len       uint32
	fd        int32
	flags     uint32
	_         [36]uint8
}

// AssignIOEvent connects an address to an eventfd (KVM API §4.59).
func (v *VM) AssignIOEvent(e IOEvent) error { return v.ioevent(e, 0) }

// DeassignIOEvent undoes AssignIOEvent of an equal IOEvent.
func (v *VM) DeassignIOEvent(e IOEvent) error { return v.ioevent(e, ioeventfdDeassign) }

func (v *VM) ioevent(e IOEvent, flags uint32) error {
	k := ioeventfd{addr: e.Addr, len: e.Len, fd: int32(e.FD), flags: flags}
	if e.PIO {
		k.flags |= ioeventfdPIO
	}
	if e.Match {
		k.flags |= ioeventfdDatamatch
		k.datamatch = e.Data
	}
	return detail(set(v.fd, reqIOEventFD, &k), "%+v", e)
}
