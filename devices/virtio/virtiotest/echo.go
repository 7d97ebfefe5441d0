package virtiotest

import (
	"context"
	"slices"
	"sync"

	"github.com/huskvm/husk/devices/virtio"
	"github.com/huskvm/husk/devices/virtio/queue"
)

// EchoFeature is the feature that an Echo offers.
const EchoFeature = 1 << 5

// echoMost is how much of a request an Echo copies.
const echoMost = 1 << 16

// An Echo is a device for tests of transports: it copies the readable part of a
// request to its writable part. Its configuration space is memory.
type Echo struct {
	// Sizes are those of the queues.
	Sizes []int

	mu         sync.Mutex
	config     []byte
	negotiated []uint64
	serving    bool
	session    *virtio.Session
}

// Type implements virtio.Device.
func (e *Echo) Type() virtio.Type { return virtio.Entropy }

// Features implements virtio.Device.
func (e *Echo) Features() uint64 { return EchoFeature }

// QueueSizes implements virtio.Device.
func (e *Echo) QueueSizes() []int { return e.Sizes }

// Config implements virtio.Device.
func (e *Echo) Config(p []byte) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return copy(p, e.config)
}

// StoreConfig implements virtio.ConfigStorer.
func (e *Echo) StoreConfig(off int, p []byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	copy(e.config[off:], p)
}

// Negotiated implements virtio.ConfigStorer.
func (e *Echo) Negotiated(features uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.negotiated = append(e.negotiated, features)
}

// SetConfig changes the configuration space, and tells the driver if it is served.
func (e *Echo) SetConfig(b []byte) {
	e.mu.Lock()
	e.config = slices.Clone(b)
	s := e.session
	e.mu.Unlock()
	if s != nil {
		s.ConfigChanged()
	}
}

// Serving tells whether Serve runs.
func (e *Echo) Serving() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.serving
}

// Serve implements virtio.Device.
func (e *Echo) Serve(ctx context.Context, s *virtio.Session) error {
	e.set(true, s)
	defer e.set(false, nil)
	fs := []func(context.Context) error{func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }}
	for _, q := range s.Queues {
		if q != nil {
			fs = append(fs, func(ctx context.Context) error { return echo(ctx, q) })
		}
	}
	return virtio.Together(ctx, fs...)
}

func (e *Echo) set(serving bool, s *virtio.Session) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.serving == serving {
		panic("served twice at a time")
	}
	e.serving, e.session = serving, s
}

func echo(ctx context.Context, q *queue.Queue) error {
	for {
		c, err := q.Take(ctx)
		if err != nil {
			return err
		}
		b := make([]byte, min(queue.Len(c.Out), echoMost))
		n, _ := c.Read(b)
		n, _ = c.Write(b[:n])
		q.Push(c, uint32(n))
	}
}
