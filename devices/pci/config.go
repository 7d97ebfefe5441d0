package pci

import (
	"errors"
	"fmt"
	"math/bits"

	"github.com/huskvm/husk/devices"
)

// ErrConfig is why a Root or a Function cannot be made: what was asked for
// cannot be said in PCI's registers.
var ErrConfig = errors.New("bad PCI configuration")

// Config describes a function. It is all that a guest finds at power-on.
type Config struct {
	Name string // in the log, in errors and on the bus

	Vendor, Device             uint16
	SubsystemVendor, Subsystem uint16
	Class                      uint32 // base class, sub-class, programming interface: 24 bits (PCI 3.0 appendix D)
	Revision                   uint8
	InterruptPin               uint8 // 0 for none, 1 for INTA# to 4 for INTD#

	BARs         [barCount]BAR
	MSIX         *MSIX // nil for a function without
	Capabilities []Capability

	// Mapped is called when a BAR has been mapped at base, and Unmapped
	// before it is taken away from there. base is a guest-physical address,
	// or a port. CommandChanged is called when the command register has a new
	// value, after what that maps or unmaps.
	//
	// All three are called on the thread of the vCPU that caused it, or on
	// that of Reset, one at a time, with the root's lock held: they must not
	// access configuration space nor call Reset. Each may be nil.
	Mapped, Unmapped func(bar int, base uint64)
	CommandChanged   func(Command)
}

// A Kind is what a BAR is mapped in.
type Kind uint8

// The kinds of BAR (PCI 3.0 §6.2.5.1).
const (
	NoBAR    Kind = iota
	IO            // I/O space
	Memory32      // memory space below 4 GiB
	Memory64      // memory space anywhere; the BAR takes the next one's register too
)

func (k Kind) String() string {
	names := [...]string{"none", "I/O", "32-bit memory", "64-bit memory"}
	if int(k) < len(names) {
		return names[k]
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// A BAR is a range of registers that the guest places.
type BAR struct {
	Kind         Kind
	Prefetchable bool   // memory whose reads have no side effects
	Size         uint64 // in bytes: a power of two, from 4 to 256 for I/O, at least 16 else
	Device       devices.Device
}

// A Capability is an entry of the capability list (PCI 3.0 §6.7).
type Capability struct {
	ID   uint8
	Body []byte // what follows ID and the link to the next, at power-on
	// Writable has a bit set for each bit of Body that a guest can change. Nil
	// stands for none.
	Writable []byte
	// Live, if not nil, makes some bytes of Body the owner's.
	Live *Live
}

// Live is a part of a capability that is no memory: a window as
// VIRTIO_PCI_CAP_PCI_CFG has it (virtio 1.2 §4.1.4.9). An access to it is cut
// to at most four bytes in one aligned double word.
//
// Load and Store are called without a lock, from several threads at once. body
// is a copy of Body as the guest has left it, off the offset of p in the part.
type Live struct {
	Off, Size int // in Body
	Load      func(body []byte, off int, p []byte)
	Store     func(body []byte, off int, p []byte)
}

// Capability IDs (PCI 3.0 appendix H).
const (
	CapVendor = 0x09
	CapMSIX   = 0x11
)

// validate refuses what the header cannot say. Its errors are put behind the
// function's name.
func (c *Config) validate() error {
	if c.Class >= 1<<24 {
		return fmt.Errorf("class %#x: give 24 bits", c.Class)
	}
	if c.Vendor == 0xffff {
		return errors.New("vendor 0xffff: that stands for an absent function")
	}
	if c.InterruptPin > 4 {
		return fmt.Errorf("interrupt pin %d: give 0 for none, or 1 to 4", c.InterruptPin)
	}
	for i, b := range c.BARs {
		if err := b.validate(); err != nil {
			return fmt.Errorf("BAR %d: %w", i, err)
		}
		if b.Kind == Memory64 && (i+1 == barCount || c.BARs[i+1].Kind != NoBAR) {
			return fmt.Errorf("BAR %d: a 64-bit one takes the next one's register too: leave that free", i)
		}
	}
	return nil
}

func (b BAR) validate() error {
	least, most := uint64(16), uint64(1)<<63
	switch b.Kind {
	case NoBAR:
		if b != (BAR{}) {
			return errors.New("it has no kind: give it one, or leave it empty")
		}
		return nil
	case IO:
		least, most = 4, 256
	case Memory32:
		most = 1 << 31
	case Memory64:
	default:
		return fmt.Errorf("%v is not known", b.Kind)
	}
	switch {
	case bits.OnesCount64(b.Size) != 1 || b.Size < least || b.Size > most:
		return fmt.Errorf("size %#x of an %v one: give a power of two from %#x to %#x", b.Size, b.Kind, least, most)
	case b.Kind == IO && b.Prefetchable:
		return errors.New("I/O space cannot be prefetched")
	case b.Device == nil:
		return errors.New("it has no Device")
	}
	return nil
}

func (c Capability) validate() error {
	if c.Writable != nil && len(c.Writable) != len(c.Body) {
		return fmt.Errorf("its Writable has %d bytes: give as many as Body has, %d", len(c.Writable), len(c.Body))
	}
	if l := c.Live; l != nil {
		if l.Off < 0 || l.Size <= 0 || l.Off > len(c.Body) || l.Size > len(c.Body)-l.Off {
			return fmt.Errorf("its Live is %d bytes at %d: give a part of Body, which has %d", l.Size, l.Off, len(c.Body))
		}
		if l.Load == nil || l.Store == nil {
			return errors.New("a live part needs both Load and Store")
		}
	}
	return nil
}
