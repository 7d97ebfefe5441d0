// Package virtio is what all virtio devices share (virtio 1.2, modern only):
// what a Device is, and the State that a transport shows to the driver.
//
// A device is a function of time: Serve runs from DRIVER_OK until its context
// ends. Reset, pause and close are all "cancel and wait"; between two Serves
// nothing is left of a queue but its queue.State.
package virtio

import (
	"context"
	"log/slog"
	"sync"

	"github.com/huskvm/husk/devices/virtio/queue"
)

// A Type is what kind of device it is (virtio 1.2 §5).
type Type uint32

// The device types.
const (
	Net     Type = 1
	Block   Type = 2
	Console Type = 3
	Entropy Type = 4
	Balloon Type = 5
	Socket  Type = 19
	FS      Type = 26
)

// Feature bits that belong to no device type (virtio 1.2 §6).
const (
	FeatIndirectDesc = 1 << 28 // VIRTIO_F_INDIRECT_DESC
	FeatEventIdx     = 1 << 29 // VIRTIO_F_EVENT_IDX
	FeatVersion1     = 1 << 32 // VIRTIO_F_VERSION_1
	FeatRingReset    = 1 << 40 // VIRTIO_F_RING_RESET
)

// MaxConfig bounds a device's configuration space, in bytes.
const MaxConfig = 256

// A Device is one virtio device, whatever transport it is on.
//
// Type, Features and QueueSizes never change. Features are the bits of the
// device type alone; those of the queues are added for it. QueueSizes has the
// largest size of each queue, powers of two.
//
// Config copies the device's configuration space to p, which has MaxConfig bytes,
// and returns its length. It is called from vCPU threads: it does not block,
// and does not call into the Session.
//
// Serve works until ctx ends, and returns when nothing is in flight: every
// chain it took was pushed (what is not flushed is, after it), or returned if it
// was the last. Only one Serve
// runs at a time; another may follow. An error that is not that of ctx, or a
// return before ctx has ended, means that it cannot go on: the driver is told to
// reset the device.
type Device interface {
	Type() Type
	Features() uint64
	QueueSizes() []int
	Config(p []byte) int
	Serve(ctx context.Context, s *Session) error
}

// A ConfigStorer is a Device whose driver may write to its configuration space,
// or whose configuration depends on the features.
//
// StoreConfig gets what the driver writes at off; all of it lies within the
// space. Negotiated is called when the features are settled, and with 0 when the
// device is reset. Both are called as Config is.
type ConfigStorer interface {
	StoreConfig(off int, p []byte)
	Negotiated(features uint64)
}

// A Session is what a device has to work with from one start to the next stop.
type Session struct {
	// Features are what was negotiated.
	Features uint64
	// Queues are those of QueueSizes, by the same index. One that the driver has
	// not enabled is nil.
	Queues []*queue.Queue
	// Log may be used freely for what a guest can cause: it lets a message
	// through only now and then.
	Log *slog.Logger

	state *State
}

// Has tells whether all bits of a feature were negotiated.
func (s *Session) Has(feature uint64) bool { return s.Features&feature == feature }

// ConfigChanged tells the driver that the device's configuration has changed. It
// calls Config, so it is called without the locks that Config takes.
func (s *Session) ConfigChanged() { s.state.configChanged() }

// ServeQueues calls serve for each enabled queue, in a goroutine of its own, with
// the queue's index. It returns as Together does, and not before ctx ends where
// no queue is enabled.
func (s *Session) ServeQueues(ctx context.Context, serve func(ctx context.Context, i int, q *queue.Queue) error) error {
	var fs []func(context.Context) error
	for i, q := range s.Queues {
		if q != nil {
			fs = append(fs, func(ctx context.Context) error { return serve(ctx, i, q) })
		}
	}
	return Together(ctx, fs...)
}

// Together runs all of fs until they have returned. When one of them returns,
// the context of the others ends. The error is that of the first to return. With
// nothing to run, it waits for ctx.
func Together(ctx context.Context, fs ...func(context.Context) error) error {
	if len(fs) == 0 {
		<-ctx.Done()
		return ctx.Err()
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	var once sync.Once
	var first error
	for _, f := range fs {
		wg.Go(func() {
			err := f(ctx)
			once.Do(func() { first = err })
			cancel()
		})
	}
	wg.Wait()
	return first
}
