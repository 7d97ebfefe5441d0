package qcow2

import (
	"fmt"
	"slices"
)

// A blocked is not a failure: the caller lets go of its locks, calls wait, and
// tries again.
type blocked struct{ wait func() error }

func (*blocked) Error() string { return "qcow2: the request must wait" }

// needCommit says that no table can leave memory before a commit. mu is held.
func (q *Image) needCommit() error {
	seen := q.commits
	return &blocked{func() error {
		q.committing.Lock()
		defer q.committing.Unlock()
		q.mu.Lock()
		done := q.commits != seen
		q.mu.Unlock()
		if done { // somebody else's
			return nil
		}
		return q.commitLocked()
	}}
}

// step runs f, which handles one piece of a request and returns how many bytes
// that was, until it is not blocked any more.
func (q *Image) step(f func() (int64, error)) (int64, error) {
	for {
		q.inflight.RLock()
		n, err := f()
		q.inflight.RUnlock()
		b, ok := err.(*blocked) //nolint:errorlint // never wrapped
		if !ok {
			return n, err
		}
		if err := b.wait(); err != nil {
			return 0, err
		}
	}
}

// Flush returns when everything that was written before will survive a crash.
func (q *Image) Flush() error {
	if q.readOnly {
		return nil
	}
	q.committing.Lock()
	q.mu.Lock()
	idle := q.idle()
	q.mu.Unlock()
	if idle {
		q.committing.Unlock()
		return q.file.Sync()
	}
	defer q.committing.Unlock()
	return q.commitLocked()
}

// idle tells that the tables in the file are those in memory. mu is held.
func (q *Image) idle() bool {
	if len(q.freeing) > 0 || !q.l1.clean() || !q.refs.clean() {
		return false
	}
	for _, c := range []*cache{q.l2s, q.blocks} {
		for _, t := range c.tables {
			if !t.clean() {
				return false
			}
		}
	}
	return true
}

func (q *Image) commit() error {
	q.committing.Lock()
	defer q.committing.Unlock()
	return q.commitLocked()
}

// A batch is what one commit writes: a copy, so that requests go on meanwhile.
type batch struct {
	blocks  []write // new refcount blocks
	targets []write // reference counts, the refcount table, new L2 tables
	links   []write // L1 and L2 tables
	data    bool    // guest data goes before links
	freeing []extent
	taken   []taken
	done    int // stages of write that have ended
}

// The stages of a commit.
const (
	stageBlocks = iota
	stageTargets
	stageLinks
)

// A taken is a table whose changes are in a batch.
type taken struct {
	table *table
	dirty []uint64
	fresh bool
	stage int // that writes it
}

// commitLocked writes the tables, in an order that is valid wherever it ends,
// and then frees what nothing points to any more. committing is held.
func (q *Image) commitLocked() error {
	q.mu.Lock()
	if q.broken != nil {
		defer q.mu.Unlock()
		return q.broken
	}
	b := q.collect()
	q.mu.Unlock()

	err := q.write(b)

	q.mu.Lock()
	q.settle(b, err)
	q.mu.Unlock()
	if err != nil {
		return err
	}
	q.free(b.freeing)
	return nil
}

// collect takes all changes. mu is held.
func (q *Image) collect() *batch {
	b := &batch{data: q.dataFirst, freeing: q.freeing}
	q.dataFirst, q.freeing = false, nil
	writes := [...]*[]write{stageBlocks: &b.blocks, stageTargets: &b.targets, stageLinks: &b.links}
	take := func(t *table, stage int) {
		if t.clean() {
			return
		}
		if t.fresh {
			stage-- // nothing points to it, so it goes before what will
		}
		b.taken = append(b.taken, taken{t, slices.Clone(t.dirty), t.fresh, stage})
		t.writing, t.fresh = true, false
		*writes[stage] = t.take(*writes[stage])
	}
	for _, t := range q.blocks.tables {
		take(t, stageTargets)
	}
	take(q.refs, stageTargets)
	for _, t := range q.l2s.tables {
		take(t, stageLinks)
	}
	take(q.l1, stageLinks)
	return b
}

// write writes the batch. Each fence keeps what follows from reaching the disk
// before what it points to.
func (q *Image) write(b *batch) error {
	stages := [...]struct {
		name   string
		writes []write
		fence  bool
	}{
		stageBlocks:  {"refcount blocks", b.blocks, len(b.blocks) > 0},
		stageTargets: {"reference counts", b.targets, len(b.links) > 0 && (b.data || len(b.targets) > 0)},
		stageLinks:   {"L2 tables", b.links, true},
	}
	for _, s := range stages {
		for _, w := range s.writes {
			if err := q.file.WriteAt([][]byte{w.data}, w.off); err != nil {
				return fmt.Errorf("write %s: %w", s.name, err)
			}
		}
		if s.fence {
			if err := q.file.Sync(); err != nil {
				return fmt.Errorf("sync %s: %w", s.name, err)
			}
		}
		b.done++
	}
	return nil
}

// settle ends a commit. After a failure, everything is as changed as it was
// before. mu is held.
func (q *Image) settle(b *batch, err error) {
	for _, u := range b.taken {
		u.table.writing = false
		if err != nil {
			// Once its stage has ended, the file may point to it.
			u.table.fresh = u.table.fresh || u.fresh && b.done <= u.stage
			for i, w := range u.dirty {
				u.table.dirty[i] |= w
			}
		}
	}
	if err != nil {
		q.dataFirst = q.dataFirst || b.data
		q.freeing = append(b.freeing, q.freeing...)
		return
	}
	q.commits++
}

// free drops the references to clusters that the file does not point to any
// more, since a fence. committing is held.
func (q *Image) free(es []extent) {
	if len(es) == 0 {
		return
	}
	// A request that began before the clusters were unmapped may still use them.
	q.inflight.Lock()
	q.inflight.Unlock() //nolint:staticcheck // a barrier
	if q.punch {
		q.punchHoles(es)
	}
	for i, e := range es {
		q.mu.Lock()
		left, err := q.unreference(e)
		_, full := err.(*blocked) //nolint:errorlint // never wrapped
		if full {
			// Memory is full of tables to be written: the next commit goes on.
			q.freeing = append(append(q.freeing, left), es[i+1:]...)
		}
		q.mu.Unlock()
		if full {
			return
		}
		if err != nil {
			q.log.Warn("qcow2 image: clusters are lost until: qemu-img check -r leaks", "clusters", left.n, "error", err)
		}
	}
}

// punchHoles gives back the space of clusters that are about to be free. They
// are still counted, so nobody else can get them. Failures cost space only.
func (q *Image) punchHoles(es []extent) {
	for _, e := range es {
		var hole extent
		for c := e.first; c <= e.end(); c++ {
			last := false
			if c < e.end() {
				q.mu.Lock()
				n, _, err := q.refcount(c)
				q.mu.Unlock()
				last = err == nil && n == 1
			}
			if last && hole.n > 0 {
				hole.n++
				continue
			}
			if hole.n > 0 {
				_ = q.file.PunchHole(hole.first<<q.clusterBits, hole.n<<q.clusterBits)
			}
			hole = extent{}
			if last {
				hole = extent{c, 1}
			}
		}
	}
}
