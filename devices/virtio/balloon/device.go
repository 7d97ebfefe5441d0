// Package balloon is the memory balloon (virtio 1.2 §5.5): the guest puts pages
// into it that the host may have meanwhile, as many as the host asks for; tells
// how its memory is used; and reports pages that are free.
//
// A guest may put in any page it likes, one in use too: it then reads zeroes. It
// harms nobody but itself.
package balloon

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"sync"
	"sync/atomic"

	"github.com/huskvm/husk/devices/virtio"
	"github.com/huskvm/husk/devices/virtio/queue"
)

// Memory is the guest's RAM. Discard gives the n bytes at the guest-physical
// address gpa back to the host; the guest then reads zeroes. Both are multiples of
// 4 KiB and come from the guest: Discard fails where not all of them are RAM. It
// may be called from several goroutines at a time.
type Memory interface {
	Discard(gpa, n uint64) error
}

// Feature bits (virtio 1.2 §5.5.3).
const (
	featStatsVQ      = 1 << 1 // VIRTIO_BALLOON_F_STATS_VQ
	featDeflateOnOOM = 1 << 2 // VIRTIO_BALLOON_F_DEFLATE_ON_OOM
	featPagePoison   = 1 << 4 // VIRTIO_BALLOON_F_PAGE_POISON
	featReporting    = 1 << 5 // VIRTIO_BALLOON_F_PAGE_REPORTING
)

// The queues (§5.5.2).
const (
	inflateq   = 0
	deflateq   = 1
	statsq     = 2
	reportingq = 4

	numQueues = 5
	queueSize = 128
)

// The configuration space (§5.5.4).
const (
	configNumPages = 0
	configActual   = 4
	configPoison   = 12
	configSize     = 16
)

// PageSize is the unit of the balloon in bytes, whatever the guest's pages are
// (§5.5.6).
const PageSize = 4096

// A Device is one balloon. Its methods may be called from any goroutine.
type Device struct {
	mem      Memory
	changed  chan struct{} // has a token if the driver is to hear of a new target
	requests chan chan<- Stats
	counts   struct{ discarded, refused atomic.Uint64 }

	mu     sync.Mutex
	config [configSize]byte
}

// New returns a balloon that wants nothing yet.
func New(mem Memory) *Device {
	return &Device{mem: mem, changed: make(chan struct{}, 1), requests: make(chan chan<- Stats)}
}

// Type implements virtio.Device.
func (*Device) Type() virtio.Type { return virtio.Balloon }

// Features implements virtio.Device.
func (*Device) Features() uint64 {
	return featStatsVQ | featDeflateOnOOM | featPagePoison | featReporting
}

// QueueSizes implements virtio.Device.
func (*Device) QueueSizes() []int {
	sizes := make([]int, numQueues)
	for i := range sizes {
		sizes[i] = queueSize
	}
	return sizes
}

// Config implements virtio.Device.
func (d *Device) Config(p []byte) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return copy(p, d.config[:])
}

// StoreConfig implements virtio.ConfigStorer: actual and poison_val are the
// driver's.
func (d *Device) StoreConfig(off int, p []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, b := range p {
		if field := (off + i) &^ 3; field == configActual || field == configPoison {
			d.config[off+i] = b
		}
	}
}

// Negotiated implements virtio.ConfigStorer. A new driver has an empty balloon.
func (d *Device) Negotiated(uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.config[configActual:])
}

func (d *Device) field(off int) uint32 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return binary.LittleEndian.Uint32(d.config[off:])
}

// SetTarget asks the guest to have so many bytes in the balloon, in whole pages:
// less is left out. What the guest cannot spare it keeps. It fails for more than
// 16 TiB, which the device cannot say.
func (d *Device) SetTarget(bytes uint64) error {
	pages := bytes / PageSize
	if pages > math.MaxUint32 {
		return fmt.Errorf("virtio-balloon: a target of %d bytes: it must be less than %d", bytes, uint64(math.MaxUint32+1)*PageSize)
	}
	d.mu.Lock()
	binary.LittleEndian.PutUint32(d.config[configNumPages:], uint32(pages))
	d.mu.Unlock()
	select {
	case d.changed <- struct{}{}:
	default: // it has not heard of the last one yet
	}
	return nil
}

// Target is what SetTarget asked for, in bytes.
func (d *Device) Target() uint64 { return uint64(d.field(configNumPages)) * PageSize }

// Actual is what the driver says to have in the balloon, in bytes.
func (d *Device) Actual() uint64 { return uint64(d.field(configActual)) * PageSize }

// Counts is memory of the guest's, in bytes, since the device was made.
type Counts struct {
	// Discarded was given back to the host, by inflation or by report. The guest
	// may have taken it again since.
	Discarded uint64
	// Refused was offered by the guest, but is no RAM, or cannot be given back.
	Refused uint64
}

// Counts is what was done so far.
func (d *Device) Counts() Counts {
	return Counts{Discarded: d.counts.discarded.Load(), Refused: d.counts.refused.Load()}
}

// Serve implements virtio.Device.
func (d *Device) Serve(ctx context.Context, s *virtio.Session) error {
	return virtio.Together(ctx,
		func(ctx context.Context) error {
			for {
				select {
				case <-d.changed:
					s.ConfigChanged()
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		},
		func(ctx context.Context) error {
			return s.ServeQueues(ctx, func(ctx context.Context, i int, q *queue.Queue) error {
				return d.serve(ctx, s, i, q)
			})
		})
}

// serve serves one queue.
//
// A driver that has not negotiated a queue's feature does not have that queue.
// Linux until 2024 counted those behind it one lower, against §5.5.2. As no
// driver gets FREE_PAGE_HINT here, it has the reports at 3, or even at 2.
func (d *Device) serve(ctx context.Context, s *virtio.Session, i int, q *queue.Queue) error {
	switch {
	case i == inflateq:
		return d.inflate(ctx, s, q)
	case i == deflateq:
		return deflate(ctx, q)
	case i == statsq && s.Has(featStatsVQ):
		return d.serveStats(ctx, q)
	case i <= reportingq && s.Has(featReporting):
		return d.report(ctx, s, q)
	default:
		<-ctx.Done()
		return ctx.Err()
	}
}
