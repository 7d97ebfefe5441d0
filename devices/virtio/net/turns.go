package net

import (
	"context"
	"time"

	"github.com/huskvm/husk/devices/ethernet"
	"github.com/huskvm/husk/devices/pace"
	"github.com/huskvm/husk/devices/virtio"
	"github.com/huskvm/husk/devices/virtio/queue"
)

const (
	// looks is how many rests it takes to see how many frames there are at a time.
	looks = 8
	// shortTurn and longTurn are how long the kernel serves a transmitq until we see
	// again whether patience pays, at least and at most.
	shortTurn, longTurn = 16 * time.Millisecond, 2048 * time.Millisecond
	// data is from which size on a frame counts, in bytes. Acknowledgements come many
	// at a time, too, but the other side waits for them.
	data = 512
)

// transmitByTurns serves transmitq i: the kernel does, but while a thread of ours does
// better by its patience.
//
// The kernel's thread interrupts whoever is on its processor whenever the guest rings.
// If that is the vCPU, a guest that has much to send gets one frame out at a time, each
// for two switches of threads. A thread of ours can let the guest go on (pace.Pace).
func (d *Device) transmitByTurns(ctx context.Context, s *virtio.Session, i int, q *queue.Queue, lane ethernet.Descriptor) error {
	for length := shortTurn; ; {
		turn, cancel := context.WithTimeout(ctx, length)
		err := d.kernel.Serve(turn, i, s.Features, q, lane)
		over := turn.Err() != nil && ctx.Err() == nil
		cancel()
		if !over {
			return err
		}
		paid, err := d.transmitPatiently(ctx, s, i, q)
		if err != nil {
			return err
		}
		if length = min(2*length, longTurn); paid {
			length = shortTurn
		}
	}
}

// transmitPatiently serves a transmitq as long as patience pays, and tells whether it
// ever did.
func (d *Device) transmitPatiently(ctx context.Context, s *virtio.Session, i int, q *queue.Queue) (paid bool, err error) {
	turn, end := context.WithCancel(ctx)
	defer end()
	t := &turnPace{thread: pace.Own(), end: end}
	defer t.thread.Release()
	q.SetPace(t)
	own := newTransmitter(d, s, q, d.link.Queue(i/2))
	own.sent = t.sent
	err = own.serveAt(turn)
	q.SetPace(nil)
	if ctx.Err() == nil && turn.Err() != nil {
		err = nil
	}
	return t.paid, err
}

// A turnPace is the queue.Pace of a turn of ours. It sees how many frames there are
// when the thread wakes as the kernel's would, and if they come alone, whether they do
// when it is patient. The turn is over unless that makes the difference.
type turnPace struct {
	thread        *pace.Pace
	patient       bool
	rests, frames int // of data
	paid          bool
	end           func()
}

// sent notes a frame of size bytes.
func (t *turnPace) sent(size int) {
	if size >= data {
		t.frames++
	}
}

// Took implements queue.Pace.
func (t *turnPace) Took() { t.thread.Breathe() }

// Rest implements queue.Pace.
func (t *turnPace) Rest() {
	if t.rests++; t.rests < looks {
		return
	}
	some, many := t.frames > 0, t.frames >= 2*t.rests
	t.rests, t.frames = 0, 0
	switch {
	case !t.patient && some && !many && t.thread.SetPatient(true):
		t.patient = true
	case t.patient && many:
		t.paid = true
	default:
		t.end()
	}
}
