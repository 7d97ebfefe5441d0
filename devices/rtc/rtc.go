// Package rtc is the real-time clock: Motorola's MC146818A (data sheet 1984)
// with a PC's 128 bytes, of which 114 are the guest's to keep.
//
// Nothing ticks. What a register shows is computed from the host's clock when
// it is read; a timer runs only while the guest waits for an interrupt. The
// update flag is up for the 244 µs before a second's end, and an update takes
// no time, so a guest hardly ever has to poll for it.
package rtc

import (
	"sync"
	"time"

	"github.com/huskvm/husk/devices"
)

// Size is the number of ports: index and data, at 0x70 on a PC.
const Size = 2

// Century is the index of the register that holds the century, which ACPI's
// FADT tells the guest.
const Century = 0x32

// Register indices (data sheet, "Address Map").
const (
	regSeconds      = 0x00
	regSecondsAlarm = 0x01
	regMinutes      = 0x02
	regMinutesAlarm = 0x03
	regHours        = 0x04
	regHoursAlarm   = 0x05
	regWeekday      = 0x06 // 1 is Sunday
	regDay          = 0x07
	regMonth        = 0x08
	regYear         = 0x09
	regA            = 0x0a
	regB            = 0x0b
	regC            = 0x0c
	regD            = 0x0d
)

// Register A.
const (
	aRate        = 0x0f
	aDivider     = 0x70
	aDivider32k  = 0x20 // the divider of a PC's 32.768 kHz crystal; any other value stops the clock
	aUpdate      = 0x80 // UIP
	aPowerOn     = aDivider32k | 0x06
	updateNotice = 244 * time.Microsecond // UIP is up this long before an update
)

// Register B; bits 4 to 6 enable the interrupts of the flags in register C.
const (
	b24Hours  = 1 << 1
	bBinary   = 1 << 2
	bUpdate   = 1 << 4
	bAlarm    = 1 << 5
	bPeriodic = 1 << 6
	bSet      = 1 << 7 // the guest sets the time: no updates
)

// Register C.
const (
	cUpdate    = bUpdate
	cAlarm     = bAlarm
	cPeriodic  = bPeriodic
	cFlags     = cUpdate | cAlarm | cPeriodic
	cInterrupt = 1 << 7
)

// dValid is register D's only bit: the battery has not failed.
const dValid = 0x80

// Config is what an RTC is connected to. Either may be left nil.
type Config struct {
	// Now is the host's clock. Default time.Now.
	Now func() time.Time
	// Line is the interrupt (IRQ 8).
	Line devices.Line
}

// An RTC is the chip. It starts with the host's time in UTC, and keeps what the
// guest sets as an offset from it.
type RTC struct {
	now  func() time.Time
	line devices.Line

	mu     sync.Mutex
	regs   state
	irq    bool // level of line
	timer  *time.Timer
	closed bool
}

// state is all that a guest can see of the chip. Times of the host are in it, so
// that a clock goes on where it was.
type state struct {
	index byte
	// ram is all registers. The time's are in use only while the clock
	// stands, and register C holds the flags up to checked.
	ram     [128]byte
	offset  offset    // of the guest's time from the host's
	stopped bool      // the clock stands: the time is in ram
	divider bool      // the divider was held since the clock stopped
	checked time.Time // until when the flags of register C are known, host time
}

// New returns a clock that shows Now, in BCD and 24-hour mode. Close stops it.
func New(c Config) *RTC {
	if c.Now == nil {
		c.Now = time.Now
	}
	r := &RTC{now: c.Now, line: c.Line}
	r.regs.ram[regA] = aPowerOn
	r.regs.ram[regB] = b24Hours
	r.regs.checked = c.Now()
	return r
}

// Close stops the timer. It drives the line no more.
func (r *RTC) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	if r.timer != nil {
		r.timer.Stop()
	}
}

// Load reads the register that was selected, from the data port. The index port
// can only be written and reads as ones.
func (r *RTC) Load(off uint64, p []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range p {
		p[i] = 0xff
		if off+uint64(i) == 1 {
			p[i] = r.load()
		}
	}
}

// Store selects a register by the index port, or writes the selected one by the
// data port. Bit 7 of the index masks NMIs, which the board has none of.
func (r *RTC) Store(off uint64, p []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, v := range p {
		switch off + uint64(i) {
		case 0:
			r.regs.index = v & 0x7f
		case 1:
			r.store(v)
		}
	}
}

func (r *RTC) load() byte {
	s := &r.regs
	now := r.now()
	switch i := s.index; {
	case isTime(i) && !s.stopped:
		return s.field(i, s.offset.guest(now))
	case i == regA:
		a := s.ram[regA]
		if !s.stopped && s.offset.guest(now).Nanosecond() >= int(time.Second-updateNotice) {
			a |= aUpdate
		}
		return a
	case i == regC:
		s.check(now)
		c := s.ram[regC]
		if s.pending() {
			c |= cInterrupt
		}
		s.ram[regC] = 0
		r.update(now)
		return c
	case i == regD:
		return dValid
	default:
		return s.ram[i]
	}
}

func (r *RTC) store(v byte) {
	s := &r.regs
	now := r.now()
	s.check(now) // by the settings that were in force until now
	switch i := s.index; {
	case isTime(i) && !s.stopped:
		s.capture(now)
		s.ram[i] = v
		s.offset = offsetOf(s.time(s.offset.guest(now).Nanosecond()), now)
	case i == regA:
		s.ram[regA] = v &^ aUpdate
		s.stopOrGo(now)
	case i == regB:
		if v&bSet != 0 {
			v &^= bUpdate
		}
		s.ram[regB] = v
		s.stopOrGo(now)
	case i == regC || i == regD: // read-only
	default:
		s.ram[i] = v
	}
	r.update(now)
}
