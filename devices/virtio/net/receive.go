package net

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/huskvm/husk/devices/ethernet"
	"github.com/huskvm/husk/devices/pace"
	"github.com/huskvm/husk/devices/virtio"
	"github.com/huskvm/husk/devices/virtio/queue"
)

// vlanHeader is what a frame may have between its Ethernet header and a packet
// of the MTU's size, in bytes.
const vlanHeader = 4

// A receiver serves one receiveq (virtio 1.2 §5.1.6.3).
//
// How long the next frame is, nobody knows, and it goes straight into the
// driver's buffers. So the receiver holds as many as the longest frame takes,
// uses what the frame fills, and keeps the others for the next. Where the driver
// has given less, the end of a frame goes to rest, and is copied when more
// buffers have come.
type receiver struct {
	d         *Device
	s         *virtio.Session
	q         *queue.Queue
	lane      ethernet.Queue
	mergeable bool

	held []buffer // the last chains taken from q, the oldest first
	room uint64   // of all of them, in bytes

	window [][]byte // where the next frame goes: front of held, then rest
	direct uint64   // bytes of window in held
	rest   []byte
}

// buffer is a chain, with its size in bytes.
type buffer struct {
	chain *queue.Chain
	room  uint64
}

func newReceiver(d *Device, s *virtio.Session, q *queue.Queue, lane ethernet.Queue) *receiver {
	return &receiver{d: d, s: s, q: q, lane: lane, mergeable: s.Has(featMrgRxbuf)}
}

func (r *receiver) serve(ctx context.Context) error {
	defer r.release()
	var thread *pace.Pace
	if r.d.info.Threads {
		thread = pace.Own()
		defer thread.Release()
	}
	for n := 1; ; n++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		longest := r.longest()
		if err := r.gather(longest); err != nil {
			return err
		}
		if len(r.held) == 0 {
			if err := r.q.Wait(ctx); err != nil {
				return err
			}
			continue
		}
		r.open(longest)
		got, err := r.lane.Receive(r.window)
		if got == 0 && err == nil {
			r.q.Flush()
			thread.Rest()
			err = r.lane.Wait(ctx)
		} else if err == nil {
			thread.Took()
			err = r.deliver(ctx, uint64(got))
		}
		switch {
		case err == nil:
		case errors.Is(err, queue.ErrBadChain), errors.Is(err, queue.ErrBadRing):
			return err
		case errors.Is(err, ethernet.ErrTooLong):
			r.d.stats.rx.dropped.Add(1)
		case ctx.Err() != nil:
			return ctx.Err()
		default:
			r.d.fail(r.s, err)
			r.q.Flush()
			<-ctx.Done()
			return ctx.Err()
		}
		if n%burst == 0 {
			r.q.Flush()
		}
	}
}

// longest is the longest frame that may come, with its header.
func (r *receiver) longest() uint64 {
	if ethernet.Offloads(r.d.takes.Load())&(ethernet.TSO4|ethernet.TSO6) != 0 {
		return ethernet.MaxFrame
	}
	return min(ethernet.MaxFrame, uint64(ethernet.HeaderSize+ethernet.MinFrame+vlanHeader+r.d.info.MTU))
}

// gather takes chains until there is room for size bytes, as far as the driver
// has given them; without MRG_RXBUF, one.
func (r *receiver) gather(size uint64) error {
	for len(r.held) == 0 || r.mergeable && r.room < size {
		c, ok, err := r.q.Next()
		if !ok || err != nil {
			return err
		}
		room := queue.Len(c.In)
		r.held = append(r.held, buffer{c, room})
		r.room += room
		if room < ethernet.HeaderSize {
			return fmt.Errorf("%w: a buffer of %d bytes to receive into: it must hold the header (virtio 1.2 §5.1.6.3.1)", queue.ErrBadChain, room)
		}
	}
	return nil
}

// release gives back what is held.
func (r *receiver) release() {
	for i := len(r.held) - 1; i >= 0; i-- {
		r.q.Return(r.held[i].chain)
	}
	r.held = nil
}

