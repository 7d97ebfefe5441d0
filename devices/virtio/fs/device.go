// Package fs is the file system device (virtio 1.2 §5.11): FUSE requests of the driver,
// answered by a Server.
package fs

import (
	"context"
	"encoding/binary"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/huskvm/husk/devices/virtio"
	"github.com/huskvm/husk/devices/virtio/queue"
)

// A Server answers FUSE requests. Its methods are called from several goroutines at
// once.
//
// Do reads a request from in, writes the answer to the front of out, and returns how
// many bytes that has; 0 for one without an answer. Both are the guest's memory: at most
// about a thousand segments, of which none is empty.
//
// Slow tells whether the request in in may take long, though nothing is wrong.
//
// Reset forgets all that the guest knows and has open.
type Server interface {
	Do(in, out [][]byte) uint32
	Slow(in [][]byte) bool
	Reset()
}

const (
	// tagSize is the room for a tag, in bytes (§5.11.4).
	tagSize    = 36
	configSize = tagSize + 4
	// MaxTag is the longest tag, in bytes.
	MaxTag = tagSize

	// hiprio is the index of the queue for what must not wait behind requests
	// (§5.11.2): FORGETs, of which a driver has many.
	hiprio     = 0
	hiprioSize = 128
	// requestSize is that of the others. Linux makes no request longer than its
	// descriptors reach: a MiB in pages of 4 KiB takes 256, and some more.
	requestSize = 1024
)

// Config is what a Device is made from.
type Config struct {
	Server Server
	// Tag is what the guest mounts it by.
	Tag string
	// Queues is the number of request queues, at least one.
	Queues int
}

// A Device is one file system device.
type Device struct {
	c     Config
	stale atomic.Bool // the driver that the Server knows is gone
}

// CheckTag tells whether a guest can mount something by a tag.
func CheckTag(tag string) error {
	switch {
	case tag == "":
		return fmt.Errorf("a tag is needed: the guest mounts by it")
	case len(tag) > MaxTag:
		return fmt.Errorf("the tag %q has %d bytes; it may have %d", tag, len(tag), MaxTag)
	case strings.ContainsRune(tag, 0):
		return fmt.Errorf("the tag %q has a NUL in it", tag)
	}
	return nil
}

// New returns a device. It fails if the configuration cannot be.
func New(c Config) (*Device, error) {
	if err := CheckTag(c.Tag); err != nil {
		return nil, err
	}
	if c.Queues < 1 {
		return nil, fmt.Errorf("%d request queues; at least one is needed", c.Queues)
	}
	return &Device{c: c}, nil
}

// Type implements virtio.Device.
func (*Device) Type() virtio.Type { return virtio.FS }

// Features implements virtio.Device. VIRTIO_FS_F_NOTIFICATION is not offered: Linux does
// not know what to do with it.
func (*Device) Features() uint64 { return 0 }

// QueueSizes implements virtio.Device.
func (d *Device) QueueSizes() []int {
	sizes := []int{hiprio: hiprioSize}
	for range d.c.Queues {
		sizes = append(sizes, requestSize)
	}
	return sizes
}

// Config implements virtio.Device.
func (d *Device) Config(p []byte) int {
	clear(p[:configSize])
	copy(p, d.c.Tag)
	binary.LittleEndian.PutUint32(p[tagSize:], uint32(d.c.Queues))
	return configSize
}

// StoreConfig implements virtio.ConfigStorer: there is nothing to store.
func (*Device) StoreConfig(int, []byte) {}

// Negotiated implements virtio.ConfigStorer. A driver that resets the device has lost what
// it knew. It does not wait for the Server to do so, too.
func (d *Device) Negotiated(features uint64) {
	if features == 0 {
		d.stale.Store(true)
	}
}

// Serve implements virtio.Device.
func (d *Device) Serve(ctx context.Context, s *virtio.Session) error {
	if d.stale.Swap(false) {
		d.c.Server.Reset()
	}
	return s.ServeQueues(ctx, func(ctx context.Context, i int, q *queue.Queue) error {
		if i == hiprio {
			return d.serveHiprio(ctx, q)
		}
		return newServer(d.c.Server, q).serve(ctx)
	})
}

// serveHiprio answers one request after the other: none of them takes long.
func (d *Device) serveHiprio(ctx context.Context, q *queue.Queue) error {
	for {
		c, err := q.Take(ctx)
		if err != nil {
			return err
		}
		q.Push(c, d.c.Server.Do(c.Out, c.In))
	}
}
