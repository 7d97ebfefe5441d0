package qcow2

import (
	"fmt"
	"slices"

	"github.com/huskvm/husk/devices/iovec"
)

// WriteAt writes v to the disk from off on.
func (q *Image) WriteAt(v [][]byte, off int64) error {
	n := iovec.Len(v)
	if err := q.check("write", off, n, true); err != nil {
		return err
	}
	for done := int64(0); done < n; {
		wrote, err := q.step(func() (int64, error) {
			return q.writeSpan(iovec.Slice(v, done, n-done), off+done)
		})
		if err != nil {
			return fmt.Errorf("write at %#x: %w", off+done, err)
		}
		done += wrote
	}
	return nil
}

// writeSpan writes the start of v, as far as it goes to one place. inflight is held.
func (q *Image) writeSpan(v [][]byte, off int64) (int64, error) {
	q.mu.Lock()
	s, a, err := q.place(off, iovec.Len(v))
	q.mu.Unlock()
	if err != nil {
		return 0, err
	}
	v = iovec.Slice(v, 0, s.n)
	if a == nil {
		return s.n, q.file.WriteAt(v, s.host)
	}
	err = q.writeNew(a, v, off)
	q.mu.Lock()
	q.finish(a, err)
	q.mu.Unlock()
	return s.n, err
}

// An allocation is a run of guest clusters that are being written to a new
// place. Until that is done, reads find the old one, and whoever wants to
// change the same clusters waits.
type allocation struct {
	guest extent // clusters of the disk
	host  extent // clusters of the file
	reuse bool   // host is what zero clusters have kept for themselves
	fresh bool   // host holds zeroes
	table *table // the L2 table, pinned
	done  chan struct{}
}

// busy returns an allocation at work on one of the clusters, or nil. mu is held.
func (q *Image) busy(e extent) *allocation {
	for _, a := range q.allocations {
		if a.guest.first < e.end() && e.first < a.guest.end() {
			return a
		}
	}
	return nil
}

// waitFor makes a request wait for an allocation.
func waitFor(a *allocation) error {
	return &blocked{func() error { <-a.done; return nil }}
}

// place finds where the first of n bytes at off are to be written, and how many
// go along. With an allocation, they go to new clusters. mu is held.
func (q *Image) place(off, n int64) (span, *allocation, error) {
	s, err := q.lookup(off, n)
	if err != nil {
		return span{}, nil, err
	}
	i, j := q.index(off)
	skip := off & (q.clusterSize - 1)
	if s.kind == kindData {
		if run := q.inPlaceRun(i, j, s.n+skip); run > 0 {
			s.n = min(s.n, run<<q.clusterBits-skip)
			return s, nil, nil
		}
	}
	if len(q.freeing) >= maxFreeing {
		return span{}, nil, q.needCommit()
	}
	a, err := q.allocate(off>>q.clusterBits, (off+n-1)>>q.clusterBits)
	if err != nil {
		return span{}, nil, err
	}
	s.n = min(n, a.guest.n<<q.clusterBits-skip)
	return s, a, nil
}

// inPlaceRun counts the entries from j on that cover n bytes and can be written
// in place. mu is held.
func (q *Image) inPlaceRun(i, j, n int64) int64 {
	t := q.l2s.get(i)
	run := int64(0)
	for run<<q.clusterBits < n && t.entry(j+run)&entryCopied != 0 {
		run++
	}
	return run
}

