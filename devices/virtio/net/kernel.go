package net

import (
	"context"
	"time"

	"github.com/huskvm/husk/devices/ethernet"
	"github.com/huskvm/husk/devices/virtio"
	"github.com/huskvm/husk/devices/virtio/queue"
)

// A Kernel serves queues in the card's stead: the host's kernel does (vhost).
//
// Serve serves queue i, a receiveq or a transmitq, of a driver that has negotiated
// features, from or to lane, as a virtio.Device serves all of them: until ctx ends,
// with nothing in flight when it returns. It may also return because lane is no more.
type Kernel interface {
	Serve(ctx context.Context, i int, features uint64, q *queue.Queue, lane ethernet.Descriptor) error
}

// checkEvery is how often a link is looked after whose frames pass us by.
const checkEvery = time.Second

// byKernel tells whether the kernel serves the queues of this session.
//
// It hands frames on as they are: the header's flags and kinds of segmentation
// without a look at what the driver takes, and the number of buffers only with
// MRG_RXBUF. So we serve a driver that does not take all that the link may give. One
// that takes less later (CTRL_GUEST_OFFLOADS) may still see frames that waited then.
func (d *Device) byKernel(s *virtio.Session) bool {
	if d.kernel == nil || d.failed.Load() {
		return false
	}
	if s.Has(featMrgRxbuf) && toGuest(s.Features) == valid(d.info.Gives) {
		return true
	}
	s.Log.Info("virtio-net: the driver does not take all that the host's kernel would give it; husk serves its queues", "features", s.Features)
	return false
}

// serveQueue serves queue i, a receiveq or a transmitq.
func (d *Device) serveQueue(ctx context.Context, s *virtio.Session, i int, q *queue.Queue, byKernel bool) error {
	lane := d.link.Queue(i / 2)
	if kernels, ok := lane.(ethernet.Descriptor); ok && byKernel {
		var err error
		if i%2 == 0 || !d.info.Threads {
			err = d.kernel.Serve(ctx, i, s.Features, q, kernels)
		} else {
			err = d.transmitByTurns(ctx, s, i, q, kernels)
		}
		gone := kernels.Check()
		if ctx.Err() != nil || gone == nil {
			return err
		}
		d.fail(s, gone) // and we give back what the guest still sends
	}
	if i%2 == 0 {
		return newReceiver(d, s, q, lane).serve(ctx)
	}
	return newTransmitter(d, s, q, lane).serve(ctx)
}

// check looks after the link while the kernel serves it, which says nothing.
func (d *Device) check(ctx context.Context, s *virtio.Session) error {
	lane, ok := d.link.Queue(0).(ethernet.Descriptor)
	every := time.NewTicker(checkEvery)
	defer every.Stop()
	for ok && !d.failed.Load() {
		select {
		case <-every.C:
			if err := lane.Check(); err != nil {
				d.fail(s, err)
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	<-ctx.Done()
	return ctx.Err()
}
