package kvm

import (
	"fmt"

	"github.com/bobuhiro11/gokvm/kvm"
	"golang.org/x/sys/unix"
)

type (
	// IRQChip is struct kvm_irqchip: the state of one interrupt controller in
	// the kernel, as its chip lays it out (KVM API §4.26).
	IRQChip = kvm.IRQChip
	// PITState2 is struct kvm_pit_state2: the state of the timer chip (KVM API §4.72).
	PITState2 = kvm.PITState2
)

// The chips of CreateIRQChip.
const (
	ChipPICMaster uint32 = 0 // KVM_IRQCHIP_PIC_MASTER
	ChipPICSlave  uint32 = 1 // KVM_IRQCHIP_PIC_SLAVE
	ChipIOAPIC    uint32 = 2 // KVM_IRQCHIP_IOAPIC
)

// PITSpeakerDummy makes CreatePIT2 answer port 0x61 as a PC does (KVM_PIT_SPEAKER_DUMMY).
const PITSpeakerDummy uint32 = 1 << 0

// CreateIRQChip creates two PICs and an I/O APIC in the kernel, and a local APIC
// for every vCPU to come (KVM API §4.24). GSIs 0 to 15 go to PIC and I/O APIC,
// 16 to 23 to the I/O APIC alone.
func (v *VM) CreateIRQChip() error {
	_, err := ioctl(v.fd, reqCreateIRQChip, 0)
	return err
}

// SplitIRQChip leaves the local APICs alone in the kernel. pins GSIs are kept
// for an I/O APIC of the VMM's, which learns of an end of interrupt by an
// IOAPICEOIExit (KVM API §7.5).
func (v *VM) SplitIRQChip(pins int) error {
	return v.EnableCap(CapSplitIRQChip, 0, uint64(pins))
}

// IRQChip reads one controller's state; id is ChipPICMaster, ChipPICSlave or
// ChipIOAPIC (KVM API §4.26).
func (v *VM) IRQChip(id uint32) (IRQChip, error) {
	c := IRQChip{ChipID: id}
	err := set(v.fd, reqGetIRQChip, &c)
	return c, detail(err, "chip %d", id)
}

// SetIRQChip sets the state of the controller c.ChipID (KVM API §4.27).
func (v *VM) SetIRQChip(c *IRQChip) error {
	return detail(set(v.fd, reqSetIRQChip, c), "chip %d", c.ChipID)
}

// pitConfig is struct kvm_pit_config.
type pitConfig struct {
	flags uint32
	_     [15]uint32
}

// CreatePIT2 creates a timer chip (8254) in the kernel, after CreateIRQChip (KVM
// API §4.71). flags is 0 or PITSpeakerDummy.
func (v *VM) CreatePIT2(flags uint32) error {
	return set(v.fd, reqCreatePIT2, &pitConfig{flags: flags})
}

// PIT2 reads the timer chip's state (KVM API §4.72).
func (v *VM) PIT2() (PITState2, error) {
	return get[PITState2](v.fd, reqGetPIT2)
}

// SetPIT2 sets it (KVM API §4.73).
func (v *VM) SetPIT2(p *PITState2) error {
	return set(v.fd, reqSetPIT2, p)
}

// irqLevel is struct kvm_irq_level.
type irqLevel struct {
	irq   uint32
	level uint32
}

// SetIRQLine drives the input gsi of the kernel's controllers to a level (KVM
// API §4.25).
func (v *VM) SetIRQLine(gsi uint32, high bool) error {
	l := irqLevel{irq: gsi}
	if high {
		l.level = 1
	}
	// detail would make its arguments escape, and this is called for every interrupt.
	if err := set(v.fd, reqIRQLine, &l); err != nil {
		return detail(err, "gsi %d", gsi)
	}
	return nil
}

// An MSI is a message signalled interrupt: a store of Data to Address, which is
// in the local APICs' range (PCI 3.0 §6.8).
type MSI struct {
	Address uint64
	Data    uint32
}

// msi is struct kvm_msi.
type msi struct {
	addressLo uint32
	addressHi uint32
	data      uint32
	_         [20]uint8 // flags, device id: not for x86
}

// SignalMSI delivers a message at once, without a route (KVM API §4.71).
// delivered is false when the guest has blocked it.
func (v *VM) SignalMSI(m MSI) (delivered bool, err error) {
	k := msi{addressLo: uint32(m.Address), addressHi: uint32(m.Address >> 32), data: m.Data}
	n, err := ioctlPtr(v.fd, reqSignalMSI, &k)
	return n > 0, err
}

// A ChipPin is an input of a controller in the kernel.
type ChipPin struct {
	Chip uint32 // ChipPICMaster, ChipPICSlave, ChipIOAPIC
	Pin  uint32
}

// A Route says where a GSI goes: to exactly one of Chip and MSI. A GSI may have
// a route for each chip.
type Route struct {
	GSI  uint32
	Chip *ChipPin
	MSI  *MSI
}

// The types of a routing entry.
const (
	routeIRQChip = 1 // KVM_IRQ_ROUTING_IRQCHIP
	routeMSI     = 2 // KVM_IRQ_ROUTING_MSI
)

// routeEntry is struct kvm_irq_routing_entry.
type routeEntry struct {
	gsi  uint32
	kind uint32
	_    [2]uint32
	u    [8]uint32 // irqchip: chip, pin. msi: address low, address high, data
}

// SetGSIRouting replaces all routes, those that CreateIRQChip has made, too (KVM
// API §4.52).
func (v *VM) SetGSIRouting(routes []Route) error {
	head, entries := newList[listHeader, routeEntry](len(routes))
	head.n = uint32(len(routes))
	for i, r := range routes {
		e := routeEntry{gsi: r.GSI}
		switch {
		case r.Chip != nil && r.MSI == nil:
			e.kind = routeIRQChip
			e.u = [8]uint32{r.Chip.Chip, r.Chip.Pin}
		case r.MSI != nil && r.Chip == nil:
			e.kind = routeMSI
			e.u = [8]uint32{uint32(r.MSI.Address), uint32(r.MSI.Address >> 32), r.MSI.Data}
		default:
			return &Error{
				Op:     reqSetGSIRouting.name,
				Detail: fmt.Sprintf("route %d, gsi %d: needs exactly one of Chip and MSI", i, r.GSI),
				Err:    unix.EINVAL,
			}
		}
		entries[i] = e
	}
	return detail(set(v.fd, reqSetGSIRouting, head), "%d routes", len(routes))
}
