package pci

import (
	"encoding/binary"
	"math/bits"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// vectors is a driver of the function in slot 1: its table and pending bits.
type vectors struct {
	driver
	r     *rig
	table uint64 // guest-physical address
	pba   uint64
	cap   int
}

// probe finds the vectors as Linux's msix_map_region does, and places their BAR.
func probe(t testing.TB, r *rig) *vectors {
	d := r.mmconfig()
	f := d.enumerate()[dev]
	require.Len(t, f.capabilities[CapMSIX], 1)
	v := &vectors{driver: d, r: r, cap: f.capabilities[CapMSIX][0]}
	const base = high + 0x100_0000
	table, pba := d.r32(dev, v.cap+4), d.r32(dev, v.cap+8)
	require.Equal(t, table&7, pba&7)
	bar := int(table & 7)
	n := uint64(v.r16(dev, v.cap+2)&0x7ff) + 1
	require.GreaterOrEqual(t, pba&^7, table&^7+uint32(16*n), "they do not overlap")
	require.LessOrEqual(t, uint64(pba&^7)+(n+63)/64*8, f.bars[bar].size)
	d.setBAR(dev, bar, base)
	v.table, v.pba = base+uint64(table&^7), base+uint64(pba&^7)
	return v
}

func (v *vectors) command(c Command)    { v.w16(dev, regCommand, uint16(c)) }
func (v *vectors) control(value uint16) { v.w16(dev, v.cap+2, value) }
func (v *vectors) write(vector, off int, value uint32) {
	v.r.mmio.Store(v.table+uint64(16*vector+off), binary.LittleEndian.AppendUint32(nil, value))
}

func (v *vectors) read(vector, off int) uint32 {
	var p [4]byte
	v.r.mmio.Load(v.table+uint64(16*vector+off), p[:])
	return binary.LittleEndian.Uint32(p[:])
}

func (v *vectors) message(vector int, address uint64, data uint32) {
	v.write(vector, entryAddress, uint32(address))
	v.write(vector, entryAddress+4, uint32(address>>32))
	v.write(vector, entryData, data)
}

func (v *vectors) mask(vector int, masked bool) {
	if masked {
		v.write(vector, entryControl, 1)
	} else {
		v.write(vector, entryControl, 0)
	}
}

func (v *vectors) pending(vector int) bool {
	var p [8]byte
	v.r.mmio.Load(v.pba+uint64(vector/64*8), p[:])
	return binary.LittleEndian.Uint64(p[:])>>(vector%64)&1 != 0
}

const lapic = 0xfee0_0000

func newVectors(t testing.TB, n int) (*Function, *vectors, *sink) {
	r, s := newRig(t), &sink{}
	c := nic(s)
	c.MSIX.Vectors = n
	f, err := r.Add(1, 0, c)
	require.NoError(t, err)
	return f, probe(t, r), s
}

// TestLinuxEnablesMSIX is msix_capability_init, request_irq and an affinity
// change.
func TestLinuxEnablesMSIX(t *testing.T) {
	f, v, s := newVectors(t, 5)
	v.command(CommandMemory | CommandBusMaster)
	require.False(t, f.Trigger(0), "not enabled: use INTx")

	v.control(msixEnable | msixMaskAll)
	for i := range 5 {
		require.Equal(t, uint32(1), v.read(i, entryControl), "masked at power-on")
		v.write(i, entryControl, 1)
	}
	v.control(msixEnable)
	require.Zero(t, s.routed, "every vector is still masked")
	v.message(3, lapic, 0x31)
	require.Zero(t, s.routed)
	require.True(t, f.Trigger(3))
	require.Empty(t, s.take())
	require.True(t, v.pending(3))
	v.mask(3, false)
	require.Equal(t, 1, s.routed)
	require.Equal(t, []uint32{0x31}, s.take(), "fires when unmasked")
	require.False(t, v.pending(3))
	require.True(t, f.Trigger(3))
	require.Equal(t, []uint32{0x31}, s.take())

	v.mask(3, true)
	require.True(t, f.Trigger(3))
	require.True(t, f.Trigger(3))
	v.message(3, lapic|1<<12, 0x42)
	v.mask(3, false)
	require.Equal(t, []uint32{0x42}, s.take(), "once, with the new message")
	require.Equal(t, Message{lapic | 1<<12, 0x42}, s.routes[3])
	require.Equal(t, 2, s.routed)

	v.mask(3, true)
	v.mask(3, false)
	require.Equal(t, 2, s.routed, "a mask costs no route")
	require.Empty(t, s.take())
	v.write(3, entryData, 0x43) // while it is not masked: undefined, but it must not be lost
	require.True(t, f.Trigger(3))
	require.Equal(t, []uint32{0x43}, s.take())
}

func TestFunctionMaskAndBusMaster(t *testing.T) {
	f, v, s := newVectors(t, 70)
	v.command(CommandMemory | CommandBusMaster)
	v.control(msixEnable)
	for _, i := range []int{0, 63, 64, 69} {
		v.message(i, lapic, uint32(i)+100)
		v.mask(i, false)
	}
	for name, hold := range map[string]struct{ on, off func() }{
		"function mask": {func() { v.control(msixEnable | msixMaskAll) }, func() { v.control(msixEnable) }},
		"bus master":    {func() { v.command(CommandMemory) }, func() { v.command(CommandMemory | CommandBusMaster) }},
	} {
		hold.on()
		for _, i := range []int{69, 64, 0, 1} {
			require.True(t, f.Trigger(i))
			require.True(t, v.pending(i), name)
		}
		require.False(t, v.pending(63))
		require.Empty(t, s.take(), name)
		hold.off()
		require.Equal(t, []uint32{100, 164, 169}, s.take(), name)
		require.False(t, v.pending(64))
		require.True(t, v.pending(1), "masked by itself")
	}
	require.Equal(t, 4, s.routed)

	v.control(0)
	require.False(t, f.Trigger(0))
	require.False(t, v.pending(1), "INTx has taken over")
	v.control(msixEnable)
	require.Empty(t, s.take())

	require.True(t, f.Trigger(70), "no such vector")
	require.True(t, f.Trigger(-1))
	require.Empty(t, s.take())
}

// A message that cannot be routed is not lost: it waits for a better one.
func TestRouteFails(t *testing.T) {
	f, v, s := newVectors(t, 2)
	v.command(CommandMemory | CommandBusMaster)
	v.control(msixEnable)
	v.message(1, lapic, 5)
	v.mask(1, false)
	v.write(1, entryAddress, 0x1000)
	require.True(t, f.Trigger(1))
	require.True(t, v.pending(1))
	v.write(1, entryData, 6)
	require.Empty(t, s.take())
	require.Equal(t, 1, strings.Count(v.r.log.String(), "cannot be routed"), "%s", v.r.log)
	require.Contains(t, v.r.log.String(), "no such local APIC")
	v.write(1, entryAddress, lapic)
	require.Equal(t, []uint32{6}, s.take())
	require.False(t, v.pending(1))
}

func TestMSIXTableBits(t *testing.T) {
	_, v, _ := newVectors(t, MaxVectors)
	v.command(CommandMemory)
	for _, i := range []int{0, MaxVectors - 1} {
		for off, want := range map[int]uint32{0: 0xfffffffc, 4: 0xffffffff, 8: 0xffffffff, 12: 1} {
			v.write(i, off, 0xffffffff)
			require.Equal(t, want, v.read(i, off))
			v.write(i, off, 0)
			require.Zero(t, v.read(i, off))
		}
	}
	bus := v.r.mmio
	bus.Store(v.table+8, []byte{1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff}) // two double words in one
	require.Equal(t, uint32(1), v.read(0, 8))
	require.Equal(t, uint32(1), v.read(0, 12))
	bus.Store(v.table+12, []byte{0, 0, 0, 0, 8, 0, 0, 0}) // two entries in one
	require.Zero(t, v.read(0, 12))
	require.Equal(t, uint32(8), v.read(1, 0))
	bus.Store(v.pba, []byte{0xff, 0xff, 0xff, 0xff})
	require.False(t, v.pending(0), "read-only")
	p := []byte{1, 2, 3, 4}
	bus.Load(v.pba+256, p)
	require.Equal(t, make([]byte, 4), p)
}

func TestMSIXBarSize(t *testing.T) {
	for n, want := range map[int]uint64{1: 4096, 128: 4096, 129: 8192, 256: 8192, 257: 16384, MaxVectors: 65536} {
		require.Equal(t, want, MSIXBarSize(n), "%d", n)
	}
	for n := 1; n <= MaxVectors; n++ {
		size := MSIXBarSize(n)
		require.Equal(t, 1, bits.OnesCount64(size))
		require.LessOrEqual(t, uint64(16*n), pendingOffset(n))
		require.LessOrEqual(t, pendingOffset(n)+uint64((n+63)/64*8), size)
		require.Zero(t, pendingOffset(n)%8)
	}
}

// The vectors behave as PCI 3.0 §6.8.3.5 says, whatever order things come in.
func TestMSIXAgainstModel(t *testing.T) {
	const n = 3
	rapid.Check(t, func(rt *rapid.T) {
		f, v, s := newVectors(t, n)
		v.command(CommandMemory)
		var enabled, all, master bool
		var masked, pending [n]bool
		for i := range masked {
			v.message(i, lapic, uint32(i))
			masked[i] = true
		}
		for range rapid.IntRange(1, 40).Draw(rt, "steps") {
			i := rapid.IntRange(0, n-1).Draw(rt, "vector")
			on := rapid.Bool().Draw(rt, "on")
			open := func(i int) bool { return enabled && master && !all && !masked[i] }
			var want []uint32
			switch rapid.SampledFrom([]string{"trigger", "trigger", "mask", "mask all", "enable", "master"}).Draw(rt, "do") {
			case "trigger":
				require.Equal(rt, enabled, f.Trigger(i))
				if open(i) {
					want = append(want, uint32(i))
				} else {
					pending[i] = enabled
				}
			case "mask":
				masked[i] = on
				v.mask(i, on)
			case "mask all":
				all = on
			case "enable":
				enabled = on
			case "master":
				master = on
				v.command(CommandMemory)
				if on {
					v.command(CommandMemory | CommandBusMaster)
				}
			}
			var control uint16
			if enabled {
				control |= msixEnable
			} else {
				pending = [n]bool{}
			}
			if all {
				control |= msixMaskAll
			}
			v.control(control)
			require.Equal(rt, control|n-1, v.r16(dev, v.cap+2))
			for i := range n {
				if pending[i] && open(i) {
					pending[i] = false
					want = append(want, uint32(i))
				}
			}
			require.Equal(rt, want, s.take())
			for i := range n {
				require.Equal(rt, pending[i], v.pending(i))
				require.Equal(rt, masked[i], v.read(i, entryControl) == 1)
			}
		}
	})
}
