package qcow2

import (
	"encoding/binary"
	"fmt"
)

// refcountAt reads the reference count of cluster i of a block
// (docs/interop/qcow2.txt, "Host cluster management").
func refcountAt(block []byte, order uint32, i int64) uint64 {
	switch order {
	case 3:
		return uint64(block[i])
	case 4:
		return uint64(binary.BigEndian.Uint16(block[i*2:]))
	case 5:
		return uint64(binary.BigEndian.Uint32(block[i*4:]))
	case 6:
		return binary.BigEndian.Uint64(block[i*8:])
	}
	// Several to a byte, the first in the lowest bits.
	bit := i << order
	return uint64(block[bit/8]>>(bit%8)) & (1<<(1<<order) - 1)
}

// setRefcount writes it; v fits, being 0, 1, or less than it was.
func setRefcount(block []byte, order uint32, i int64, v uint64) {
	switch order {
	case 3:
		block[i] = byte(v)
	case 4:
		binary.BigEndian.PutUint16(block[i*2:], uint16(v))
	case 5:
		binary.BigEndian.PutUint32(block[i*4:], uint32(v))
	case 6:
		binary.BigEndian.PutUint64(block[i*8:], v)
	default:
		bit := i << order
		mask := byte(1<<(1<<order)-1) << (bit % 8)
		block[bit/8] = block[bit/8]&^mask | byte(v)<<(bit%8)&mask
	}
}

// setRef sets the reference count of a cluster in its block t.
func (q *Image) setRef(t *table, cluster int64, v uint64) {
	i := cluster % q.blockEntries
	setRefcount(t.data, q.refcountOrder, i, v)
	t.mark(i << q.refcountOrder / 8)
}

// checkRefTable refuses a refcount table that would have blocks in places where
// there can be none, or the same block twice. So going through all blocks takes
// no longer than reading the file.
func (q *Image) checkRefTable() error {
	seen := map[uint64]bool{}
	for i := range int64(len(q.refs.data) / 8) {
		e := q.refs.entry(i)
		if e == 0 {
			continue
		}
		if e&uint64(q.clusterSize-1) != 0 || e >= uint64(q.fileEnd) || seen[e] {
			return fmt.Errorf("%w: entry %d of the refcount table is %#x; repair it with: qemu-img check -r all", ErrCorrupt, i, e)
		}
		seen[e] = true
	}
	return nil
}

// block returns refcount block i, or nil if the file has none: then all its
// counts are zero. mu is held.
func (q *Image) block(i int64) (*table, error) {
	if t := q.blocks.get(i); t != nil {
		return t, nil
	}
	off := q.refs.entry(i)
	if off == 0 {
		return nil, nil
	}
	if !q.blocks.room() {
		return nil, q.needCommit()
	}
	t := newTable(i, int64(off), q.clusterSize)
	if err := q.file.ReadAt([][]byte{t.data}, t.off); err != nil {
		return nil, fmt.Errorf("refcount block %d: %w", i, err)
	}
	q.blocks.add(t)
	return t, nil
}

// newBlock makes refcount block i. It lies in the first of the clusters that it
// counts, all of which are free. mu is held.
func (q *Image) newBlock(i int64) (*table, error) {
	if !q.blocks.room() {
		return nil, q.needCommit()
	}
	home := extent{i * q.blockEntries, 1}
	if err := q.checkFree(home); err != nil {
		return nil, err
	}
	t := newTable(i, home.first<<q.clusterBits, q.clusterSize)
	t.fresh = true
	t.markAll()
	setRefcount(t.data, q.refcountOrder, 0, 1)
	q.blocks.add(t)
	q.refs.set(i, uint64(t.off))
	q.used(home)
	return t, nil
}

