// Package serial is the serial port: a 16550A UART after National
// Semiconductor's PC16550D data sheet (1995), wired as a PC's COM port is, with
// a terminal at the other end of the cable that is always on.
//
// Time is left out: the line takes and brings a byte in no time. So the
// transmitter is empty again as soon as it was filled, and a driver writes a
// whole FIFO for each interrupt without waiting for baud rates.
package serial

import (
	"io"
	"log/slog"
	"sync"

	"github.com/huskvm/husk/devices"
)

// Size is the number of registers, a byte each.
const Size = 8

// Config is what a UART is connected to. Any field may be left zero.
type Config struct {
	// Line is the interrupt (IRQ 4 for COM1).
	Line devices.Line
	// Out gets what the guest sends. nil drops it.
	Out io.Writer
	// Log is told when output is lost.
	Log *slog.Logger
	// OnFirstByte is called once, when the guest sends its first byte, on the
	// vCPU's thread.
	OnFirstByte func()
}

// A UART is one serial port. Its methods may be called from any goroutine.
type UART struct {
	line        devices.Line
	onFirstByte func()

	mu        sync.Mutex
	regs      state
	irq       bool // level of line
	output    output
	first     bool          // the guest has sent a byte
	inputRoom chan struct{} // closed when the receiver may have room; nil if nobody waits
}

// New returns a UART as it is after a reset. What the guest sends leaves it
// while Serve runs.
func New(c Config) *UART {
	if c.Out == nil {
		c.Out = io.Discard
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.OnFirstByte == nil {
		c.OnFirstByte = func() {}
	}
	return &UART{
		line:        c.Line,
		onFirstByte: c.OnFirstByte,
		output:      newOutput(c.Out, c.Log),
		regs:        state{msr: msrCTS | msrDSR | msrDCD, thrPending: true},
	}
}

// Load reads registers. A wider access than a byte reads one after the other,
// as the bridge to an 8-bit bus does it.
func (u *UART) Load(off uint64, p []byte) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for i := range p {
		p[i] = u.load(off + uint64(i))
	}
}

// Store writes registers, one after the other if the access is wider than a
// byte. It waits for room for what the guest sends, but not for long.
func (u *UART) Store(off uint64, p []byte) {
	u.mu.Lock()
	before := u.first
	for i, v := range p {
		u.store(off+uint64(i), v)
	}
	after := u.first
	u.mu.Unlock()
	if after && !before {
		u.onFirstByte()
	}
}

func (u *UART) load(off uint64) byte {
	s := &u.regs
	if off != regLSR {
		s.polls = 0
	}
	switch {
	case off == regData && s.dlab():
		return s.dll
	case off == regIER && s.dlab():
		return s.dlm
	}
	switch off {
	case regData:
		b := s.rx.pop()
		s.revealErrors()
		u.wakeSender()
		u.updateLine()
		return b
	case regIER:
		return s.ier
	case regIIR:
		id := s.interrupt()
		if id == iirTHRE {
			s.thrPending = false
			u.updateLine()
		}
		if s.fifo {
			id |= iirFIFO
		}
		return id
	case regLCR:
		return s.lcr
	case regMCR:
		return s.mcr
	case regLSR:
		return u.lineStatus()
	case regMSR:
		msr := s.msr
		s.msr &^= msrDeltas
		u.updateLine()
		return msr
	case regSCR:
		return s.scr
	}
	return 0xff
}

func (u *UART) store(off uint64, v byte) {
	s := &u.regs
	s.polls = 0
	switch {
	case off == regData && s.dlab():
		s.dll = v
		return
	case off == regIER && s.dlab():
		s.dlm = v
		return
	}
	switch off {
	case regData:
		u.transmit(v)
	case regIER:
		// Enabling the interrupt of a transmitter that is empty raises it:
		// this is how drivers start to send.
		if v&^s.ier&ierTHRE != 0 && u.canSend() {
			s.thrPending = true
		}
		s.ier = v & ierMask
	case regFCR:
		s.setFIFO(v)
		u.wakeSender()
	case regLCR:
		s.lcr = v
	case regMCR:
		s.setModem(v & mcrMask)
		u.wakeSender()
	case regSCR:
		s.scr = v
	}
	u.updateLine()
}

// lineStatus reads the LSR, which clears its errors (data sheet §8.4).
func (u *UART) lineStatus() byte {
	s := &u.regs
	lsr := s.errors
	s.errors = 0
	if s.rx.n > 0 {
		lsr |= lsrDR
	}
	if s.fifo && (lsr&lsrErrors&^lsrOE != 0 || s.rx.flagged()) {
		lsr |= lsrFIFOE
	}
	if u.canSend() {
		lsr |= lsrTHRE | lsrTEMT
	}
	if s.polls < pollsToListen {
		if s.polls++; s.polls == pollsToListen {
			s.polled = true
			u.wakeSender()
		}
	}
	u.updateLine()
	return lsr
}

// canSend tells whether the transmitter counts as empty. A driver that finds it
// so may send a whole FIFO without looking again. In loopback the receiver takes all.
func (u *UART) canSend() bool {
	return u.regs.mcr&mcrLoop != 0 || u.output.room() >= fifoSize
}

// transmit sends a byte: to the receiver in loopback, else to Out.
func (u *UART) transmit(v byte) {
	s := &u.regs
	if s.mcr&mcrLoop != 0 {
		if s.lcr&lcrBreak == 0 { // the line is held, nothing comes through
			s.receive(v, 0)
		}
	} else {
		u.first = true
		u.output.add(&u.mu, v)
	}
	s.thrPending = u.canSend()
}

// updateLine drives the interrupt. On a PC, OUT2 connects the UART to it; in
// loopback the OUT2 pin is off whatever the MCR says (data sheet §8.7).
func (u *UART) updateLine() {
	s := &u.regs
	irq := s.mcr&(mcrOUT2|mcrLoop) == mcrOUT2 && s.interrupt() != iirNone
	if irq == u.irq {
		return
	}
	u.irq = irq
	if u.line != nil {
		u.line.Set(irq)
	}
}
