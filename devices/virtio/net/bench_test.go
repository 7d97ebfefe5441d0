package net

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/devices/ethernet"
	"github.com/huskvm/husk/devices/virtio/virtiotest"
)

// A nullLink takes every frame, and always has one more, which it does not
// write but for the header.
type nullLink struct{ size int }

func (nullLink) Info() ethernet.Info {
	return ethernet.Info{MTU: 1500, Queues: 1, Takes: allOffloads, Gives: allOffloads}
}
func (l nullLink) Queue(int) ethernet.Queue          { return l }
func (nullLink) SetOffloads(ethernet.Offloads) error { return nil }
func (nullLink) SetQueues(int) error                 { return nil }
func (nullLink) Send([][]byte) error                 { return nil }
func (nullLink) Wait(ctx context.Context) error      { return ctx.Err() }
func (l nullLink) Receive(frame [][]byte) (int, error) {
	clear(frame[0][:ethernet.HeaderSize])
	return l.size, nil
}

var sizes = []int{64, 1514, 65550}

// BenchmarkTransmit is frames from the driver's ring to a link that drops them,
// driver and device each on a thread.
func BenchmarkTransmit(b *testing.B) {
	for _, size := range sizes {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			d, err := New(nullLink{}, mac, nil)
			require.NoError(b, err)
			c := virtiotest.NewDriver(b, d, nil)
			c.Start(common | featCsum | featHostTSO4)
			r := c.Rings[1]
			f := newFrame(ethernet.Header{}, size)
			var heads []uint16
			for range 128 {
				heads = append(heads, r.Add(virtiotest.Out(f)).Head())
			}
			benchmark(b, c, r, heads, size, 1)
		})
	}
}

// BenchmarkReceive is frames from a link that always has one to the driver's
// ring, into buffers as Linux makes them.
func BenchmarkReceive(b *testing.B) {
	for _, size := range sizes {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			d, err := New(nullLink{size + ethernet.HeaderSize}, mac, nil)
			require.NoError(b, err)
			c := virtiotest.NewDriver(b, d, nil)
			c.Start(common | tsoGuest)
			r := c.Rings[0]
			var heads []uint16
			for range 256 {
				heads = append(heads, r.Add(virtiotest.In(min(4096, max(1536, size)))).Head())
			}
			buffers := (size+ethernet.HeaderSize-1)/min(4096, max(1536, size)) + 1
			benchmark(b, c, r, heads, size, buffers)
		})
	}
}

// benchmark offers heads again as they are used, in the order in which the
// device, which has one thread, uses them.
func benchmark(b *testing.B, c *virtiotest.Driver, r *virtiotest.Ring, heads []uint16, size, buffers int) {
	ctx := c.Context()
	r.Publish()
	b.SetBytes(int64(size))
	b.ReportAllocs()
	for i := 0; b.Loop(); {
		for range buffers {
			if err := r.AwaitAny(ctx); err != nil {
				b.Fatal(err)
			}
			r.Offer(heads[i])
			i = (i + 1) % len(heads)
		}
		if i%16 < buffers {
			r.Publish()
		}
	}
}
