package pci

import (
	"encoding/binary"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/devices"
)

// A board is three functions of which the fuzzer's guest has all to itself.
type board struct {
	*rig
	functions []*Function
	where     map[string]bool // what the callbacks say is mapped
	sink      checkedSink
}

// checkedSink knows what may be signalled: what has a route.
type checkedSink struct {
	t      testing.TB
	routed [8]bool
}

func (s *checkedSink) Route(vector int, m Message) error {
	require.Zero(s.t, m.Address&3)
	s.routed[vector] = m.Address>>20 == 0xfee
	if !s.routed[vector] {
		return errRoute
	}
	return nil
}

func (s *checkedSink) Signal(vector int) { require.True(s.t, s.routed[vector], "vector %d", vector) }

func newBoard(t testing.TB) *board {
	b := &board{rig: newRig(t), where: map[string]bool{}}
	b.sink.t = t
	for i := range 3 {
		c := nic(nil)
		c.Name = string(rune('a' + i))
		c.BARs[4] = BAR{Kind: IO, Size: 8, Device: tag(i)}
		c.BARs[5] = BAR{Kind: Memory32, Size: 0x1000, Device: tag(0x10 + i)}
		if i == 0 {
			c.MSIX = &MSIX{Vectors: len(b.sink.routed), BAR: 2, Sink: &b.sink}
		}
		name := func(bar int) string { return c.Name + " BAR " + string(rune('0'+bar)) }
		c.Mapped = func(bar int, _ uint64) {
			require.False(t, b.where[name(bar)], "mapped twice")
			b.where[name(bar)] = true
		}
		c.Unmapped = func(bar int, _ uint64) {
			require.True(t, b.where[name(bar)], "not mapped")
			delete(b.where, name(bar))
		}
		f, err := b.Add(i+1, 0, c)
		require.NoError(t, err)
		b.functions = append(b.functions, f)
	}
	return b
}

// blocked tells whether a BAR that is not mapped cannot be: it is in no window,
// or something else is there.
func (b *board) blocked(bar *bar) bool {
	bus, windows := bar.space()
	inside := slices.ContainsFunc(windows, func(w Window) bool { return w.holds(bar.base, bar.Size) })
	return !inside || slices.ContainsFunc(bus.Ranges(), func(r devices.Range) bool {
		own := bar.mapped && r.Base == bar.base
		return !own && r.Base <= bar.base+(bar.Size-1) && bar.base <= r.Base+(r.Size-1)
	})
}

// check is what holds whatever a guest has done.
func (b *board) check(t testing.TB) {
	require.Equal(t, byte(0xcc), b.byteAt(chipBase), "the chip answers")
	require.Equal(t, uint32(0x00081b36), b.mmconfig().r32(0, 0), "ECAM answers")
	require.Equal(t, uint32(0x00081b36), b.conf1().r32(0, 0), "mechanism #1 answers")
	mapped := 0
	for i, windows := range [][]Window{b.memoryWindows, b.ioWindows} {
		bus := b.mmio
		if i == 1 {
			bus = b.pio
		}
		end := uint64(0)
		for _, r := range bus.Ranges() {
			require.GreaterOrEqual(t, r.Base, end, "overlap")
			end = r.Base + r.Size
			if len(r.Name) != len("a BAR 0") {
				continue
			}
			mapped++
			require.True(t, b.where[r.Name], r.Name)
			require.True(t, slices.ContainsFunc(windows, func(w Window) bool { return w.holds(r.Base, r.Size) }), "%v", r)
		}
	}
	require.Len(t, b.where, mapped)
	for i, f := range b.functions {
		require.Equal(t, uint16(0x1af4), b.mmconfig().r16((i+1)<<3, 0))
		command := Command(b.mmconfig().r16((i+1)<<3, regCommand))
		require.Zero(t, command&^(CommandIO|CommandMemory|CommandBusMaster|CommandINTxDisable))
		for _, bar := range f.bars {
			base, on := bar.decode(command)
			require.Equal(t, on, bar.wanted)
			if on {
				require.Equal(t, base, bar.base)
				require.NotEqual(t, bar.mapped, b.blocked(bar))
			} else {
				require.False(t, bar.mapped)
			}
		}
	}
	m := b.functions[0].msix
	for v := range b.sink.routed {
		entry := m.table[v*entrySize:]
		require.Zero(t, entry[0]&3)
		require.Zero(t, binary.LittleEndian.Uint32(entry[entryControl:])&^entryMasked)
		if m.pending[0].Load()>>v&1 != 0 {
			require.False(t, m.open(v) && m.routes[v].ok, "vector %d is pending and may be sent", v)
		}
	}
	require.Zero(t, m.pending[0].Load()>>len(b.sink.routed))
}

