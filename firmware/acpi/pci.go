package acpi

import (
	"errors"
	"fmt"

	"github.com/huskvm/husk/firmware/acpi/aml"
)

// PCI is one PCI Express segment, number 0, and its host bridge.
type PCI struct {
	ECAM    uint64 // guest-physical address of the configuration space of bus 0, 1 MiB a bus
	LastBus uint8  // highest bus number

	// What the bridge passes on to the devices' BARs, in ports and in bytes of
	// memory. A size of 0 stands for none. The ports leave out those by which
	// the bridge itself is configured, 0xCF8 to 0xCFF, which it always has.
	IO, Memory32, Memory64 Window

	// INTx are the GSIs to which interrupt pins are wired: pin 0 (INTA#) to 3
	// of a slot, in turn from INTx[slot%len(INTx)] on. None means that devices
	// have MSIs only. They are level, active low: see routing.
	INTx []uint32
}

// A Window is a range of addresses.
type Window struct {
	Base, Size uint64
}

// last is the highest address in w, which has a size.
func (w Window) last() uint64 { return w.Base + w.Size - 1 }

const (
	mib, gib4 = 1 << 20, 1 << 32

	ports = 1 << 16
	// The ports of configuration mechanism #1 (PCI 3.0 §3.2.2.3.2).
	configPort, configPorts = 0xCF8, 8
)

// validate refuses what the DSDT cannot say. Config.memory has the rest.
func (p *PCI) validate() error {
	if p.ECAM%mib != 0 || p.ECAM == 0 {
		return fmt.Errorf("ECAM %#x: give a multiple of %#x", p.ECAM, mib)
	}
	if io := p.IO; io.Size != 0 {
		if io.Base >= ports || io.Size > ports-io.Base || io.Size == ports {
			return fmt.Errorf("IO has %#x ports at %#x: give less than %#x, that end there", io.Size, io.Base, ports)
		}
		if io.Base < configPort+configPorts && configPort <= io.last() {
			return fmt.Errorf("IO (%#x to %#x) has the bridge's own ports, %#x to %#x: leave them out",
				io.Base, io.last(), configPort, configPort+configPorts-1)
		}
	}
	if len(p.INTx) > 0 && p.Memory32.Size == 0 && p.Memory64.Size == 0 && p.IO.Size == 0 {
		return errors.New("INTx without a window: devices need one")
	}
	return nil
}

// rootBridge is the host bridge (PCI Firmware Specification 3.3 §4).
func (p *PCI) rootBridge() aml.Term {
	resources := []aml.Descriptor{
		aml.BusNumbers(0, p.LastBus),
		aml.IO(configPort, configPorts),
	}
	if p.IO.Size != 0 {
		resources = append(resources, aml.PortWindow(uint16(p.IO.Base), uint16(p.IO.Size)))
	}
	if w := p.Memory32; w.Size != 0 {
		resources = append(resources, aml.DWordMemory(aml.Producer, uint32(w.Base), uint32(w.Size)))
	}
	if w := p.Memory64; w.Size != 0 {
		resources = append(resources, aml.QWordMemory(aml.Producer, w.Base, w.Size))
	}
	zero := aml.Integer(0)
	terms := []aml.Term{
		hid("PNP0A08"), // PCI Express root bridge
		aml.Name("_CID", aml.HardwareID("PNP0A03")),
		aml.Name("_UID", zero),
		aml.Name("_SEG", zero),
		aml.Name("_BBN", zero),
		crs(resources...),
		osc(),
	}
	if len(p.INTx) > 0 {
		terms = append(terms, aml.Name("_PRT", p.routing()))
	}
	return aml.Device("PCI0", terms...)
}

// routing is _PRT (ACPI 6.5 §6.2.13): where interrupt pins are wired to.
//
// An entry that names a GSI says nothing of trigger and polarity, so they are
// PCI's: level, active low. Linux programs the IOAPIC so (acpi_pci_irq_enable).
// KVM's IOAPIC does not look at the polarity: a line that is set is asserted.
func (p *PCI) routing() aml.Term {
	const slots, pins, everyFunction = 32, 4, 0xFFFF
	var entries []aml.Term
	for slot := range slots {
		for pin := range pins {
			gsi := p.INTx[(slot+pin)%len(p.INTx)]
			entries = append(entries, aml.Package(
				aml.Integer(uint64(slot<<16|everyFunction)), aml.Integer(uint64(pin)),
				aml.Integer(0), aml.Integer(uint64(gsi))))
		}
	}
	return aml.Package(entries...)
}

// osc is _OSC (ACPI 6.5 §6.2.11, PCI Firmware Specification 3.3 §4.5): the guest
// asks for control of what firmware might do itself. There is no firmware that
// does, so the guest gets all it asks for: its words are returned as they are.
func osc() aml.Term {
	const (
		pciHostBridge   = "33DB4D5B-1FF7-401C-9657-7441C03DD766"
		unknownUUID     = 1 << 2
		unknownRevision = 1 << 3
	)
	uuid, revision, words := aml.Arg(0), aml.Arg(1), aml.Arg(3)
	status := aml.Path("CDW1")
	return aml.Method("_OSC", 4,
		aml.DWordField(words, 0, "CDW1"),
		aml.If(aml.Equal(uuid, aml.UUID(pciHostBridge)),
			aml.If(aml.Not(aml.Equal(revision, aml.Integer(1))),
				aml.SetBits(status, unknownRevision))),
		aml.Else(aml.SetBits(status, unknownUUID)),
		aml.Return(words))
}

// motherboard reserves ECAM. Linux does not believe MCFG without (PCI Firmware
// Specification 3.3 §4.1.2 asks for it): the window must not be in the host
// bridge's _CRS, as it is not passed on.
func (p *PCI) motherboard() aml.Term {
	return aml.Device("ECAM",
		hid("PNP0C02"), // motherboard resources
		aml.Name("_UID", aml.Integer(0)),
		crs(aml.QWordMemory(aml.Consumer, p.ECAM, mib*(uint64(p.LastBus)+1))))
}

// mcfg says where the configuration space of PCI Express functions is
// (PCI Firmware Specification 3.3 §4.1.2).
func mcfg(p PCI) []byte {
	return table("MCFG", 1, encode(struct {
		_                [8]uint8
		Address          uint64
		Segment          uint16
		StartBus, EndBus uint8
		_                [4]uint8
	}{Address: p.ECAM, EndBus: p.LastBus}))
}
