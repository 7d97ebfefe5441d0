// Package acpipm is the power management block of a hardware-reduced ACPI
// machine (ACPI 6.5 §4.1): the registers by which a guest turns the machine
// off or resets it, and the power button, which reaches the guest as an event
// of the Generic Event Device (§5.6.9).
//
// There is no PM timer, no PM1 event block and no GPE: the guest's ACPI tables
// must say so.
package acpipm

import (
	"sync"

	"github.com/huskvm/husk/devices"
)

// The registers, each of one byte, by their offset in the block.
const (
	SleepControl = 0 // SLEEP_CONTROL_REG, §4.8.3.7.1
	SleepStatus  = 1 // SLEEP_STATUS_REG, §4.8.3.7.2
	Reset        = 2 // RESET_REG, §4.8.3.6
	Events       = 3 // pending events; a load returns and clears them

	Size = 8 // bytes the block takes; those without a register read as all ones
)

// The values that the guest's tables must name.
const (
	SleepTypeS5 = 5      // SLP_TYPx that means soft off, for the \_S5 object
	ResetValue  = 1      // what a store to Reset must be to reset the machine
	PowerButton = 1 << 0 // in Events: the power button was pressed
)

// The fields of SLEEP_CONTROL_REG, §4.8.3.7.1.
const (
	sleepTypeShift = 2
	sleepTypeMask  = 7
	sleepEnable    = 1 << 5 // SLP_EN
)

// Config is what the block is wired to.
type Config struct {
	// Line is the Generic Event Device's interrupt: level, active high.
	Line devices.Line
	// PowerOff and Reset are called when the guest asks for it, each time it
	// does, from the thread of the vCPU that did. They must not wait for that
	// vCPU.
	PowerOff, Reset func()
}

// A Device is the block of registers. It is a devices.Device of Size bytes.
type Device struct {
	cfg Config

	// mu also keeps the line in step with events: it is driven under it.
	mu     sync.Mutex
	events byte // pending
}

// New makes a block with nothing pending.
func New(cfg Config) *Device {
	return &Device{cfg: cfg}
}

// PressPowerButton tells the guest that the power button was pressed. The
// event stays until the guest has read it, so a press before the guest listens
// is not lost; presses that it has not yet read are one.
func (d *Device) PressPowerButton() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.events |= PowerButton
	d.cfg.Line.Set(true)
}

// takeEvents returns the pending events and clears them. It releases the
// line, so that the guest's handler of a level interrupt runs once.
func (d *Device) takeEvents() byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	events := d.events
	d.events = 0
	if events != 0 {
		d.cfg.Line.Set(false)
	}
	return events
}

// Load implements devices.Device.
func (d *Device) Load(off uint64, p []byte) {
	for i := range p {
		p[i] = d.load(off + uint64(i))
	}
}

func (d *Device) load(off uint64) byte {
	switch off {
	case SleepControl, SleepStatus:
		// SLP_EN is write-only, and the machine has never slept: there is
		// no state but S5, from which nothing wakes.
		return 0
	case Events:
		return d.takeEvents()
	default:
		return 0xFF
	}
}

// Store implements devices.Device.
func (d *Device) Store(off uint64, p []byte) {
	for i, v := range p {
		d.store(off+uint64(i), v)
	}
}

func (d *Device) store(off uint64, v byte) {
	switch {
	case off == SleepControl && v&sleepEnable != 0 && v>>sleepTypeShift&sleepTypeMask == SleepTypeS5:
		d.cfg.PowerOff()
	case off == Reset && v == ResetValue:
		d.cfg.Reset()
	}
}