// alloc takes up to n clusters that lie side by side, and counts one reference
// to each. fresh tells that they hold zeroes, being behind everything that was
// ever written. mu is held.
func (q *Image) alloc(n int64) (got extent, fresh bool, err error) {
	if q.broken != nil {
		return extent{}, false, q.broken
	}
	for c := q.hint; ; {
		if c >= maxHostOffset>>q.clusterBits {
			return extent{}, false, fmt.Errorf("the image is full: its clusters end at %#x", int64(maxHostOffset))
		}
		i := c / q.blockEntries
		if i >= int64(len(q.refs.data)/8) {
			return extent{}, false, q.needGrowth()
		}
		t, err := q.block(i)
		if err == nil && t == nil {
			t, err = q.newBlock(i)
		}
		if err != nil {
			return extent{}, false, err
		}
		end := (i + 1) * q.blockEntries
		for c < end && refcountAt(t.data, q.refcountOrder, c%q.blockEntries) != 0 {
			c++
		}
		q.hint = c
		if c == end {
			continue
		}
		got.first = c
		for got.n < n && c < end && refcountAt(t.data, q.refcountOrder, c%q.blockEntries) == 0 {
			got.n++
			c++
		}
		if err := q.checkFree(got); err != nil {
			return extent{}, false, err
		}
		for c := got.first; c < got.end(); c++ {
			q.setRef(t, c, 1)
		}
		q.hint = got.end()
		return got, q.used(got), nil
	}
}

// used notes that clusters will be written, and tells whether they lie behind
// everything that was. mu is held.
func (q *Image) used(e extent) (fresh bool) {
	fresh = e.first<<q.clusterBits >= q.fileEnd
	q.fileEnd = max(q.fileEnd, e.end()<<q.clusterBits)
	return fresh
}

// checkFree refuses to hand out clusters that hold metadata, whatever their
// reference counts say: they are then wrong. mu is held.
func (q *Image) checkFree(e extent) error {
	for _, m := range []struct {
		name   string
		off, n int64
	}{
		{"the header", 0, 1},
		{"the L1 table", q.l1.off, int64(len(q.l1.data))},
		{"the refcount table", q.refs.off, int64(len(q.refs.data))},
		{"the snapshot table", q.snapshotsOffset, min(q.snapshotsOffset, 1)},
	} {
		if m.n > 0 && e.first<<q.clusterBits < m.off+m.n && m.off < e.end()<<q.clusterBits {
			return fmt.Errorf("%w: %s lies in clusters that are counted as free; repair it with: qemu-img check -r all", ErrCorrupt, m.name)
		}
	}
	return nil
}

// retire lets go of clusters that nothing in memory points to any more. They
// are free when the file does not point to them either. mu is held.
func (q *Image) retire(e extent) {
	if e.n == 0 {
		return
	}
	if n := len(q.freeing); n > 0 && q.freeing[n-1].end() == e.first {
		q.freeing[n-1].n += e.n
		return
	}
	q.freeing = append(q.freeing, e)
}

// maxFreeing bounds the list of clusters that wait to be free.
const maxFreeing = 1 << 16

// drop gives back clusters that were allocated, and which nothing ever pointed
// to. mu is held.
func (q *Image) drop(e extent) {
	for ; e.n > 0; e = (extent{e.first + 1, e.n - 1}) {
		t := q.blocks.get(e.first / q.blockEntries)
		if t == nil { // not worth reading it
			q.retire(e)
			return
		}
		q.setRef(t, e.first, 0)
		q.hint = min(q.hint, e.first)
	}
}

// unreference drops one reference to each cluster of e that has one, until a
// block cannot be read. It returns what is left to do. mu is held.
func (q *Image) unreference(e extent) (extent, error) {
	for ; e.n > 0; e = (extent{e.first + 1, e.n - 1}) {
		n, t, err := q.refcount(e.first)
		if err != nil {
			return e, err
		}
		if n == 0 {
			if !q.warned {
				q.warned = true
				q.log.Warn("qcow2 image: a cluster in use is counted as free; check it with: qemu-img check",
					"cluster", fmt.Sprintf("%#x", e.first<<q.clusterBits))
			}
			continue
		}
		q.setRef(t, e.first, n-1)
		if n == 1 {
			q.hint = min(q.hint, e.first)
		}
	}
	return e, nil
}

// refcount returns a cluster's reference count, and the block that holds it, if
// there is one. mu is held.
func (q *Image) refcount(cluster int64) (uint64, *table, error) {
	i := cluster / q.blockEntries
	if i >= int64(len(q.refs.data)/8) {
		return 0, nil, nil
	}
	t, err := q.block(i)
	if err != nil || t == nil {
		return 0, nil, err
	}
	return refcountAt(t.data, q.refcountOrder, cluster%q.blockEntries), t, nil
}
