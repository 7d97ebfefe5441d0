package qcow2

import "fmt"

// A span is a run of guest bytes that are all in the same kind of place.
type span struct {
	kind  kind
	n     int64  // bytes
	host  int64  // kindData: where the first byte is in the file
	entry uint64 // kindCompressed
}

// index says which entry of which L2 table is that of the cluster at off.
func (q *Image) index(off int64) (l1, l2 int64) {
	c := off >> q.clusterBits
	return c / q.l2Entries, c % q.l2Entries
}

// l2 returns L2 table i, or nil if there is none. mu is held.
func (q *Image) l2(i int64) (*table, error) {
	if t := q.l2s.get(i); t != nil {
		return t, nil
	}
	e := q.l1.entry(i)
	off := int64(e & entryOffset)
	if off == 0 {
		return nil, nil
	}
	if off&(q.clusterSize-1) != 0 {
		return nil, fmt.Errorf("%w: L1 entry %d is %#x, not aligned to a cluster", ErrCorrupt, i, e)
	}
	if !q.l2s.room() {
		return nil, q.needCommit()
	}
	t := newTable(i, off, q.clusterSize)
	if err := q.file.ReadAt([][]byte{t.data}, t.off); err != nil {
		return nil, fmt.Errorf("L2 table %d: %w", i, err)
	}
	q.l2s.add(t)
	return t, nil
}

// lookup finds the first of the n bytes from off on, and as many as lie behind
// it in the same way, within one L2 table. mu is held.
func (q *Image) lookup(off, n int64) (span, error) {
	i, j := q.index(off)
	skip := off & (q.clusterSize - 1)
	limit := min(n, (q.l2Entries-j)<<q.clusterBits-skip)
	t, err := q.l2(i)
	if err != nil {
		return span{}, err
	}
	if t == nil {
		return span{kind: kindAbsent, n: limit}, nil
	}
	e := t.entry(j)
	k, err := q.kindOf(e)
	if err != nil {
		return span{}, err
	}
	s := span{kind: k, n: q.clusterSize - skip, entry: e}
	if k == kindData {
		s.host = int64(e&entryOffset) + skip
	}
	for ; k != kindCompressed && s.n < limit; s.n += q.clusterSize {
		j++
		if !q.continues(s, t.entry(j)) {
			break
		}
	}
	s.n = min(s.n, limit)
	return s, nil
}

// continues tells whether the cluster of entry e belongs to the span before it. An
// entry that is wrong does not: that is the next span's business.
func (q *Image) continues(s span, e uint64) bool {
	kind, err := q.kindOf(e)
	return err == nil && kind == s.kind && (kind != kindData || int64(e&entryOffset) == s.host+s.n)
}
