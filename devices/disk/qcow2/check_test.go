package qcow2

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// A verdict is what a check of an image finds.
type verdict struct {
	errors []string
	leaks  int
}

func (v *verdict) bad(format string, args ...any) {
	v.errors = append(v.errors, fmt.Sprintf(format, args...))
}

// check counts all references in an image, and compares them with its reference
// counts. It is written apart from the code it judges, and shares only the
// header's parser with it.
func check(data []byte) (v verdict) {
	h, err := parseHeader(data)
	if err != nil {
		v.bad("header: %v", err)
		return v
	}
	cs := h.clusterSize()
	at := func(off, n int64) []byte {
		p := make([]byte, n)
		if off < int64(len(data)) {
			copy(p, data[off:])
		}
		return p
	}
	refs := map[int64]uint64{}
	use := func(off, n int64) {
		for c := off / cs; c*cs < off+n; c++ {
			refs[c]++
		}
	}
	use(0, 1)
	use(h.l1Offset, h.l1Entries*8)
	use(h.refTableOffset, h.refTableClusters*cs)

	counts := map[int64]uint64{}
	perBlock := cs * 8 >> h.refcountOrder
	table := at(h.refTableOffset, h.refTableClusters*cs)
	for i := int64(0); i*8 < int64(len(table)); i++ {
		off := int64(binary.BigEndian.Uint64(table[i*8:]))
		if off == 0 {
			continue
		}
		if off%cs != 0 {
			v.bad("refcount table entry %d is %#x", i, off)
			continue
		}
		use(off, cs)
		block := at(off, cs)
		if bytes.Count(block, []byte{0}) == len(block) {
			continue
		}
		for j := range perBlock {
			bits := int64(1) << h.refcountOrder
			var n uint64
			if bits < 8 {
				n = uint64(block[j*bits/8]) >> (j * bits % 8) & (1<<bits - 1)
			} else {
				for _, b := range block[j*bits/8 : (j+1)*bits/8] {
					n = n<<8 | uint64(b)
				}
			}
			if n > 0 {
				counts[i*perBlock+j] = n
			}
		}
	}

	type mapped struct {
		what  string
		entry uint64
	}
	var copied []mapped
	walk := func(what string, l1 []byte, active bool) {
		for i := 0; i*8 < len(l1); i++ {
			e := binary.BigEndian.Uint64(l1[i*8:])
			off := int64(e & 0x00fffffffffffe00)
			if off == 0 {
				continue
			}
			if off%cs != 0 {
				v.bad("%s: L1 entry %d is %#x", what, i, e)
				continue
			}
			use(off, cs)
			if active {
				copied = append(copied, mapped{fmt.Sprintf("L1 entry %d", i), e})
			}
			l2 := at(off, cs)
			for j := int64(0); j < cs/8; j++ {
				e := binary.BigEndian.Uint64(l2[j*8:])
				off := int64(e & 0x00fffffffffffe00)
				switch {
				case e>>62&1 != 0:
					x := 62 - (h.clusterBits - 8)
					off = int64(e & (1<<x - 1))
					sectors := int64(e<<2>>2>>x) + 1
					use(off, off/512*512+sectors*512-off)
					if e>>63 != 0 {
						v.bad("%s: compressed cluster %d/%d is marked as copied", what, i, j)
					}
				case off%cs != 0:
					v.bad("%s: L2 entry %d/%d is %#x", what, i, j, e)
				case off != 0:
					use(off, cs)
					if active {
						copied = append(copied, mapped{fmt.Sprintf("L2 entry %d/%d", i, j), e})
					}
				}
			}
		}
	}
	walk("disk", at(h.l1Offset, h.l1Entries*8), true)
	snap := h.snapshotsOffset
	for range h.snapshots {
		p := at(snap, 40)
		l1, n := int64(binary.BigEndian.Uint64(p)), int64(binary.BigEndian.Uint32(p[8:]))*8
		use(l1, n)
		walk("snapshot", at(l1, n), false)
		snap += 40 + int64(binary.BigEndian.Uint32(p[36:])) + int64(binary.BigEndian.Uint16(p[12:])) + int64(binary.BigEndian.Uint16(p[14:]))
		snap = (snap + 7) &^ 7
	}
	if h.snapshots > 0 {
		use(h.snapshotsOffset, snap-h.snapshotsOffset)
	}
	for c, n := range refs {
		if counts[c] < n {
			v.bad("cluster %#x: refcount %d, references %d", c*cs, counts[c], n)
		}
		v.leaks += int(max(counts[c], n) - n)
	}
	for c, n := range counts {
		if refs[c] == 0 {
			v.leaks += int(n)
		}
	}
	for _, m := range copied {
		c := int64(m.entry&0x00fffffffffffe00) / cs
		if (counts[c] == 1) != (m.entry>>63 == 1) {
			v.bad("%s is %#x, and the refcount %d", m.what, m.entry, counts[c])
		}
	}
	return v
}
