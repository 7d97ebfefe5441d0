package pci

import (
	"sync"
	"sync/atomic"

	"github.com/huskvm/husk/devices"
)

// intx is a function's interrupt pin (PCI 3.0 §2.2.6).
type intx struct {
	pin   *sharedLine // nil for a function without
	level atomic.Bool // what the function asks for: the Interrupt Status bit

	mu       sync.Mutex
	disabled bool
	asserted bool // on pin
}

func (x *intx) set(level bool) {
	if x.pin == nil {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.level.Store(level)
	x.drive()
}

// disable keeps the pin released. The status bit is not affected.
func (x *intx) disable(disabled bool) {
	if x.pin == nil {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.disabled = disabled
	x.drive()
}

func (x *intx) drive() {
	if on := x.level.Load() && !x.disabled; on != x.asserted {
		x.asserted = on
		x.pin.set(on)
	}
}

// A sharedLine is an interrupt input to which several pins are wired: it is
// asserted while any of them is.
//
// Its Set is called without a lock, as devices.Line wants it: the registers of
// one function must not wait for another's interrupt. Who finds somebody at it
// leaves the rest to him.
type sharedLine struct {
	line devices.Line

	mu       sync.Mutex
	asserted int  // how many pins are
	high     bool // what line has been set to
	busy     bool // somebody sets it
}

func (l *sharedLine) set(on bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if on {
		l.asserted++
	} else {
		l.asserted--
	}
	if l.busy {
		return
	}
	l.busy = true
	for l.high != (l.asserted > 0) {
		l.high = !l.high
		high := l.high
		l.mu.Unlock()
		l.line.Set(high)
		l.mu.Lock()
	}
	l.busy = false
}
