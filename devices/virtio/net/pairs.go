package net

import (
	"context"
	"errors"

	"github.com/huskvm/husk/devices/virtio"
)

// A pairsChange is that the driver wants n pairs of queues to be used. done gets
// what came of it.
type pairsChange struct {
	n    int
	done chan error
}

var errPairs = errors.New("the number of pairs changes")

// receive serves the receiveqs of the pairs that are in use, and starts anew when
// the driver changes their number: a lane that the link no longer serves is an
// error to listen to.
func (d *Device) receive(ctx context.Context, s *virtio.Session, change <-chan pairsChange, byKernel bool) error {
	d.mu.Lock()
	pairs := d.pairs
	d.mu.Unlock()
	var asked pairsChange
	for {
		n := listening(s, pairs)
		err := d.link.SetQueues(n)
		if err != nil {
			d.fail(s, err)
		} else {
			d.mu.Lock()
			d.pairs = pairs
			d.mu.Unlock()
		}
		if asked.done != nil {
			asked.done <- err
		}
		serve := []func(context.Context) error{func(ctx context.Context) error {
			select {
			case asked = <-change:
				return errPairs
			case <-ctx.Done():
				return ctx.Err()
			}
		}}
		for i := range n {
			if q := s.Queues[2*i]; q != nil {
				serve = append(serve, func(ctx context.Context) error { return d.serveQueue(ctx, s, 2*i, q, byKernel) })
			}
		}
		if err := virtio.Together(ctx, serve...); !errors.Is(err, errPairs) {
			return err
		}
		pairs = asked.n
	}
}

// listening is how many queues of the link the guest listens to, of the pairs it
// asked for.
func listening(s *virtio.Session, pairs int) int {
	n := 1
	for n < pairs && s.Queues[2*n] != nil {
		n++
	}
	return n
}
