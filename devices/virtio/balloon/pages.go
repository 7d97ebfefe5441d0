package balloon

import (
	"context"
	"encoding/binary"
	"slices"

	"github.com/huskvm/husk/devices/virtio"
	"github.com/huskvm/husk/devices/virtio/queue"
)

// atOnce is how many page numbers are looked at together. Linux sends 256.
const atOnce = 1024

// inflate serves inflateq: each request is numbers of pages, 32 bits each, that
// are in the balloon from then on (virtio 1.2 §5.5.6).
func (d *Device) inflate(ctx context.Context, s *virtio.Session, q *queue.Queue) error {
	numbers := make([]byte, 4*atOnce)
	pages := make([]uint32, 0, atOnce)
	for {
		c, err := q.Take(ctx)
		if err != nil {
			return err
		}
		for {
			n, _ := c.Read(numbers)
			if n < 4 {
				break
			}
			if ctx.Err() != nil { // a request may be long; it can be begun again
				q.Return(c)
				return ctx.Err()
			}
			pages = pages[:0]
			for p := numbers[:n&^3]; len(p) > 0; p = p[4:] {
				pages = append(pages, binary.LittleEndian.Uint32(p))
			}
			for gpa, n := range ranges(pages) {
				d.discard(s, gpa, n)
			}
		}
		q.Push(c, 0)
	}
}

// ranges yields what pages, by their numbers, are in bytes: address and length
// of each run, by rising address. It sorts pages.
func ranges(pages []uint32) func(yield func(gpa, n uint64) bool) {
	return func(yield func(gpa, n uint64) bool) {
		slices.Sort(pages)
		for i := 0; i < len(pages); {
			first, last := pages[i], pages[i]
			for i++; i < len(pages) && pages[i]-last <= 1; i++ {
				last = pages[i]
			}
			if !yield(uint64(first)*PageSize, (uint64(last-first)+1)*PageSize) {
				return
			}
		}
	}
}

// deflate serves deflateq. There is nothing to do for a page that leaves the
// balloon: the host gives it when the guest touches it.
func deflate(ctx context.Context, q *queue.Queue) error {
	for {
		c, err := q.Take(ctx)
		if err != nil {
			return err
		}
		q.Push(c, 0)
	}
}

// report serves reporting_vq: the buffers of a request are memory that is free
// while the device has them (§5.5.6.7).
func (d *Device) report(ctx context.Context, s *virtio.Session, q *queue.Queue) error {
	for {
		c, err := q.Take(ctx)
		if err != nil {
			return err
		}
		// Memory that was given back is zero: a guest that fills free pages with
		// something else would miss that.
		if !s.Has(featPagePoison) || d.field(configPoison) == 0 {
			for gpa, n := range c.InRanges {
				start, end := (gpa+PageSize-1)&^(PageSize-1), (gpa+n)&^(PageSize-1)
				if start < end {
					d.discard(s, start, end-start)
				}
			}
		}
		q.Push(c, 0)
	}
}

// discard gives a range back, and counts it.
func (d *Device) discard(s *virtio.Session, gpa, n uint64) {
	if err := d.mem.Discard(gpa, n); err != nil {
		d.counts.refused.Add(n)
		s.Log.Warn("virtio-balloon: memory that the guest gave stays with it", "err", err)
		return
	}
	d.counts.discarded.Add(n)
}
