package console

import (
	"context"
	"io"
	"log/slog"
	"sync"

	"github.com/huskvm/husk/devices/virtio/queue"
)

// outletSize bounds what is taken from one chain at a time, in bytes, and what
// waits for more room before the guest has to.
const outletSize = 64 << 10

// An outlet stands between the guest and Out, which may block for as long as it
// likes: a stuck terminal must not keep a device from being reset. While there is
// something to write, a goroutine writes it, all that has gathered at once.
type outlet struct {
	out    io.Writer
	log    *slog.Logger
	failed bool // Out's last write; of the goroutine that writes

	mu      sync.Mutex
	waiting []byte        // what is written next
	spare   []byte        // the memory of what was written last
	idle    chan struct{} // closed when all is written; nil if nothing is
	room    chan struct{} // closed when waiting becomes empty; nil if nobody waits
}

func newOutlet(c Config) *outlet {
	if c.Out == nil {
		c.Out = io.Discard
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &outlet{out: c.Out, log: c.Log}
}

// add takes bytes off the front of c. If there is no room it takes none, and
// returns a channel that is closed when to try again.
func (o *outlet) add(c *queue.Chain) <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.waiting) >= outletSize {
		if o.room == nil {
			o.room = make(chan struct{})
		}
		return o.room
	}
	for taken := 0; len(c.Out) > 0 && taken < outletSize; {
		s := c.Out[0]
		n := min(len(s), outletSize-taken)
		o.waiting = append(o.waiting, s[:n]...)
		taken += n
		if c.Out[0] = s[n:]; n == len(s) {
			c.Out = c.Out[1:]
		}
	}
	if o.idle == nil && len(o.waiting) > 0 {
		o.idle = make(chan struct{})
		go o.drain()
	}
	return nil
}

// drain writes until nothing waits. What Out refuses is lost; that is logged once
// until Out takes something again.
func (o *outlet) drain() {
	for batch := o.next(); batch != nil; batch = o.next() {
		_, err := o.out.Write(batch)
		if err != nil && !o.failed {
			o.log.Warn("virtio-console: output cannot be written, it is dropped", "err", err)
		}
		o.failed = err != nil
	}
}

// next takes what waits, or says that all is written and returns nil.
func (o *outlet) next() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	batch := o.waiting
	o.waiting, o.spare = o.spare[:0], batch
	if o.room != nil {
		close(o.room)
		o.room = nil
	}
	if len(batch) == 0 {
		close(o.idle)
		o.idle = nil
		return nil
	}
	return batch
}

func (o *outlet) flush(ctx context.Context) error {
	o.mu.Lock()
	idle := o.idle
	o.mu.Unlock()
	if idle == nil {
		return nil
	}
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
