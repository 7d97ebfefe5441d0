package pci

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// A type 0 header (PCI 3.0 §6.1, figure 6-1): offsets in configuration space.
const (
	regVendor        = 0x00
	regDevice        = 0x02
	regCommand       = 0x04
	regStatus        = 0x06
	regRevision      = 0x08
	regClass         = 0x09
	regHeaderType    = 0x0e
	regBAR           = 0x10
	regSubVendor     = 0x2c
	regSubsystem     = 0x2e
	regCapabilities  = 0x34
	regInterruptLine = 0x3c
	regInterruptPin  = 0x3d

	headerSize = 0x40
	configSize = 0x100 // of a function that is not PCI Express
	barCount   = 6
)

// A Command is the value of the command register (PCI 3.0 §6.2.2).
type Command uint16

// The bits of the command register that a function of husk's has.
const (
	CommandIO          Command = 1 << 0  // I/O BARs answer
	CommandMemory      Command = 1 << 1  // memory BARs answer
	CommandBusMaster   Command = 1 << 2  // the function may access memory, and send MSIs
	CommandINTxDisable Command = 1 << 10 // the function may not assert its INTx#
)

// Status register (PCI 3.0 §6.2.3).
const (
	statusInterrupt    = 1 << 3
	statusCapabilities = 1 << 4
)

const headerMultiFunction = 1 << 7

// The low bits of a BAR (PCI 3.0 §6.2.5.1).
const (
	barIO           = 1 << 0
	bar64           = 2 << 1
	barPrefetchable = 1 << 3
)

// A layout is a function's configuration space at power-on, and which bits of
// it a guest can change.
type layout struct {
	regs, writable [configSize]byte
	lives          []live
	msix           int // offset of the MSI-X capability, 0 for none
}

// live is a Live at its place.
type live struct {
	*Live
	body, size int // the capability's Body in configuration space
}

// at is the offset in configuration space of the first live byte.
func (l *live) at() int { return l.body + l.Off }

// newLayout lays out what c says.
func newLayout(c *Config) (*layout, error) {
	l := &layout{}
	le := binary.LittleEndian
	le.PutUint16(l.regs[regVendor:], c.Vendor)
	le.PutUint16(l.regs[regDevice:], c.Device)
	le.PutUint32(l.regs[regRevision:], c.Class<<8|uint32(c.Revision))
	le.PutUint16(l.regs[regSubVendor:], c.SubsystemVendor)
	le.PutUint16(l.regs[regSubsystem:], c.Subsystem)
	l.regs[regInterruptPin] = c.InterruptPin
	if c.InterruptPin != 0 {
		l.writable[regInterruptLine] = 0xff // scratch: what it means is between guest and firmware
	}
	command := CommandBusMaster | CommandINTxDisable
	for i, b := range c.BARs {
		at := regBAR + 4*i
		switch b.Kind {
		case IO:
			command |= CommandIO
			l.regs[at] = barIO
			le.PutUint32(l.writable[at:], -uint32(b.Size))
		case Memory32:
			command |= CommandMemory
			le.PutUint32(l.writable[at:], -uint32(b.Size))
		case Memory64:
			command |= CommandMemory
			l.regs[at] = bar64
			le.PutUint64(l.writable[at:], -b.Size)
		}
		if b.Prefetchable {
			l.regs[at] |= barPrefetchable
		}
	}
	le.PutUint16(l.writable[regCommand:], uint16(command))
	return l, l.link(c)
}

// link makes the list of capabilities.
func (l *layout) link(c *Config) error {
	capabilities := c.Capabilities
	if c.MSIX != nil {
		capabilities = append(slices.Clip(capabilities), c.MSIX.capability())
	}
	end, previous := headerSize, regCapabilities
	for i, capability := range capabilities {
		if err := capability.validate(); err != nil {
			return fmt.Errorf("capability %d, id %#x: %w", i, capability.ID, err)
		}
		at, body := end, end+2
		end = body + len(capability.Body)
		if end > configSize {
			return fmt.Errorf("capability %d, id %#x: it ends at %#x, and configuration space at %#x: give fewer or smaller ones",
				i, capability.ID, end, configSize)
		}
		l.regs[previous] = byte(at)
		l.regs[regStatus] |= statusCapabilities
		previous = at + 1
		l.regs[at] = capability.ID
		copy(l.regs[body:], capability.Body)
		copy(l.writable[body:], capability.Writable)
		if capability.Live != nil {
			l.lives = append(l.lives, live{capability.Live, body, len(capability.Body)})
		}
		if c.MSIX != nil && i == len(capabilities)-1 {
			l.msix = at
		}
		end = (end + 3) &^ 3 // §6.7: a list of aligned double words
	}
	return nil
}
