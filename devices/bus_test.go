package devices_test

import (
	"bytes"
	"fmt"
	"math"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/huskvm/husk/devices"
)

// recorder answers a load with its offsets, and notes every access.
type recorder struct {
	log []string
}

func (r *recorder) Load(off uint64, p []byte) {
	r.log = append(r.log, fmt.Sprintf("load %d+%d", off, len(p)))
	for i := range p {
		p[i] = byte(off) + byte(i)
	}
}

func (r *recorder) Store(off uint64, p []byte) {
	r.log = append(r.log, fmt.Sprintf("store %d %x", off, p))
}

func TestBusMapRefuses(t *testing.T) {
	for _, tt := range []struct {
		name       string
		base, size uint64
		says       string
	}{
		{"empty", 0x10, 0, "size is 0"},
		{"wrap", math.MaxUint64, 2, "passes the end"},
		{"same", 0x3f8, 8, "overlaps serial at 0x3f8-0x3ff"},
		{"head", 0x3f0, 9, "overlaps serial"},
		{"tail", 0x3ff, 8, "overlaps serial"},
		{"inside", 0x3fa, 1, "overlaps serial"},
		{"around", 0, 0x1000, "overlaps"},
		{"around the last", 0x600, math.MaxUint64 - 0x600 + 1, "overlaps top"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := devices.NewBus("pio")
			require.NoError(t, b.Map("serial", 0x3f8, 8, &recorder{}))
			require.NoError(t, b.Map("low", 0x3e0, 8, &recorder{}))
			require.NoError(t, b.Map("top", math.MaxUint64, 1, &recorder{}))
			before := b.Ranges()
			err := b.Map("new", tt.base, tt.size, &recorder{})
			require.ErrorIs(t, err, devices.ErrMap)
			require.ErrorContains(t, err, tt.says)
			require.ErrorContains(t, err, "pio: ")
			require.ErrorContains(t, err, "new")
			require.Equal(t, before, b.Ranges())
		})
	}
}

func TestBusRangesAreSorted(t *testing.T) {
	b := devices.NewBus("mmio")
	require.Empty(t, b.Ranges())
	for _, base := range []uint64{0x300, 0x100, 0x200} {
		require.NoError(t, b.Map("d", base, 0x100, &recorder{}))
	}
	require.Equal(t, []devices.Range{
		{Name: "d", Base: 0x100, Size: 0x100},
		{Name: "d", Base: 0x200, Size: 0x100},
		{Name: "d", Base: 0x300, Size: 0x100},
	}, b.Ranges())
}

func TestBusAccess(t *testing.T) {
	for _, tt := range []struct {
		name string
		addr uint64
		n    int
		want []byte
		a, b []string
	}{
		{"whole", 0x100, 4, []byte{0, 1, 2, 3}, []string{"load 0+4"}, nil},
		{"inside", 0x102, 2, []byte{2, 3}, []string{"load 2+2"}, nil},
		{"unclaimed", 0x200, 8, bytes.Repeat([]byte{0xff}, 8), nil, nil},
		{"just below", 0xff, 1, []byte{0xff}, nil, nil},
		{"from one into the next", 0x103, 2, []byte{3, 0}, []string{"load 3+1"}, []string{"load 0+1"}},
		{"into a gap", 0x107, 2, []byte{3, 0xff}, nil, []string{"load 3+1"}},
		{"out of a gap", 0xfe, 4, []byte{0xff, 0xff, 0, 1}, []string{"load 0+1", "load 1+1"}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bus := devices.NewBus("pio")
			var a, b recorder
			require.NoError(t, bus.Map("b", 0x104, 4, &b))
			require.NoError(t, bus.Map("a", 0x100, 4, &a))
			got := make([]byte, tt.n)
			bus.Load(tt.addr, got)
			require.Equal(t, tt.want, got)
			require.Equal(t, tt.a, a.log)
			require.Equal(t, tt.b, b.log)
		})
	}
}

func TestBusStoreSplits(t *testing.T) {
	bus := devices.NewBus("pio")
	var a, b recorder
	require.NoError(t, bus.Map("a", 0x100, 2, &a))
	require.NoError(t, bus.Map("b", 0x103, 2, &b))
	bus.Store(0x101, []byte{1, 2, 3, 4})
	bus.Store(0x100, []byte{5, 6})
	bus.Store(0x200, []byte{7})
	require.Equal(t, []string{"store 1 01", "store 0 0506"}, a.log)
	require.Equal(t, []string{"store 0 03", "store 1 04"}, b.log)
}

