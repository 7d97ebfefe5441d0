package net

import (
	"context"
	"errors"
	"fmt"

	"github.com/huskvm/husk/devices/ethernet"
	"github.com/huskvm/husk/devices/pace"
	"github.com/huskvm/husk/devices/virtio"
	"github.com/huskvm/husk/devices/virtio/queue"
)

// A transmitter serves one transmitq (virtio 1.2 §5.1.6.2).
type transmitter struct {
	d    *Device
	s    *virtio.Session
	q    *queue.Queue
	lane ethernet.Queue
	may  ethernet.Offloads // what was negotiated
	sent func(size int)    // if not nil, hears of each frame that was sent

	// One frame: its header, checked, in place of the guest's, and the guest's
	// buffers.
	header [ethernet.HeaderSize]byte
	frame  [][]byte
}

func newTransmitter(d *Device, s *virtio.Session, q *queue.Queue, lane ethernet.Queue) *transmitter {
	return &transmitter{d: d, s: s, q: q, lane: lane, may: fromGuest(s.Features)}
}

func (t *transmitter) serve(ctx context.Context) error {
	if t.d.info.Threads {
		thread := pace.Own()
		defer thread.Release()
		t.q.SetPace(thread)
	}
	return t.serveAt(ctx)
}

// serveAt serves at the queue's pace.
func (t *transmitter) serveAt(ctx context.Context) error {
	for n := 1; ; n++ {
		c, err := t.q.Take(ctx)
		if err != nil {
			return err
		}
		t.send(c)
		t.q.Push(c, 0)
		if n%burst == 0 {
			t.q.Flush()
		}
	}
}

// send gives the frame in c to the link, and counts it.
func (t *transmitter) send(c *queue.Chain) {
	size, err := t.prepare(c)
	if err == nil {
		err = t.lane.Send(t.frame)
	}
	switch {
	case err == nil:
		t.d.stats.tx.passed(size)
		if t.sent != nil {
			t.sent(size)
		}
		return
	case errors.Is(err, ethernet.ErrFrame):
		t.s.Log.Warn("virtio-net: a frame that the guest sent is dropped", "err", err)
	case !errors.Is(err, ethernet.ErrDropped):
		t.d.fail(t.s, err)
	}
	t.d.stats.tx.dropped.Add(1)
}

// prepare makes t.frame of c, and returns its size without the header.
func (t *transmitter) prepare(c *queue.Chain) (int, error) {
	if n, _ := c.Read(t.header[:]); n < len(t.header) {
		return 0, fmt.Errorf("%w: %d bytes for a header of %d", ethernet.ErrFrame, n, len(t.header))
	}
	size := queue.Len(c.Out)
	if size < ethernet.MinFrame || size > ethernet.MaxFrame-ethernet.HeaderSize {
		return 0, fmt.Errorf("%w: %d bytes", ethernet.ErrFrame, size)
	}
	if n := len(c.Out) + 1; n > ethernet.MaxSegments {
		return 0, fmt.Errorf("%w: it is scattered over %d buffers", ethernet.ErrFrame, n)
	}
	h, err := checkSent(ethernet.ParseHeader(t.header[:]), int(size), t.may)
	if err != nil {
		return 0, err
	}
	h.Put(t.header[:])
	t.frame = append(append(t.frame[:0], t.header[:]), c.Out...)
	return int(size), nil
}

// checkSent returns the header of a frame of size bytes with only that in it
// which says something. It may ask for the offloads in may.
func checkSent(h ethernet.Header, size int, may ethernet.Offloads) (ethernet.Header, error) {
	// Flags that are not known are ignored (§5.1.6.2.2), and so are fields that no
	// flag makes valid.
	h.Flags &= ethernet.HeaderNeedsChecksum
	if h.Flags == 0 {
		h.ChecksumStart, h.ChecksumOffset = 0, 0
	} else {
		if may&ethernet.Checksum == 0 {
			return h, fmt.Errorf("%w: CSUM was not negotiated", ethernet.ErrFrame)
		}
		if end := int(h.ChecksumStart) + int(h.ChecksumOffset) + 2; end > size {
			return h, fmt.Errorf("%w: a checksum up to byte %d of %d", ethernet.ErrFrame, end, size)
		}
	}
	if h.Segment == ethernet.SegmentNone {
		h.SegmentSize, h.HeaderBytes = 0, 0
		return h, nil
	}
	if want, ok := segmentation(h.Segment); !ok || may&want != want {
		return h, fmt.Errorf("%w: segmentation %#x was not negotiated", ethernet.ErrFrame, h.Segment)
	}
	if h.SegmentSize == 0 || h.Flags == 0 {
		return h, fmt.Errorf("%w: segments of %d bytes, flags %#x", ethernet.ErrFrame, h.SegmentSize, h.Flags)
	}
	h.HeaderBytes = uint16(min(int(h.HeaderBytes), size)) // a hint
	return h, nil
}

// segmentation is the offloads that a kind of segmentation is.
func segmentation(kind byte) (o ethernet.Offloads, ok bool) {
	switch kind &^ ethernet.SegmentECN {
	case ethernet.SegmentNone:
		return 0, kind == ethernet.SegmentNone
	case ethernet.SegmentTCP4:
		o = ethernet.TSO4
	case ethernet.SegmentTCP6:
		o = ethernet.TSO6
	default:
		return 0, false
	}
	if kind&ethernet.SegmentECN != 0 {
		o |= ethernet.ECN
	}
	return o, true
}
