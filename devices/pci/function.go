package pci

import (
	"encoding/binary"
)

// A Function is a function on the bus.
type Function struct {
	c       Config
	root    *Root
	powerOn *layout
	msix    *msix // nil for a function without
	intx    intx

	// Guarded by root.mu.
	regs    [configSize]byte
	bars    []*bar
	command Command // as it was last acted upon
	multi   bool    // its slot has other functions
}

func newFunction(r *Root, c Config) (*Function, error) {
	f := &Function{root: r}
	if c.MSIX != nil {
		if err := c.MSIX.validate(&c); err != nil {
			return nil, err
		}
		f.msix = newMSIX(*c.MSIX, c.Name, r.log)
		c.BARs[c.MSIX.BAR] = c.MSIX.bar(f.msix)
	}
	if err := c.validate(); err != nil {
		return nil, err
	}
	powerOn, err := newLayout(&c)
	if err != nil {
		return nil, err
	}
	f.c, f.powerOn, f.regs = c, powerOn, powerOn.regs
	for i, b := range c.BARs {
		if b.Kind != NoBAR {
			f.bars = append(f.bars, &bar{BAR: b, owner: f, index: i})
		}
	}
	return f, nil
}

// load fills p, which lies in one double word of configuration space.
func (f *Function) load(off int, p []byte) {
	for len(p) > 0 {
		l, n := f.live(off, len(p))
		if l != nil {
			l.Load(f.body(l), off-l.at(), p[:n])
		} else {
			f.root.mu.Lock()
			for i := range n {
				p[i] = f.at(off + i)
			}
			f.root.mu.Unlock()
		}
		off, p = off+n, p[n:]
	}
}

// store changes what a guest can change of p's bytes, which lie in one double
// word.
func (f *Function) store(off int, p []byte) {
	for len(p) > 0 {
		l, n := f.live(off, len(p))
		if l != nil {
			l.Store(f.body(l), off-l.at(), p[:n])
		} else {
			f.root.mu.Lock()
			for i, v := range p[:n] {
				w := f.powerOn.writable[off+i]
				f.regs[off+i] = f.regs[off+i]&^w | v&w
			}
			f.settle()
			f.root.mu.Unlock()
		}
		off, p = off+n, p[n:]
	}
}

// live returns the live part that holds the byte at off, or nil, and how many
// of the n bytes from there on are of the same kind.
func (f *Function) live(off, n int) (*live, int) {
	for i := range f.powerOn.lives {
		l := &f.powerOn.lives[i]
		start, end := l.at(), l.at()+l.Size
		switch {
		case start <= off && off < end:
			return l, min(n, end-off)
		case off < start && start < off+n:
			n = start - off
		}
	}
	return nil, n
}

// body copies the capability that l is in.
func (f *Function) body(l *live) []byte {
	f.root.mu.Lock()
	defer f.root.mu.Unlock()
	b := make([]byte, l.size)
	copy(b, f.regs[l.body:])
	return b
}

// at is the byte at off as a guest sees it. root.mu is held.
func (f *Function) at(off int) byte {
	v := f.regs[off]
	switch {
	case off == regStatus && f.intx.level.Load():
		v |= statusInterrupt
	case off == regHeaderType && f.multi:
		v |= headerMultiFunction
	}
	return v
}

// settle acts upon registers that have changed. root.mu is held.
func (f *Function) settle() {
	command := Command(binary.LittleEndian.Uint16(f.regs[regCommand:]))
	msixEnabled := false
	if f.msix != nil {
		control := binary.LittleEndian.Uint16(f.regs[f.powerOn.msix+msixControl:])
		msixEnabled = control&msixEnable != 0
		f.msix.setControl(msixEnabled, control&msixMaskAll != 0, command&CommandBusMaster != 0)
	}
	f.intx.disable(command&CommandINTxDisable != 0 || msixEnabled)
	f.place(command)
	if command != f.command {
		f.command = command
		if f.c.CommandChanged != nil {
			f.c.CommandChanged(command)
		}
	}
}

// Reset puts the function back to power-on: everything that a guest has
// programmed is gone, but for the addresses in the BARs, which nobody decodes
// any more. INTx# is released, and no vector is pending.
//
// Callbacks are called as if the guest had done it.
func (f *Function) Reset() {
	f.SetINTx(false)
	f.root.mu.Lock()
	defer f.root.mu.Unlock()
	bars := f.regs[regBAR : regBAR+4*barCount]
	kept := [4 * barCount]byte(bars)
	f.regs = f.powerOn.regs
	copy(bars, kept[:])
	if f.msix != nil {
		f.msix.reset()
	}
	f.settle()
}

// Trigger sends the message of an MSI-X vector. Where the vector is masked, by
// itself or with all others, or where the function may not access memory, it
// is pending instead, and is sent when that ends.
//
// It returns false, and has done nothing, if the guest has not enabled MSI-X,
// or the function has none: use SetINTx then. A vector that does not exist is
// dropped. It may be called from any goroutine, also from several at once, and
// takes no lock that another vector's Trigger holds.
func (f *Function) Trigger(vector int) bool { return f.msix != nil && f.msix.trigger(vector) }

// Direct is the eventfd that Trigger would signal for vector now, which others may do
// in its stead until MSIX.Changed is called and returns: while the vector is not
// masked, and its Vectors is a Descriptors. Else it is -1: what Trigger does then, only
// Trigger can.
func (f *Function) Direct(vector int) int {
	if f.msix == nil {
		return -1
	}
	return f.msix.direct(vector)
}

// SetINTx drives the interrupt pin: the Interrupt Status bit follows, and the
// line, too, unless the guest has disabled INTx or enabled MSI-X. It does
// nothing for a function without a pin. It may be called from any goroutine.
func (f *Function) SetINTx(asserted bool) { f.intx.set(asserted) }
