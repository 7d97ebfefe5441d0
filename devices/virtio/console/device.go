// Package console is the console device (virtio 1.2 §5.3) with one port: hvc0 in
// a Linux guest.
package console

import (
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"sync/atomic"

	"github.com/huskvm/husk/devices/virtio"
	"github.com/huskvm/husk/devices/virtio/queue"
)

const featSize = 1 << 0 // VIRTIO_CONSOLE_F_SIZE

// The queues of port 0 (§5.3.2).
const (
	receiveq  = 0
	transmitq = 1
)

const queueSize = 128

// configSize is that of struct virtio_console_config (§5.3.4), of which cols and
// rows are used.
const configSize = 12

// Config is what a device is connected to. Any field may be left zero.
type Config struct {
	// Out gets what the guest sends. nil drops it.
	Out io.Writer
	// Log is told when output is lost.
	Log *slog.Logger
}

// A Device is one console. Its methods may be called from any goroutine.
type Device struct {
	outlet  *outlet
	input   chan input
	size    atomic.Uint32 // columns, and rows in the upper half
	resized chan struct{} // has a token if the driver is to hear of the size
}

// input is bytes for the guest, and where to say how many it took.
type input struct {
	bytes []byte
	taken chan int
}

// New returns a device of unknown size.
func New(c Config) *Device {
	return &Device{outlet: newOutlet(c), input: make(chan input), resized: make(chan struct{}, 1)}
}

// Type implements virtio.Device.
func (*Device) Type() virtio.Type { return virtio.Console }

// Features implements virtio.Device.
func (*Device) Features() uint64 { return featSize }

// QueueSizes implements virtio.Device.
func (*Device) QueueSizes() []int { return []int{receiveq: queueSize, transmitq: queueSize} }

// Config implements virtio.Device.
func (d *Device) Config(p []byte) int {
	p = p[:configSize]
	clear(p)
	binary.LittleEndian.PutUint32(p, d.size.Load())
	return configSize
}

// Resize tells the guest how many columns and rows of characters the terminal
// has.
func (d *Device) Resize(cols, rows uint16) {
	now := uint32(cols) | uint32(rows)<<16
	if d.size.Swap(now) == now {
		return
	}
	select {
	case d.resized <- struct{}{}:
	default: // it has not heard of the last one yet
	}
}

// Input gives bytes to the guest as fast as it takes them, and returns how many
// it has. It blocks until that is all, and returns early only with the error of
// ctx.
func (d *Device) Input(ctx context.Context, p []byte) (int, error) {
	taken := make(chan int)
	done := 0
	for done < len(p) {
		select {
		case d.input <- input{p[done:], taken}:
			done += <-taken
		case <-ctx.Done():
			return done, ctx.Err()
		}
	}
	return done, nil
}

// Flush returns when Out has all that the guest has sent, or with the error of
// ctx.
func (d *Device) Flush(ctx context.Context) error { return d.outlet.flush(ctx) }

// Serve implements virtio.Device. It does not wait for Out: what Out has not
// taken goes on being written.
func (d *Device) Serve(ctx context.Context, s *virtio.Session) error {
	return virtio.Together(ctx,
		func(ctx context.Context) error {
			return s.ServeQueues(ctx, func(ctx context.Context, i int, q *queue.Queue) error {
				if i == receiveq {
					return d.receive(ctx, q)
				}
				return d.transmit(ctx, q)
			})
		},
		func(ctx context.Context) error {
			for {
				select {
				case <-d.resized:
					s.ConfigChanged()
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		},
	)
}

// receive fills the driver's buffers with input.
func (d *Device) receive(ctx context.Context, q *queue.Queue) error {
	for {
		c, err := q.Take(ctx)
		if err != nil {
			return err
		}
		if len(c.In) == 0 {
			q.Push(c, 0)
			continue
		}
		select {
		case in := <-d.input:
			n, _ := c.Write(in.bytes) // what has no room is offered again
			in.taken <- n
			q.Push(c, uint32(n))
			q.Flush()
		case <-ctx.Done():
			q.Return(c)
			return ctx.Err()
		}
	}
}

// takeRest takes what the driver has added before the end, as far as there is room:
// its last words must not stay behind in the ring.
func (d *Device) takeRest(q *queue.Queue) {
	for {
		c, ok, err := q.Next()
		if !ok || err != nil {
			return
		}
		if d.outlet.add(c) != nil {
			q.Return(c)
			return
		}
		q.Push(c, 0) // what is longer than the outlet loses its rest
	}
}

// transmit passes the driver's buffers on to Out.
func (d *Device) transmit(ctx context.Context, q *queue.Queue) error {
	for {
		c, err := q.Take(ctx)
		if err != nil {
			d.takeRest(q)
			return err
		}
		begun := false
		for len(c.Out) > 0 {
			room := d.outlet.add(c)
			if room == nil {
				begun = true
				continue
			}
			q.Flush() // the driver may spin for what is done
			select {
			case <-room:
			case <-ctx.Done():
				if begun {
					q.Push(c, 0) // a chain longer than the outlet loses its rest
				} else {
					q.Return(c)
				}
				return ctx.Err()
			}
		}
		q.Push(c, 0)
	}
}
