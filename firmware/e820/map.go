package e820

import "slices"

// What a PC keeps for itself below 1 MiB: the KiB at the end of the low 640
// where a BIOS has its extended data area, the window of the video adapter,
// and the ROMs, in which kernels look for the roots of firmware tables.
const (
	legacyStart = 0x9FC00
	legacyEnd   = 0x100000
)

// highStart is where RAM goes on above the hole that ends at 4 GiB.
const highStart = 1 << 32

// PC is the map of a PC with low bytes of RAM from address 0 and high bytes
// from 4 GiB, either of which may be 0. Between them is the hole for devices,
// which is not listed. What lies below 1 MiB and is not RAM on a PC is
// reserved; more lies on top of all that, and takes its place.
func PC(low, high uint64, more ...Entry) []Entry {
	return Map(append([]Entry{
		{0, low, RAM},
		{highStart, high, RAM},
		{legacyStart, legacyEnd - legacyStart, Reserved},
	}, more...)...)
}

// Map lays ranges over each other, the later ones on top, and returns what is
// seen from above: in order of address, without overlaps, touching ranges of
// one type joined, empty ones gone. No range may reach past the top of the
// address space.
func Map(layers ...Entry) []Entry {
	edges := make([]uint64, 0, 2*len(layers))
	for _, l := range layers {
		edges = append(edges, l.Addr, l.End())
	}
	slices.Sort(edges)
	edges = slices.Compact(edges)

	// Between two neighbouring edges there is one type, or nothing.
	var m []Entry
	for i := 1; i < len(edges); i++ {
		start, end := edges[i-1], edges[i]
		top := topmost(layers, start)
		if top == nil {
			continue
		}
		if n := len(m); n > 0 && m[n-1].End() == start && m[n-1].Type == top.Type {
			m[n-1].Size += end - start
			continue
		}
		m = append(m, Entry{start, end - start, top.Type})
	}
	return m
}

// topmost is the last layer that holds addr, nil when none does.
func topmost(layers []Entry, addr uint64) *Entry {
	for i := len(layers) - 1; i >= 0; i-- {
		if l := &layers[i]; l.Addr <= addr && addr < l.End() {
			return l
		}
	}
	return nil
}
