// Package pci is the PCI bus of the machine: a host bridge with functions
// behind it, their configuration space, base address registers (BARs), MSI-X
// and INTx (PCI Local Bus 3.0; for the memory-mapped configuration space PCI
// Express Base 3.0 §7.2.2).
//
// There is one bus, number 0, of 32 slots. A function is a conventional one,
// with 256 bytes of configuration space: Express endpoints would want Express
// ports.
package pci

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/huskvm/husk/devices"
)

// What a bus has.
const (
	Slots     = 32
	Functions = 8 // a slot
)

// A Window is a range of addresses, in bytes, that the host bridge passes on
// to the functions' BARs.
type Window struct {
	Base, Size uint64
}

// holds tells whether [base, base+size) is inside of w.
func (w Window) holds(base, size uint64) bool {
	return base >= w.Base && size <= w.Size && base-w.Base <= w.Size-size
}

// RootConfig is what a Root is wired to.
type RootConfig struct {
	// Memory and IO are where BARs are mapped.
	Memory, IO *devices.Bus
	// Windows are what the host bridge passes on, and what the guest's ACPI
	// tables must announce. A BAR that is not whole inside of one is mapped
	// nowhere.
	MemoryWindows, IOWindows []Window
	// INTx are the interrupt controller's inputs for functions without
	// MSI-X: see Root.INTx. Set must not call into this package. None means
	// that no function can have an interrupt pin.
	INTx []devices.Line
	// Log gets a line when a guest puts a BAR where it cannot be.
	Log *slog.Logger
}

// A Root is the host bridge, which is function 0 of slot 0 itself, and the bus
// behind it.
//
// A guest can program a BAR to be anywhere. Real hardware is undefined when two
// answer to an address; here a BAR is mapped only where a window of the bridge
// is and nothing else, so RAM, other chips and other BARs are safe. One that is
// refused answers nowhere, is logged, and is tried again whenever another BAR
// goes away. Who came first stays.
type Root struct {
	memory, io               *devices.Bus
	memoryWindows, ioWindows []Window
	pins                     []*sharedLine
	log                      *slog.Logger

	functions [Slots * Functions]atomic.Pointer[Function]

	// mu guards configuration space and what is mapped, and puts the owners'
	// callbacks in order. Data transfers and interrupts do not take it.
	mu        sync.Mutex
	complaint time.Time // when a BAR was last complained of
}

// The host bridge as a function. The identity is that of QEMU's generic host
// bridge, for which kernels have no quirks.
var bridge = Config{
	Name:   "host bridge",
	Vendor: 0x1b36, Device: 0x0008,
	SubsystemVendor: 0x1af4, Subsystem: 0x1100,
	Class: 0x060000,
}

// NewRoot returns a bus with nothing behind its host bridge. Errors wrap
// ErrConfig.
func NewRoot(c RootConfig) (*Root, error) {
	for _, w := range slices.Concat(c.MemoryWindows, c.IOWindows) {
		if w.Size == 0 || w.Base+w.Size-1 < w.Base {
			return nil, fmt.Errorf("%w: window at %#x: its size %#x is 0 or passes the end of the address space", ErrConfig, w.Base, w.Size)
		}
	}
	if c.Memory == nil || c.IO == nil || c.Log == nil {
		return nil, fmt.Errorf("%w: give the root Memory, IO and Log", ErrConfig)
	}
	r := &Root{
		memory: c.Memory, io: c.IO,
		memoryWindows: c.MemoryWindows, ioWindows: c.IOWindows,
		log: c.Log,
	}
	for _, l := range c.INTx {
		r.pins = append(r.pins, &sharedLine{line: l})
	}
	if _, err := r.Add(0, 0, bridge); err != nil {
		return nil, err
	}
	return r, nil
}

// INTx is the index in RootConfig.INTx of the input that an interrupt pin, 1 to
// 4, of a slot leads to, with n inputs. Slots are spread over the inputs as
// bridges do it (PCI 3.0 §2.2.6); ACPI's _PRT must say the same.
func INTx(slot int, pin uint8, n int) int { return (slot + int(pin) - 1) % n }

// Add plugs a new function into a slot. Function 0 of a slot comes before its
// others, which a guest would not look for without it. Errors wrap ErrConfig.
func (r *Root) Add(slot, function int, c Config) (*Function, error) {
	fail := func(err error) (*Function, error) {
		return nil, fmt.Errorf("%w: %s at slot %d, function %d: %w", ErrConfig, c.Name, slot, function, err)
	}
	if slot < 0 || slot >= Slots || function < 0 || function >= Functions {
		return fail(fmt.Errorf("give a slot below %d and a function below %d", Slots, Functions))
	}
	f, err := newFunction(r, c)
	if err != nil {
		return fail(err)
	}
	if pin := c.InterruptPin; pin != 0 {
		if len(r.pins) == 0 {
			return fail(errors.New("it has an interrupt pin, and the root no INTx: give one to the root, or no pin to the function"))
		}
		f.intx.pin = r.pins[INTx(slot, pin, len(r.pins))]
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	first := &r.functions[slot*Functions]
	if function != 0 {
		if first.Load() == nil {
			return fail(errors.New("the slot has no function 0: add that first"))
		}
		first.Load().multi = true
	}
	if !r.functions[slot*Functions+function].CompareAndSwap(nil, f) {
		return fail(errors.New("the place is taken: choose another"))
	}
	return f, nil
}

// complain logs that a BAR cannot be where the guest puts it, at most once in a
// while. r.mu is held.
func (r *Root) complain(b *bar, reason error) {
	const every = 10 * time.Second
	if now := time.Now(); now.Sub(r.complaint) >= every {
		r.complaint = now
		r.log.Warn("PCI: a BAR is where it cannot be; it is not mapped", "device", b.owner.c.Name, "bar", b.index, "reason", reason)
	}
}
