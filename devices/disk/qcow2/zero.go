package qcow2

import "errors"

// Discard lets go of what the disk holds in the n bytes from off on. Whole
// clusters read as zeroes afterwards, except where the image held nothing, and
// the backing file shows, and in a version 2 image with a backing file, which cannot
// say so. Clusters that are discarded in part keep what they hold.
func (q *Image) Discard(off, n int64) error {
	if err := q.check("discard", off, n, true); err != nil {
		return err
	}
	first, end := q.wholeClusters(off, n)
	return q.eachTable(first, end, func(e extent) (int64, error) {
		return q.change(e, false, func(c int64, k kind, e uint64) (uint64, bool) {
			switch {
			case k == kindAbsent, k == kindZero && e&entryOffset == 0:
				return e, false
			case q.version >= 3:
				return entryZero, true
			}
			return 0, q.backed(c<<q.clusterBits) == 0
		})
	})
}

// WriteZeroes makes the n bytes from off on zero. mayUnmap allows to give up
// their space.
func (q *Image) WriteZeroes(off, n int64, mayUnmap bool) error {
	if err := q.check("write zeroes", off, n, true); err != nil {
		return err
	}
	first, end := q.wholeClusters(off, n)
	if first >= end {
		return q.writeZeroBytes(off, n)
	}
	head, tail := first<<q.clusterBits, min(end<<q.clusterBits, off+n)
	if err := q.writeZeroBytes(off, head-off); err != nil {
		return err
	}
	if err := q.zeroClusters(first, end, mayUnmap); err != nil {
		return err
	}
	return q.writeZeroBytes(tail, off+n-tail)
}

// zeroClusters makes whole clusters zero without writing them, where the format can.
func (q *Image) zeroClusters(first, end int64, mayUnmap bool) error {
	return q.eachTable(first, end, func(e extent) (int64, error) {
		if q.version < 3 && q.backed(e.first<<q.clusterBits) > 0 {
			// Only bytes can hide the backing file.
			return 1, errWriteBytes
		}
		return q.change(e, true, func(c int64, k kind, e uint64) (uint64, bool) {
			switch {
			case k == kindAbsent && q.backed(c<<q.clusterBits) == 0:
				return e, false
			case q.version < 3:
				return 0, true
			case k == kindZero && (e&entryOffset == 0 || !mayUnmap):
				return e, false
			case inPlace(k, e) && !mayUnmap:
				return e | entryZero, true // keeps its place
			}
			return entryZero, true
		})
	})
}

// errWriteBytes says that a cluster can only be made zero by writing it.
var errWriteBytes = errors.New("zeroes must be written")

// wholeClusters returns the clusters that lie in a range. The last of the disk
// counts as whole up to the disk's end.
func (q *Image) wholeClusters(off, n int64) (first, end int64) {
	first = off >> q.clusterBits
	if off&(q.clusterSize-1) != 0 {
		first++
	}
	end = (off + n) >> q.clusterBits
	if off+n == q.size && q.size&(q.clusterSize-1) != 0 {
		end++
	}
	return first, end
}

// eachTable calls f for clusters first to end, cut at the bounds of L2 tables,
// until it has done them all.
func (q *Image) eachTable(first, end int64, f func(extent) (int64, error)) error {
	for first < end {
		e := extent{first, min(end-first, q.l2Entries-first%q.l2Entries)}
		n, err := q.step(func() (int64, error) { return f(e) })
		if err == errWriteBytes { //nolint:errorlint // never wrapped
			n = 1
			off := first << q.clusterBits
			err = q.writeZeroBytes(off, min(q.clusterSize, q.size-off))
		}
		if err != nil {
			return err
		}
		first += n
	}
	return nil
}

// change gives each cluster of e, which are in one L2 table, the entry that next
// says, and lets go of what the old one held. An answer of false leaves it as it
// is. hide tells that next may hide what the backing file holds.
func (q *Image) change(e extent, hide bool, next func(c int64, k kind, e uint64) (uint64, bool)) (int64, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if b := q.busy(e); b != nil {
		return 0, waitFor(b)
	}
	if len(q.freeing) >= maxFreeing {
		return 0, q.needCommit()
	}
	i, j := e.first/q.l2Entries, e.first%q.l2Entries
	t, err := q.l2(i)
	if err != nil {
		return 0, err
	}
	if t == nil && (!hide || q.backed(e.first<<q.clusterBits) == 0) {
		return e.n, nil
	}
	owned := false
	for n := range e.n {
		var old uint64
		if t != nil {
			old = t.entry(j + n)
		}
		k, err := q.kindOf(old)
		if err != nil {
			return 0, err
		}
		v, ok := next(e.first+n, k, old)
		if !ok {
			continue
		}
		if !owned {
			if t, err = q.ownL2(i); err != nil {
				return 0, err
			}
			owned = true
		}
		t.set(j+n, v)
		if v&entryOffset == 0 {
			q.retire(q.hostClusters(old))
		}
	}
	return e.n, nil
}

// writeZeroBytes writes zeroes where something else can be read.
func (q *Image) writeZeroBytes(off, n int64) error {
	for n > 0 {
		q.mu.Lock()
		s, err := q.lookup(off, n)
		q.mu.Unlock()
		var v [][]byte
		switch {
		case err != nil:
			// WriteAt meets it again, and knows how to wait.
			s.n = min(n, q.clusterSize)
			fallthrough
		case s.kind == kindData, s.kind == kindCompressed, s.kind == kindAbsent && q.backed(off) > 0:
			const most = 256
			s.n = min(s.n, most<<q.clusterBits)
			for left := s.n; left > 0; left -= q.clusterSize {
				v = append(v, q.zeroes[:min(left, q.clusterSize)])
			}
			if err := q.WriteAt(v, off); err != nil {
				return err
			}
		}
		off += s.n
		n -= s.n
	}
	return nil
}