// open makes the window for a frame of up to size bytes.
func (r *receiver) open(size uint64) {
	r.window, r.direct = r.window[:0], 0
	for _, b := range r.held {
		for _, s := range b.chain.In {
			if r.direct >= size {
				return
			}
			if len(r.window) == ethernet.MaxSegments-1 {
				r.openRest()
				return
			}
			r.window = append(r.window, s)
			r.direct += uint64(len(s))
		}
	}
	if r.direct < size {
		r.openRest()
	}
}

func (r *receiver) openRest() {
	if r.rest == nil {
		r.rest = make([]byte, ethernet.MaxFrame)
	}
	r.window = append(r.window, r.rest)
}

// deliver gives the driver the frame of size bytes in the window, or drops it.
func (r *receiver) deliver(ctx context.Context, size uint64) error {
	if size > r.direct {
		if ok, err := r.moveRest(ctx, size); !ok || err != nil {
			r.d.stats.rx.dropped.Add(1)
			return err
		}
	}
	n := 0
	for room := uint64(0); room < size; n++ {
		room += r.held[n].room
	}
	if size < ethernet.HeaderSize+ethernet.MinFrame || !r.finishHeader(n) {
		r.d.stats.rx.dropped.Add(1)
		return nil
	}
	r.d.stats.rx.passed(int(size) - ethernet.HeaderSize)
	for _, b := range r.held[:n] {
		used := min(size, b.room)
		size -= used
		r.room -= b.room
		r.q.Push(b.chain, uint32(used))
	}
	r.held = r.held[:copy(r.held, r.held[n:])]
	return nil
}

// moveRest copies what of a frame of size bytes is in rest to the buffers it
// belongs in, for which it waits, but not for long: the driver may have none.
func (r *receiver) moveRest(ctx context.Context, size uint64) (ok bool, err error) {
	if err := r.gather(size); err != nil {
		return false, err
	}
	if r.room < size && r.mergeable {
		ctx, cancel := context.WithTimeout(ctx, r.d.patience)
		defer cancel()
		for r.room < size {
			if r.q.Wait(ctx) != nil {
				break
			}
			if err := r.gather(size); err != nil {
				return false, err
			}
		}
	}
	if r.room < size {
		return false, nil
	}
	rest, skip := r.rest[:size-r.direct], r.direct
	for _, b := range r.held {
		for _, s := range b.chain.In {
			n := min(skip, uint64(len(s)))
			skip -= n
			rest = rest[copy(s[n:], rest):]
		}
	}
	return true, nil
}

// finishHeader sets the number of buffers in the frame's header (§5.1.6.3.2). It
// returns false for a frame that the driver can not take: one from before it said
// so.
func (r *receiver) finishHeader(buffers int) bool {
	var copied [ethernet.HeaderSize]byte
	p := r.window[0]
	inPlace := len(p) >= len(copied)
	if !inPlace {
		p = copied[:]
		gatherBytes(p, r.held[0].chain.In)
	}
	h := ethernet.ParseHeader(p)
	takes := ethernet.Offloads(r.d.takes.Load())
	if takes&ethernet.Checksum == 0 {
		if h.Flags&ethernet.HeaderNeedsChecksum != 0 {
			return false
		}
		h.Flags = 0 // §5.1.6.4.1
		p[0] = 0
	}
	if want, ok := segmentation(h.Segment); !ok || takes&want != want {
		return false
	}
	binary.LittleEndian.PutUint16(p[ethernet.HeaderBuffers:], uint16(buffers))
	if !inPlace {
		scatterBytes(r.held[0].chain.In, p)
	}
	return true
}

// gatherBytes fills p from the front of segments, which hold as much.
func gatherBytes(p []byte, segments [][]byte) {
	for _, s := range segments {
		p = p[copy(p, s):]
	}
}

// scatterBytes copies p to the front of segments.
func scatterBytes(segments [][]byte, p []byte) {
	for _, s := range segments {
		p = p[copy(s, p):]
	}
}
