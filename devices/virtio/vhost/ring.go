package vhost

import (
	"context"
	"errors"
	"fmt"

	"github.com/huskvm/husk/devices/ethernet"
	"github.com/huskvm/husk/devices/eventfd"
	"github.com/huskvm/husk/devices/virtio/queue"
)

// ErrKick is a queue whose notifications do not arrive at an eventfd, where the
// kernel could hear of them.
var ErrKick = errors.New("vhost: a queue's notifications are no eventfd's")

var errBroken = fmt.Errorf("%w: the host's kernel cannot follow its descriptors", queue.ErrBadRing)

// Serve has the kernel serve queue i of the card, by its index in the device (virtio
// 1.2 §5.1.2), of a driver that has negotiated those features, from or to lane. It
// returns when ctx has ended and nothing is in flight, with the error of ctx; or
// before, with queue.ErrBadRing where the ring makes no sense or lane is no more: the
// kernel does not say which. It may be called again then, and for all queues of the
// card at once.
func (n *Net) Serve(ctx context.Context, i int, negotiated uint64, q *queue.Queue, lane ethernet.Descriptor) error {
	lent := q.Lend()
	r := &ring{kernel: n.pairs[i/2], index: i % 2, failed: make(chan error, 1)}
	next, err := r.serve(ctx, negotiated&features, lent, lane)
	// It works in order, and what it has taken it has used, but for what it could not
	// send to an interface that is gone: that it forgets (vhost_tx_batch).
	if used := queue.Load16(lent.Used, 2); next-used <= uint16(lent.Size) {
		next = used
	}
	q.TakeBack(next)
	return err
}

// A ring is one that the kernel serves.
type ring struct {
	kernel
	index  int
	failed chan error // gets the first reason not to go on
}

func (r *ring) serve(ctx context.Context, features uint64, lent queue.Lent, lane ethernet.Descriptor) (next uint16, err error) {
	kick, ok := lent.Kick.(interface{ FD() int })
	if !ok {
		return lent.Next, ErrKick
	}
	broken, err := newBell(func() { r.fail(errBroken) })
	if err != nil {
		return lent.Next, err
	}
	defer broken.close()
	called, err := newBell(lent.IRQ.Signal)
	if err != nil {
		return lent.Next, err
	}
	defer called.close()

	unfollow := func() {}
	if err = r.configure(features, lent, kick.FD(), broken.fd); err == nil {
		unfollow = r.follow(lent.IRQ, called.fd)
		if err = r.connect(lane); err == nil {
			// What the driver has told somebody else of, and may not again.
			eventfd.Signal(kick.FD())
			select {
			case <-ctx.Done():
				err = ctx.Err()
			case err = <-r.failed:
			}
		}
	}
	next, stopped := r.disconnect()
	unfollow() // not before: until here the kernel interrupts, and the guest may mask
	if stopped = errors.Join(stopped, r.forget()); stopped != nil {
		return next, stopped
	}
	return next, err
}

func (r *ring) fail(err error) {
	select {
	case r.failed <- err:
	default:
	}
}

// configure tells the kernel what the ring is, but for its interrupt.
func (r *ring) configure(features uint64, lent queue.Lent, kick, broken int) error {
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"VHOST_SET_FEATURES", func() error { return r.SetFeatures(features) }},
		{"VHOST_SET_VRING_NUM", func() error { return r.SetNumber(reqSetSize, r.index, uint32(lent.Size)) }},
		{"VHOST_SET_VRING_BASE", func() error { return r.SetNumber(reqSetNext, r.index, uint32(lent.Next)) }},
		{"VHOST_SET_VRING_ADDR", func() error { return r.SetAreas(r.index, lent.Desc, lent.Avail, lent.Used) }},
		{"VHOST_SET_VRING_ERR", func() error { return r.SetFile(reqSetError, r.index, broken) }},
		{"VHOST_SET_VRING_KICK", func() error { return r.SetFile(reqSetKick, r.index, kick) }},
	} {
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return nil
}

// follow has the kernel interrupt the guest by itself while that can be done, and
// else ring called.
func (r *ring) follow(irq queue.Interrupt, called int) (stop func()) {
	set := func(fd int) {
		if fd < 0 {
			fd = called
		}
		if err := r.SetFile(reqSetCall, r.index, fd); err != nil {
			r.fail(fmt.Errorf("VHOST_SET_VRING_CALL: %w", err))
		}
	}
	if direct, ok := irq.(queue.Direct); ok {
		return direct.Follow(set)
	}
	set(-1)
	return func() {}
}

// connect starts the kernel.
func (r *ring) connect(lane ethernet.Descriptor) error {
	err := lane.Control(func(fd int) error { return r.SetFile(reqSetBackend, r.index, fd) })
	if err != nil {
		return fmt.Errorf("VHOST_NET_SET_BACKEND: %w", err)
	}
	return nil
}

// disconnect stops it, and returns where it is.
func (r *ring) disconnect() (next uint16, err error) {
	if err := r.SetFile(reqSetBackend, r.index, -1); err != nil {
		return 0, fmt.Errorf("VHOST_NET_SET_BACKEND -1: %w", err)
	}
	if next, err = r.Next(r.index); err != nil {
		return 0, fmt.Errorf("VHOST_GET_VRING_BASE: %w", err)
	}
	return next, nil
}

// forget has the kernel let go of the events: others may serve the ring next.
func (r *ring) forget() error {
	var errs []error
	for _, request := range []uintptr{reqSetKick, reqSetCall, reqSetError} {
		errs = append(errs, r.SetFile(request, r.index, -1))
	}
	return errors.Join(errs...)
}
