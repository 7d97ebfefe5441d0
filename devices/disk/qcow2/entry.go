package qcow2

import "fmt"

// Bits of L1 and L2 entries (docs/interop/qcow2.txt, "Cluster mapping").
const (
	entryCopied     = 1 << 63 // refcount is exactly one: may be written in place
	entryCompressed = 1 << 62
	entryZero       = 1 << 0 // reads as zeroes, version 3
	entryOffset     = 0x00fffffffffffe00
)

// A kind is where the bytes of a guest cluster are.
type kind uint8

const (
	kindAbsent     kind = iota // in the backing file, or zero
	kindZero                   // nowhere: zeroes
	kindData                   // in a host cluster
	kindCompressed             // packed, in some sectors of the file
)

// kindOf classifies an L2 entry.
func (q *Image) kindOf(e uint64) (kind, error) {
	switch {
	case e&entryCompressed != 0:
		return kindCompressed, nil
	case e&entryOffset&uint64(q.clusterSize-1) != 0:
		return 0, fmt.Errorf("%w: L2 entry %#x is not aligned to a cluster", ErrCorrupt, e)
	case e&entryZero != 0:
		if q.version < 3 {
			return 0, fmt.Errorf("%w: L2 entry %#x has the zero flag in a version 2 image", ErrCorrupt, e)
		}
		return kindZero, nil
	case e&entryOffset == 0:
		return kindAbsent, nil
	}
	return kindData, nil
}

// inPlace tells whether a cluster can be written where it is.
func inPlace(k kind, e uint64) bool { return k == kindData && e&entryCopied != 0 }

// preallocated returns the host cluster that a zero cluster keeps for itself, or 0.
func preallocated(k kind, e uint64) int64 {
	if k == kindZero && e&entryCopied != 0 {
		return int64(e & entryOffset)
	}
	return 0
}

// packed returns where a compressed cluster's bytes are, and how many there are
// at most ("Compressed Clusters Descriptor").
func (q *Image) packed(e uint64) (off, n int64, err error) {
	x := 62 - (q.clusterBits - 8)
	off = int64(e & (1<<x - 1))
	if off >= maxHostOffset {
		return 0, 0, fmt.Errorf("%w: compressed cluster at %#x", ErrCorrupt, off)
	}
	sectors := int64(e >> x & (1<<(q.clusterBits-8) - 1))
	return off, (sectors+1)*512 - off&511, nil
}

// hostClusters returns the host clusters that an L2 entry holds a reference to.
func (q *Image) hostClusters(e uint64) extent {
	if e&entryCompressed != 0 {
		off, n, err := q.packed(e)
		if err != nil {
			return extent{}
		}
		first := off >> q.clusterBits
		return extent{first, (off+n-1)>>q.clusterBits - first + 1}
	}
	if off := e & entryOffset; off != 0 {
		return extent{int64(off) >> q.clusterBits, 1}
	}
	return extent{}
}

// An extent is a run of host clusters, by number.
type extent struct{ first, n int64 }

func (e extent) end() int64 { return e.first + e.n }
