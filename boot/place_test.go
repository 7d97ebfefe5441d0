package boot

import (
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/huskvm/husk/firmware/e820"
)

func TestNewSpace(t *testing.T) {
	ram := func(addr, size uint64) e820.Entry { return e820.Entry{Addr: addr, Size: size, Type: e820.RAM} }
	gone := func(addr, size uint64) e820.Entry { return e820.Entry{Addr: addr, Size: size, Type: e820.Reserved} }
	for name, c := range map[string]struct {
		m    []e820.Entry
		want space
	}{
		"empty":             {nil, nil},
		"of nothing":        {[]e820.Entry{ram(5, 0)}, nil},
		"sorted and merged": {[]e820.Entry{ram(20, 10), ram(0, 10), ram(10, 5), ram(22, 3)}, space{{0, 15}, {20, 30}}},
		"less a hole":       {[]e820.Entry{gone(10, 5), ram(0, 30)}, space{{0, 10}, {15, 30}}},
		"less its ends":     {[]e820.Entry{gone(0, 5), ram(2, 30), gone(30, 90)}, space{{5, 30}}},
		"less all":          {[]e820.Entry{ram(2, 30), gone(0, 90)}, space{}},
		"wrapping":          {[]e820.Entry{ram(math.MaxUint64-9, 100)}, space{{math.MaxUint64 - 9, math.MaxUint64}}},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, c.want, newSpace(c.m)) })
	}
}

// drawMap is a memory map in no order, with overlaps, as it must never come.
func drawMap(t *rapid.T) []e820.Entry {
	page := rapid.Uint64Range(0, fourGiB/pageSize)
	m := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) e820.Entry {
		return e820.Entry{
			Addr: page.Draw(t, "addr") * pageSize,
			Size: page.Draw(t, "size") * pageSize,
			Type: e820.Type(rapid.IntRange(1, 3).Draw(t, "type")),
		}
	}), 0, 8).Draw(t, "map")
	if rapid.Bool().Draw(t, "low memory") {
		m = append(m, e820.Entry{Size: 0x9fc00, Type: e820.RAM})
	}
	return m
}

// Whatever is taken was free, lies inside the limits, is aligned, and is taken
// only once.
func TestSpaceProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		free := newSpace(drawMap(t))
		for range rapid.IntRange(1, 6).Draw(t, "takes") {
			before := append(space(nil), free...)
			size := rapid.Uint64Range(1, 1<<30).Draw(t, "size")
			align := uint64(1) << rapid.IntRange(0, 24).Draw(t, "align")
			lo := rapid.Uint64Range(0, fourGiB).Draw(t, "lo")
			within := span{lo, rapid.Uint64Range(lo, fourGiB).Draw(t, "hi")}
			take := free.lowest
			if rapid.Bool().Draw(t, "high") {
				take = free.highest
			}
			got, ok := take(size, align, within)
			if !ok {
				require.True(t, slices.Equal(before, free))
				continue
			}
			require.Equal(t, size, got.end-got.start)
			require.Zero(t, got.start%align)
			require.True(t, within.start <= got.start && got.end <= within.end)
			require.True(t, before.take(got), "it was free")
			require.True(t, slices.Equal(before, free), "and nothing else is gone")
			require.False(t, free.take(got), "it is free no more")
		}
	})
}

// Placements never overlap, and lie in RAM.
func TestPlacementProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := bzHeader()
		h.PrefAddress = rapid.Uint64Range(oneMiB, 1<<30).Draw(t, "pref_address")
		h.InitSize = rapid.Uint32Range(1, 256<<20).Draw(t, "init_size")
		h.KernelAlignment = 1 << rapid.IntRange(0, 25).Draw(t, "kernel_alignment")
		h.RelocatableKernel = uint8(rapid.IntRange(0, 1).Draw(t, "relocatable"))
		h.InitrdAddrMax = rapid.Uint32Range(oneMiB, math.MaxUint32).Draw(t, "initrd_addr_max")
		k := &bzImage{hdr: h, size: synthKernel}
		r := request{
			kernel: k.place, needs: "room for the kernel", tables: true,
			cmdline:   rapid.Uint64Range(1, 64<<10).Draw(t, "cmdline"),
			initrd:    rapid.Uint64Range(0, 1<<30).Draw(t, "initrd"),
			initrdEnd: uint64(h.InitrdAddrMax) + 1,
		}
		m := drawMap(t)
		l, problem := r.place(newSpace(m))
		if problem != "" {
			return
		}
		free := newSpace(m)
		for _, s := range []span{
			l.kernel,
			{l.gdt, l.gdt + GDTSize},
			{l.info, l.info + infoSize},
			{l.tables, l.tables + tablesSize},
			{l.cmdline, l.cmdline + r.cmdline},
		} {
			require.True(t, free.take(s), "%#x", s)
		}
		require.GreaterOrEqual(t, l.kernel.end-l.kernel.start, uint64(h.InitSize))
		if r.initrd > 0 {
			require.True(t, free.take(l.initrd), "%#x", l.initrd)
			require.Equal(t, r.initrd, l.initrd.end-l.initrd.start)
			require.LessOrEqual(t, l.initrd.end-1, uint64(h.InitrdAddrMax))
			require.Zero(t, l.initrd.start%pageSize)
		}
	})
}