// FuzzGuest is a guest that programs three functions, six bytes a step.
func FuzzGuest(f *testing.F) {
	step := func(op, where byte, value uint32) []byte {
		return binary.LittleEndian.AppendUint32([]byte{op, where}, value)
	}
	join := func(steps ...[]byte) (all []byte) {
		for _, s := range steps {
			all = append(all, s...)
		}
		return all
	}
	const conf, ecam, table, load, trigger, line, reset, place = 0, 1, 2, 3, 4, 5, 6, 7
	const w = 2 << 3 // four bytes wide
	f.Add(join(      // MSI-X from its enabling to a pending vector
		step(place, 2, 0x100), step(conf|w, regCommand/4, 6), step(ecam|w, 0x64/4, 0x8000_0000),
		step(table|w, 0, lapic), step(table|w, 2, 0x31), step(trigger, 0, 0), step(table|w, 3, 0), step(trigger, 0, 0),
		step(ecam|w, 0x64/4, 0xc000_0000), step(trigger, 0, 0), step(load|w, 0, 0), step(ecam|w, 0x64/4, 0x8000_0000)))
	f.Add(join( // two BARs at one address, then apart
		step(place, 0, 1), step(conf|w, regCommand/4, 7), step(place|1<<6, 0, 1), step(conf|w|1<<6, regCommand/4, 7),
		step(place, 0, 2), step(place|1<<6, 0, 2), step(reset, 0, 0), step(conf|w, regCommand/4, 7)))
	f.Add(join( // over the chip, by I/O and outside
		step(place, 5, 0x1000), step(conf|w, regCommand/4, 7), step(place, 4, 0x200), step(conf|w, (regBAR+16)/4, 0xcf8),
		step(conf|w, regBAR/4, 0xffffffff), step(conf|w, (regBAR+4)/4, 0xffffffff), step(place, 0, 0), step(ecam|w, (regBAR+20)/4, ecamBase)))
	f.Add(join(step(line, 0, 1), step(conf|w, regCommand/4, 0x400), step(line, 0, 1), step(conf|w, regCommand/4, 0), step(line, 0, 0)))
	f.Fuzz(func(t *testing.T, steps []byte) {
		b := newBoard(t)
		for n := 0; len(steps) >= 6 && n < 200; n++ {
			op, where, value := steps[0], int(steps[1]), steps[2:6]
			steps = steps[6:]
			number := binary.LittleEndian.Uint32(value)
			i := int(op>>6) % len(b.functions)
			devfn, p := (i+1)<<3, slices.Concat(value, value)[:1<<(op>>3&3)]
			switch op & 7 {
			case conf:
				b.conf1().store(devfn, where*4&0xff|where>>6, p[:min(len(p), 4)])
			case ecam:
				b.mmconfig().store(devfn, where*4|where>>6, p)
			case table:
				b.functions[0].msix.Store(uint64(where)*4, p)
			case load:
				got := make([]byte, 8)
				b.conf1().load(devfn, where, got)
				b.mmconfig().load(devfn, where*16, got)
				b.functions[0].msix.Load(uint64(where)*16, got)
				b.mmio.Load(high+uint64(number%winSize), got)
			case trigger:
				b.functions[i].Trigger(int(number) % 10)
			case line:
				b.functions[i].SetINTx(number&1 != 0)
			case reset:
				b.functions[i].Reset()
			case place: // mostly where a BAR can be
				bases := []uint64{low, high, chipBase, ioBase}
				base := bases[number>>16%4] + uint64(number&0xffff)<<12
				if b.functions[i].c.BARs[where%6].Kind == IO {
					base = ioBase + uint64(number&0xffff)*8
				}
				b.mmconfig().setBAR(devfn, where%6, base)
			}
			b.check(t)
		}
	})
}

// FuzzPorts accesses the ports of mechanism #1 in any width at any offset, and
// ECAM at the same place: the functions are those of before.
func FuzzPorts(f *testing.F) {
	f.Add(uint64(0), uint32(0x8000_0804), uint64(4), []byte{7, 4})
	f.Add(uint64(0), uint32(0x8000_083c), uint64(6), []byte{7, 4, 1, 1})
	f.Add(uint64(3), uint32(0x8000_0810), uint64(5), []byte{0xff})
	f.Add(uint64(0), uint32(0x8000_08fc), uint64(7), []byte{1, 2, 3, 4, 5, 6, 7, 8})
	f.Fuzz(func(t *testing.T, addressAt uint64, address uint32, at uint64, p []byte) {
		b := newBoard(t)
		before := b.conf1().enumerate()
		p = p[:min(len(p), 8)]
		d, e := b.Ports(), b.ECAM()
		d.Store(addressAt%16, binary.LittleEndian.AppendUint32(nil, address))
		d.Store(at, p)
		d.Load(at, p)
		e.Store(uint64(address), p)
		e.Load(uint64(address), p)
		e.Load(at, p)
		b.pio.Store(0xcf8+at%8, p)
		b.pio.Load(0xcf8+at%8, p)
		for i, fn := range b.functions {
			fn.Reset()
			b.mmconfig().w16((i+1)<<3, regCommand, 0)
		}
		b.check(t)
		require.Equal(t, before, b.mmconfig().enumerate())
	})
}