// tag is a device whose bytes say which device it is.
type tag byte

func (d tag) Load(_ uint64, p []byte) {
	for i := range p {
		p[i] = byte(d)
	}
}
func (tag) Store(uint64, []byte) {}

// The bus behaves as a table with an owner for each address would.
func TestBusAgainstTable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		bus := devices.NewBus("pio")
		table := bytes.Repeat([]byte{0xff}, 80)
		for id := range rapid.IntRange(0, 20).Draw(t, "devices") {
			base := rapid.IntRange(0, 63).Draw(t, "base")
			size := rapid.IntRange(1, 8).Draw(t, "size")
			free := bytes.Count(table[base:base+size], []byte{0xff}) == size
			err := bus.Map("d", uint64(base), uint64(size), tag(id))
			require.Equal(t, free, err == nil)
			for i := base; free && i < base+size; i++ {
				table[i] = byte(id)
			}
			ranges := bus.Ranges()
			gone := rapid.IntRange(-20, 20).Draw(t, "gone")
			if gone < 0 || gone >= len(ranges) {
				continue
			}
			r := ranges[gone]
			require.NoError(t, bus.Unmap(r.Base))
			for i := range r.Size {
				table[r.Base+i] = 0xff
			}
		}
		addr := rapid.IntRange(0, 71).Draw(t, "addr")
		got := make([]byte, rapid.SampledFrom([]int{1, 2, 4, 8}).Draw(t, "width"))
		bus.Load(uint64(addr), got)
		require.Equal(t, table[addr:addr+len(got)], got)
	})
}

func TestBusUnmap(t *testing.T) {
	bus := devices.NewBus("mmio")
	require.NoError(t, bus.Map("a", 0x100, 0x10, tag(1)))
	require.NoError(t, bus.Map("b", 0x110, 0x10, tag(2)))
	require.NoError(t, bus.Map("top", math.MaxUint64-1, 2, tag(3)))
	before := bus.Ranges()
	for _, base := range []uint64{0, 0xff, 0x101, 0x120, math.MaxUint64} {
		err := bus.Unmap(base)
		require.ErrorIs(t, err, devices.ErrMap)
		require.ErrorContains(t, err, "mmio: ")
		require.ErrorContains(t, err, fmt.Sprintf("%#x", base))
		require.Equal(t, before, bus.Ranges())
	}
	require.NoError(t, bus.Unmap(0x100))
	require.Equal(t, before[1:], bus.Ranges())
	p := make([]byte, 2)
	bus.Load(0x10f, p)
	require.Equal(t, []byte{0xff, 2}, p)
	require.ErrorIs(t, bus.Unmap(0x100), devices.ErrMap)
	require.NoError(t, bus.Map("again", 0x108, 8, tag(4)), "the place is free")
	require.NoError(t, bus.Unmap(math.MaxUint64-1))
	require.NoError(t, bus.Unmap(0x110))
	require.NoError(t, bus.Unmap(0x108))
	require.Empty(t, bus.Ranges())
}

func TestBusMapWhileInUse(t *testing.T) {
	bus := devices.NewBus("mmio")
	require.NoError(t, bus.Map("first", 0, 1, tag(1)))
	done := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			p := make([]byte, 1)
			for {
				bus.Load(0, p)
				if p[0] != 1 {
					t.Errorf("read %#x from the first device", p[0])
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	for i := range uint64(200) {
		require.NoError(t, bus.Map("more", 1+i, 1, tag(2)))
	}
	for i := range uint64(200) {
		require.NoError(t, bus.Unmap(1+(i*7)%200))
	}
	close(done)
	readers.Wait()
}

func pcBus(t testing.TB) *devices.Bus {
	bus := devices.NewBus("pio")
	for i := range uint64(12) {
		require.NoError(t, bus.Map("d", i*0x60, 8, tag(1)))
	}
	return bus
}

func TestBusDoesNotAllocate(t *testing.T) {
	bus := pcBus(t)
	p := make([]byte, 4)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		bus.Load(0x180, p)
		bus.Store(0x180, p)
		bus.Load(0x186, p) // across an end
		bus.Load(0x999, p) // nobody's
	}))
}

func BenchmarkBus(b *testing.B) {
	bus := pcBus(b)
	p := make([]byte, 1)
	b.ReportAllocs()
	for b.Loop() {
		bus.Load(0x3c5, p)
	}
}
