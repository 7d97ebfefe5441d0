package qcow2

import (
	"encoding/binary"
	"fmt"
)

// needGrowth says that the refcount table counts no more clusters. mu is held.
func (q *Image) needGrowth() error {
	seen := len(q.refs.data)
	return &blocked{func() error {
		q.committing.Lock()
		defer q.committing.Unlock()
		// Now the file is what memory says, but for what requests do meanwhile.
		if err := q.commitLocked(); err != nil {
			return err
		}
		q.mu.Lock()
		defer q.mu.Unlock()
		if len(q.refs.data) != seen {
			return nil
		}
		return q.grow()
	}}
}

// grow replaces the refcount table by one of twice the size. It lies, with the
// new blocks that count it, in the first clusters that the old one does not
// count. mu and committing are held.
func (q *Image) grow() error {
	if q.broken != nil {
		return q.broken
	}
	old := q.refs
	size := int64(2 * len(old.data))
	if size > maxRefTable {
		return fmt.Errorf("the image is full: its refcount table has reached %d MiB; convert it to larger clusters with: qemu-img convert", maxRefTable>>20)
	}
	firstBlock := int64(len(old.data) / 8)
	place := extent{firstBlock * q.blockEntries, 0}
	tableClusters := size >> q.clusterBits
	blocks := int64(0)
	for counted := int64(-1); counted != blocks; {
		counted = blocks
		blocks = (tableClusters + counted + q.blockEntries - 1) / q.blockEntries
	}
	place.n = blocks + tableClusters
	if place.end() > maxHostOffset>>q.clusterBits {
		return fmt.Errorf("the image is full: its clusters end at %#x", int64(maxHostOffset))
	}

	t := newTable(0, (place.first+blocks)<<q.clusterBits, size)
	copy(t.data, old.data)
	counts := make([]byte, blocks<<q.clusterBits)
	for i := range place.n {
		setRefcount(counts, q.refcountOrder, i, 1)
	}
	for i := range blocks {
		binary.BigEndian.PutUint64(t.data[(firstBlock+i)*8:], uint64((place.first+i)<<q.clusterBits))
	}
	// A block that is not in the file yet must not be in its table either. The
	// pages it is in are dirty, and stay so.
	inFile := append([]byte(nil), t.data...)
	for _, b := range q.blocks.tables {
		if b.fresh {
			clear(inFile[b.index*8 : b.index*8+8])
		}
	}
	copy(t.dirty, old.dirty)

	q.used(place)
	if err := q.file.WriteAt([][]byte{counts, inFile}, place.first<<q.clusterBits); err != nil {
		return fmt.Errorf("new refcount table: %w", err)
	}
	if err := q.file.Sync(); err != nil {
		return fmt.Errorf("new refcount table: %w", err)
	}
	// Offset and length stand side by side, in one sector.
	var p [hdrSnapshots - hdrRefTableOffset]byte
	binary.BigEndian.PutUint64(p[:], uint64(t.off))
	binary.BigEndian.PutUint32(p[hdrRefTableLength-hdrRefTableOffset:], uint32(tableClusters))
	err := q.file.WriteAt([][]byte{p[:]}, hdrRefTableOffset)
	if err == nil {
		err = q.file.Sync()
	}
	if err != nil {
		q.broken = fmt.Errorf("refcount table in the header: %w; the image takes no new clusters until it is opened again", err)
		return q.broken
	}
	q.refs = t
	q.retire(extent{old.off >> q.clusterBits, int64(len(old.data)) >> q.clusterBits})
	return nil
}
