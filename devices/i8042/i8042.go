// Package i8042 is the PC's keyboard controller with nothing plugged in (IBM
// PS/2 Hardware Interface Technical Reference, "Keyboard and Auxiliary Device
// Controller", 1988). Guests need it to reset the machine, and some will not
// boot without it.
//
// What Linux does with it (drivers/input/serio): it reads the command byte
// twice, writes it, and, if ACPI tells of a mouse port (PNP0F13), tests that by
// the auxiliary loop, with and without its interrupt. Then atkbd asks the
// keyboard for its id. The controller reports by the timeout bit that nobody
// answers, at once, and atkbd gives up: a silent keyboard would cost it 200 ms a
// try. A guest whose ACPI tells of no PNP0303, and whose FADT clears the boot
// flag "8042", leaves the controller alone until it resets.
package i8042

import (
	"sync"

	"github.com/huskvm/husk/devices"
)

// The ports, one byte each. 0x61 between them belongs to another chip.
const (
	DataPort    = 0x60
	CommandPort = 0x64
)

// Config is what a Controller is connected to. Any field may be left nil.
type Config struct {
	// Keyboard and Aux are the interrupts (IRQ 1 and 12).
	Keyboard, Aux devices.Line
	// Reset is called when the guest pulses the processor's reset line, on the
	// vCPU's thread, as often as the guest does it.
	Reset func()
}

// Controller commands, written to the command port.
const (
	cmdReadRAM         = 0x20 // to 0x3f
	cmdWriteRAM        = 0x60 // to 0x7f
	cmdAuxDisable      = 0xa7
	cmdAuxEnable       = 0xa8
	cmdAuxTest         = 0xa9
	cmdSelfTest        = 0xaa
	cmdKeyboardTest    = 0xab
	cmdKeyboardDisable = 0xad
	cmdKeyboardEnable  = 0xae
	cmdReadInputPort   = 0xc0
	cmdReadOutputPort  = 0xd0
	cmdWriteOutputPort = 0xd1
	cmdKeyboardLoop    = 0xd2 // the next byte comes back as if from the keyboard
	cmdAuxLoop         = 0xd3 // the same for the mouse
	cmdAuxSend         = 0xd4
	cmdPulse           = 0xf0 // to 0xff: bits 0 to 3 that are 0 are pulsed
)

// Status register bits, read from the command port.
const (
	statusFull    = 1 << 0 // the data port holds a byte
	statusSystem  = 1 << 2 // self test passed, as in the command byte
	statusCommand = 1 << 3 // the last byte written was a command
	statusNoLock  = 1 << 4 // the keyboard lock is off
	statusAux     = 1 << 5 // the byte comes from the mouse
	statusTimeout = 1 << 6 // nobody has answered
)

// Command byte: byte 0 of the controller's RAM.
const (
	ctrKeyboardInt     = 1 << 0
	ctrAuxInt          = 1 << 1
	ctrSystem          = 1 << 2
	ctrKeyboardDisable = 1 << 4
	ctrAuxDisable      = 1 << 5
	ctrTranslate       = 1 << 6
)

// Output port bits.
const (
	outNoReset     = 1 << 0
	outA20         = 1 << 1
	outKeyboardInt = 1 << 4
	outAuxInt      = 1 << 5
	outIdle        = outNoReset | outA20 | 0xcc // the lines that nobody pulls down
)

const (
	selfTestPassed = 0x55
	testPassed     = 0x00
	noAnswer       = 0xfe // "resend": comes with statusTimeout
	inputPortIdle  = 0x80 // the keyboard lock is off
)

// queueSize is how many bytes wait for the data port, at most. Linux takes a
// controller for absent that holds more than 16 (I8042_BUFFER_SIZE).
const queueSize = 16

// A reply is a byte for the data port with the status bits that come with it.
type reply struct {
	data, status byte
}

// A Controller is the chip. Map its two ports, Data and Command.
type Controller struct {
	keyboard, aux devices.Line
	reset         func()

	mu    sync.Mutex
	regs  state
	lines [2]bool // levels of keyboard and aux
}

// state is all that a guest can see of the chip.
type state struct {
	ram        [32]byte
	outputPort byte
	command    byte // waits for its parameter; 0 if none does
	lastWasCmd bool
	last       byte // what the data port showed last
	queue      [queueSize]reply
	queued     int
}

// New returns a controller as firmware leaves it: self test passed,
// interrupts off.
func New(c Config) *Controller {
	if c.Reset == nil {
		c.Reset = func() {}
	}
	k := &Controller{keyboard: c.Keyboard, aux: c.Aux, reset: c.Reset}
	k.regs.ram[0] = ctrSystem | ctrTranslate
	k.regs.outputPort = outIdle
	return k
}

// Data is the data port.
func (k *Controller) Data() devices.Device { return dataPort{k} }

// Command is the command and status port.
func (k *Controller) Command() devices.Device { return commandPort{k} }

type dataPort struct{ k *Controller }

// Load reads the oldest byte that waits. Without one it shows the last again.
func (d dataPort) Load(off uint64, p []byte) {
	fillOnes(p)
	if off != 0 || len(p) == 0 {
		return
	}
	k := d.k
	k.mu.Lock()
	defer k.mu.Unlock()
	s := &k.regs
	if s.queued > 0 {
		s.last = s.queue[0].data
		copy(s.queue[:], s.queue[1:s.queued])
		s.queued--
		// The line falls between two bytes: handlers take one each time.
		k.drive(false, false)
		k.updateLines()
	}
	p[0] = s.last
}

// Store takes a command's parameter, or else a byte for the keyboard.
func (d dataPort) Store(off uint64, p []byte) {
	if off != 0 || len(p) == 0 {
		return
	}
	d.k.take(p[0], (*state).data)
}

type commandPort struct{ k *Controller }

// Load reads the status register.
func (c commandPort) Load(off uint64, p []byte) {
	fillOnes(p)
	if off != 0 || len(p) == 0 {
		return
	}
	k := c.k
	k.mu.Lock()
	defer k.mu.Unlock()
	p[0] = k.regs.status()
}

// Store takes a command.
func (c commandPort) Store(off uint64, p []byte) {
	if off != 0 || len(p) == 0 {
		return
	}
	c.k.take(p[0], (*state).execute)
}

// take gives a byte to one of the ports' handlers, and resets the machine
// outside of the lock if that asks for it.
func (k *Controller) take(v byte, handle func(*state, byte) (reset bool)) {
	k.mu.Lock()
	reset := handle(&k.regs, v)
	k.updateLines()
	k.mu.Unlock()
	if reset {
		k.reset()
	}
}

func fillOnes(p []byte) {
	for i := range p {
		p[i] = 0xff
	}
}

// updateLines drives the interrupts from the byte that waits.
func (k *Controller) updateLines() {
	out := k.regs.interrupts()
	k.drive(out&outKeyboardInt != 0, out&outAuxInt != 0)
}

func (k *Controller) drive(keyboard, aux bool) {
	for i, l := range [...]struct {
		line  devices.Line
		level bool
	}{{k.keyboard, keyboard}, {k.aux, aux}} {
		if k.lines[i] == l.level {
			continue
		}
		k.lines[i] = l.level
		if l.line != nil {
			l.line.Set(l.level)
		}
	}
}
