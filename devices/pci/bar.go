package pci

import (
	"encoding/binary"
	"fmt"

	"github.com/huskvm/husk/devices"
)

// A bar is a BAR and where it is. It is guarded by the root's lock.
type bar struct {
	BAR
	owner *Function
	index int

	// wanted and base are where the guest wants it; mapped is whether it is
	// there.
	wanted, mapped bool
	base           uint64
}

// decode is where the registers put b, and whether it answers there.
func (b *bar) decode(command Command) (base uint64, on bool) {
	le, regs := binary.LittleEndian, b.owner.regs[regBAR+4*b.index:]
	base = uint64(le.Uint32(regs))
	enable := CommandMemory
	switch b.Kind {
	case IO:
		enable = CommandIO
	case Memory64:
		base = le.Uint64(regs)
	}
	return base &^ (b.Size - 1), command&enable != 0
}

// space is what b is mapped in.
func (b *bar) space() (*devices.Bus, []Window) {
	r := b.owner.root
	if b.Kind == IO {
		return r.io, r.ioWindows
	}
	return r.memory, r.memoryWindows
}

// place maps the function's BARs where its registers put them.
func (f *Function) place(command Command) {
	changed := false
	for _, b := range f.bars {
		base, on := b.decode(command)
		if on == b.wanted && (!on || base == b.base) {
			continue
		}
		changed = true
		b.unmap()
		b.wanted, b.base = on, base
	}
	if !changed {
		return
	}
	for _, b := range f.bars {
		if b.wanted && !b.mapped {
			if err := b.tryMap(); err != nil {
				f.root.complain(b, err)
			}
		}
	}
	// What has been left may be where another BAR waits to be.
	for i := range f.root.functions {
		other := f.root.functions[i].Load()
		if other == nil || other == f {
			continue
		}
		for _, b := range other.bars {
			if b.wanted && !b.mapped {
				b.tryMap() //nolint:errcheck // that was said when it was placed
			}
		}
	}
}

func (b *bar) tryMap() error {
	bus, windows := b.space()
	for _, w := range windows {
		if !w.holds(b.base, b.Size) {
			continue
		}
		if err := bus.Map(fmt.Sprintf("%s BAR %d", b.owner.c.Name, b.index), b.base, b.Size, b.Device); err != nil {
			return err
		}
		b.mapped = true
		if b.owner.c.Mapped != nil {
			b.owner.c.Mapped(b.index, b.base)
		}
		return nil
	}
	return fmt.Errorf("%#x bytes at %#x are outside of the host bridge's windows", b.Size, b.base)
}

func (b *bar) unmap() {
	if !b.mapped {
		return
	}
	if b.owner.c.Unmapped != nil {
		b.owner.c.Unmapped(b.index, b.base)
	}
	b.mapped = false
	bus, _ := b.space()
	if err := bus.Unmap(b.base); err != nil {
		b.owner.root.log.Error("PCI: a BAR was not where it had been mapped", "device", b.owner.c.Name, "bar", b.index, "err", err)
	}
}
