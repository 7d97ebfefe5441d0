package qcow2

import (
	"container/list"
	"encoding/binary"
	"math/bits"
)

// page is the unit in which changes of a table are written.
const page = 4096

// A table is a piece of metadata in memory: an L2 table, a refcount block, or
// the whole of the L1 or refcount table, as it is in the file (big endian).
type table struct {
	index int64  // in the table above it
	off   int64  // in the file
	data  []byte // its length is a multiple of 8
	dirty []uint64
	fresh bool // nothing in the file points to it yet
	pins  int  // users that must find it in memory

	writing bool // changes are on their way into the file
	place   *list.Element
}

func newTable(index, off, size int64) *table {
	pages := (size + page - 1) / page
	return &table{index: index, off: off, data: make([]byte, size), dirty: make([]uint64, (pages+63)/64)}
}

func (t *table) entry(i int64) uint64 { return binary.BigEndian.Uint64(t.data[i*8:]) }

func (t *table) set(i int64, v uint64) {
	binary.BigEndian.PutUint64(t.data[i*8:], v)
	t.mark(i * 8)
}

// mark notes that the byte at off was changed.
func (t *table) mark(off int64) { t.dirty[off/page/64] |= 1 << (off / page % 64) }

func (t *table) markAll() {
	for off := int64(0); off < int64(len(t.data)); off += page {
		t.mark(off)
	}
}

func (t *table) clean() bool {
	for _, w := range t.dirty {
		if w != 0 {
			return false
		}
	}
	return true
}

// take copies what is dirty into writes, one for each run of pages, and makes
// the table clean.
func (t *table) take(to []write) []write {
	var run *write
	for i, w := range t.dirty {
		t.dirty[i] = 0
		for ; w != 0; w &= w - 1 {
			at := int64(i*64+bits.TrailingZeros64(w)) * page
			p := t.data[at:min(at+page, int64(len(t.data)))]
			if run == nil || run.off+int64(len(run.data)) != t.off+at {
				to = append(to, write{off: t.off + at})
				run = &to[len(to)-1]
			}
			run.data = append(run.data, p...)
		}
	}
	return to
}

// A write is bytes that have their place in the file.
type write struct {
	off  int64
	data []byte
}

// A cache holds a bounded number of tables, the least recently used at the back.
type cache struct {
	tables map[int64]*table
	recent *list.List
	limit  int
}

func newCache(limit int) *cache {
	return &cache{tables: map[int64]*table{}, recent: list.New(), limit: limit}
}

// get returns the table if it is in memory, and nil if not.
func (c *cache) get(index int64) *table {
	t := c.tables[index]
	if t != nil {
		c.recent.MoveToFront(t.place)
	}
	return t
}

func (c *cache) add(t *table) {
	t.place = c.recent.PushFront(t)
	c.tables[t.index] = t
}

// room makes room for one more table. It returns false if tables must be
// written first. Pinned tables are few, one for each request at work at most: the cache
// grows beyond its limit by them rather than wait for them.
func (c *cache) room() bool {
	const look = 64 // a commit cleans all of them, so looking further is not worth it
	dirty := false
	e := c.recent.Back()
	for i := 0; len(c.tables) >= c.limit && e != nil && i < look; i++ {
		t := e.Value.(*table)
		e = e.Prev()
		switch {
		case t.pins > 0:
		case t.writing || !t.clean():
			dirty = true
		default:
			c.recent.Remove(t.place)
			delete(c.tables, t.index)
		}
	}
	return len(c.tables) < c.limit || !dirty
}
