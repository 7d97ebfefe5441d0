package e820

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

const (
	kib = 1 << 10
	mib = 1 << 20
	gib = 1 << 30
)

func TestPC(t *testing.T) {
	tables := Entry{0xE0000, 4 * kib, ACPI}
	for _, tt := range []struct {
		name      string
		low, high uint64
		more      []Entry
		want      []Entry
	}{
		{"small", 16 * mib, 0, nil, []Entry{
			{0, 0x9FC00, RAM}, {0x9FC00, 0x60400, Reserved}, {mib, 15 * mib, RAM},
		}},
		{"beyond 4 GiB", 3 * gib, 2 * gib, []Entry{tables}, []Entry{
			{0, 0x9FC00, RAM},
			{0x9FC00, 0x40400, Reserved},
			tables,
			{0xE1000, 0x1F000, Reserved},
			{mib, 3*gib - mib, RAM},
			{4 * gib, 2 * gib, RAM},
		}},
		{"a range in the hole", 3 * gib, 0, []Entry{{0xE0000000, 256 * mib, Reserved}}, []Entry{
			{0, 0x9FC00, RAM},
			{0x9FC00, 0x60400, Reserved},
			{mib, 3*gib - mib, RAM},
			{0xE0000000, 256 * mib, Reserved},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			require.Equal(t, tt.want, PC(tt.low, tt.high, tt.more...))
		})
	}
}

func TestMap(t *testing.T) {
	for _, tt := range []struct {
		name   string
		layers []Entry
		want   []Entry
	}{
		{"nothing", nil, nil},
		{"empty", []Entry{{5, 0, RAM}}, nil},
		{"empty inside", []Entry{{0, 10, RAM}, {5, 0, Reserved}}, []Entry{{0, 10, RAM}}},
		{"out of order", []Entry{{20, 5, RAM}, {0, 5, ACPI}}, []Entry{{0, 5, ACPI}, {20, 5, RAM}}},
		{"touching of one type", []Entry{{0, 5, RAM}, {5, 5, RAM}}, []Entry{{0, 10, RAM}}},
		{"touching of two types", []Entry{{0, 5, RAM}, {5, 5, ACPI}}, []Entry{{0, 5, RAM}, {5, 5, ACPI}}},
		{"later on top", []Entry{{0, 10, RAM}, {3, 4, ACPI}}, []Entry{{0, 3, RAM}, {3, 4, ACPI}, {7, 3, RAM}}},
		{"earlier below", []Entry{{3, 4, ACPI}, {0, 10, RAM}}, []Entry{{0, 10, RAM}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			require.Equal(t, tt.want, Map(tt.layers...))
		})
	}
}

// The map says of every address what the last range says that holds it, in
// order, without overlaps and in as few entries as can be.
func TestMapProperties(t *testing.T) {
	const space = 64 // small, so that ranges meet, and every address can be tried
	layer := rapid.Custom(func(t *rapid.T) Entry {
		return Entry{
			Addr: rapid.Uint64Range(0, space).Draw(t, "addr"),
			Size: rapid.Uint64Range(0, space/2).Draw(t, "size"),
			Type: rapid.SampledFrom([]Type{RAM, Reserved, ACPI}).Draw(t, "type"),
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		layers := rapid.SliceOfN(layer, 0, 8).Draw(t, "layers")
		m := Map(layers...)

		for i, e := range m {
			require.NotZero(t, e.Size)
			if i == 0 {
				continue
			}
			before := m[i-1]
			require.LessOrEqual(t, before.End(), e.Addr, "sorted, no overlap")
			require.False(t, before.End() == e.Addr && before.Type == e.Type, "joined")
		}

		want, got := map[uint64]Type{}, map[uint64]Type{}
		fill := func(m map[uint64]Type, entries []Entry) {
			for _, e := range entries {
				for a := e.Addr; a < e.End(); a++ {
					m[a] = e.Type
				}
			}
		}
		fill(want, layers)
		fill(got, m)
		require.Equal(t, want, got)
	})
}

// No RAM is lost or invented but for what a PC reserves.
func TestPCSums(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		low := rapid.Uint64Range(8, 1536).Draw(t, "low") * 2 * mib
		high := rapid.Uint64Range(0, 1<<20).Draw(t, "high") * 2 * mib
		var ram uint64
		for _, e := range PC(low, high, Entry{0xE0000, 4 * kib, ACPI}) {
			if e.Type == RAM {
				ram += e.Size
			}
		}
		require.Equal(t, low+high-(legacyEnd-legacyStart), ram)
	})
}
