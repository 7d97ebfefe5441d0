// Package rng is the entropy device (virtio 1.2 §5.4): it fills what buffers the
// driver gives it with random bytes.
package rng

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"

	"github.com/huskvm/husk/devices/virtio"
	"github.com/huskvm/husk/devices/virtio/queue"
)

// most bounds what one buffer gets, in bytes. The device may use less than the
// driver gives (§5.4.6.1), and a guest must not keep it busy for 4 GiB.
const most = 64 << 10

// A Device is one entropy device.
type Device struct {
	source io.Reader
}

// New returns a device whose bytes come from source, or from the host's kernel if
// that is nil.
func New(source io.Reader) *Device {
	if source == nil {
		source = rand.Reader
	}
	return &Device{source: source}
}

// Type implements virtio.Device.
func (*Device) Type() virtio.Type { return virtio.Entropy }

// Features implements virtio.Device: there are none.
func (*Device) Features() uint64 { return 0 }

// QueueSizes implements virtio.Device: the one queue is requestq.
func (*Device) QueueSizes() []int { return []int{64} }

// Config implements virtio.Device: there is no configuration.
func (*Device) Config([]byte) int { return 0 }

// Serve implements virtio.Device. It fails if the source does.
func (d *Device) Serve(ctx context.Context, s *virtio.Session) error {
	return s.ServeQueues(ctx, func(ctx context.Context, _ int, q *queue.Queue) error {
		for {
			c, err := q.Take(ctx)
			if err != nil {
				return err
			}
			n, err := d.fill(c.In)
			q.Push(c, n)
			if err != nil {
				return fmt.Errorf("virtio-rng: reading entropy: %w", err)
			}
		}
	})
}

// fill fills segments and returns how many bytes those are.
func (d *Device) fill(segments [][]byte) (uint32, error) {
	done := 0
	for _, s := range segments {
		s = s[:min(len(s), most-done)]
		n, err := io.ReadFull(d.source, s)
		done += n
		if err != nil {
			return uint32(done), err
		}
	}
	return uint32(done), nil
}