// allocate prepares the writing of guest clusters first to last, or of fewer.
// mu is held.
func (q *Image) allocate(first, last int64) (*allocation, error) {
	if b := q.busy(extent{first, 1}); b != nil {
		return nil, waitFor(b)
	}
	i, j := first/q.l2Entries, first%q.l2Entries
	t, err := q.ownL2(i)
	if err != nil {
		return nil, err
	}
	a := &allocation{guest: extent{first, 0}, table: t, done: make(chan struct{})}
	limit := min(last-first+1, q.l2Entries-j)
	for n := int64(0); n < limit && q.busy(extent{first + n, 1}) == nil; n++ {
		e := t.entry(j + n)
		k, err := q.kindOf(e)
		if err != nil && n == 0 {
			return nil, err
		}
		if err != nil || inPlace(k, e) {
			break
		}
		keeps := preallocated(k, e) >> q.clusterBits
		if n == 0 && keeps != 0 {
			a.reuse, a.host = true, extent{keeps, 0}
		}
		if a.reuse && keeps != a.host.first+n || !a.reuse && keeps != 0 {
			break
		}
		a.guest.n++
	}
	if a.reuse {
		a.host.n = a.guest.n
	} else {
		a.host, a.fresh, err = q.alloc(a.guest.n)
		if err != nil {
			return nil, err
		}
		a.guest.n = a.host.n
	}
	t.pins++
	q.allocations = append(q.allocations, a)
	return a, nil
}

// ownL2 returns L2 table i so that it may be changed: a new one if there is
// none, a copy if a snapshot shares it. mu is held.
func (q *Image) ownL2(i int64) (*table, error) {
	t, err := q.l2(i)
	if err != nil {
		return nil, err
	}
	if t != nil && q.l1.entry(i)&entryCopied != 0 {
		return t, nil
	}
	if t == nil && !q.l2s.room() {
		return nil, q.needCommit()
	}
	home, _, err := q.alloc(1)
	if err != nil {
		return nil, err
	}
	if t == nil {
		t = newTable(i, 0, q.clusterSize)
		q.l2s.add(t)
	} else {
		q.retire(extent{t.off >> q.clusterBits, 1})
	}
	t.off = home.first << q.clusterBits
	t.fresh = true
	t.markAll()
	q.l1.set(i, uint64(t.off)|entryCopied)
	return t, nil
}

// writeNew writes v, which begins at off, into a's clusters, with what the first
// and the last cluster held around it. inflight is held.
func (q *Image) writeNew(a *allocation, v [][]byte, off int64) error {
	start := a.guest.first << q.clusterBits
	end := a.guest.end() << q.clusterBits
	head, err := q.around(a, start, off)
	if err != nil {
		return err
	}
	defer q.putBuffer(head)
	tail, err := q.around(a, off+iovec.Len(v), end)
	if err != nil {
		return err
	}
	defer q.putBuffer(tail)
	host := a.host.first<<q.clusterBits + off - start
	if head != nil {
		v = slices.Insert(slices.Clone(v), 0, head)
		host -= int64(len(head))
	}
	if tail != nil {
		v = append(slices.Clip(v), tail)
	}
	return q.file.WriteAt(v, host)
}

// around returns the disk's bytes from start to end, less than a cluster, or nil
// if they need not be written. inflight is held.
func (q *Image) around(a *allocation, start, end int64) ([]byte, error) {
	if start == end {
		return nil, nil
	}
	q.mu.Lock()
	s, err := q.lookup(start, end-start)
	q.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if s.kind == kindZero || s.kind == kindAbsent && q.backed(start) == 0 {
		if a.fresh {
			return nil, nil
		}
		return q.zeroes[:end-start], nil
	}
	p, _ := q.buffers.Get().([]byte)
	if p == nil {
		p = make([]byte, q.clusterSize)
	}
	return p[:end-start], q.readAll(p[:end-start], start)
}

func (q *Image) putBuffer(p []byte) {
	if p != nil && &p[0] != &q.zeroes[0] {
		q.buffers.Put(p[:q.clusterSize]) //nolint:staticcheck // a slice header is small beside a cluster
	}
}

// finish ends an allocation: its clusters are where they were written, or, after
// a failure, where they have always been. mu is held.
func (q *Image) finish(a *allocation, err error) {
	j := a.guest.first % q.l2Entries
	switch {
	case err == nil:
		for n := range a.guest.n {
			if !a.reuse {
				q.retire(q.hostClusters(a.table.entry(j + n)))
			}
			a.table.set(j+n, uint64((a.host.first+n)<<q.clusterBits)|entryCopied)
		}
		q.dataFirst = true
	case !a.reuse:
		q.drop(a.host)
	}
	a.table.pins--
	q.allocations = slices.DeleteFunc(q.allocations, func(b *allocation) bool { return a == b })
	close(a.done)
}
