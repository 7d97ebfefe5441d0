package balloon

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/huskvm/husk/devices/virtio/queue"
)

// ErrNoStats is that the guest's driver has not told statistics.
var ErrNoStats = errors.New("virtio-balloon: the guest told no statistics")

// A Stat is a figure about the guest's memory (virtio 1.2 §5.5.6.4; from OOMKill
// on, Linux's uapi/linux/virtio_balloon.h).
type Stat uint16

// The figures: in bytes, or how often something happened since the guest booted.
const (
	SwapIn         Stat = iota // bytes read from swap
	SwapOut                    // bytes written to swap
	MajorFaults                // page faults that took I/O
	MinorFaults                // page faults that took none
	Free                       // bytes in no use
	Total                      // bytes there are
	Available                  // bytes to be had without swapping
	Caches                     // bytes of file caches
	HugetlbAllocs              // huge pages allocated
	HugetlbFails               // huge pages not allocated
	OOMKills                   // processes killed for want of memory
	AllocStalls                // allocations that waited for reclaim
	AsyncScans                 // pages looked at by background reclaim
	DirectScans                // pages looked at by those who waited
	AsyncReclaims              // pages that background reclaim freed
	DirectReclaims             // pages that those who waited freed

	numStats
)

// Stats has the figures that the driver told.
type Stats map[Stat]uint64

// entrySize is that of struct virtio_balloon_stat, which is packed.
const entrySize = 10

// maxEntries bounds how many figures of a request are read.
const maxEntries = 64

// Stats asks the driver for statistics and waits for them. It fails with
// ErrNoStats when ctx ends first, as it does where no driver is, and when the
// device is stopped.
func (d *Device) Stats(ctx context.Context) (Stats, error) {
	reply := make(chan Stats, 1)
	select {
	case d.requests <- reply:
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", ErrNoStats, ctx.Err())
	}
	select {
	case s, ok := <-reply:
		if !ok {
			return nil, fmt.Errorf("%w: the device was stopped", ErrNoStats)
		}
		return s, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", ErrNoStats, ctx.Err())
	}
}

// serveStats serves statsq: the driver leaves a buffer of figures with the
// device, and when it gets that back, gives another with new ones (§5.5.6.3).
func (d *Device) serveStats(ctx context.Context, q *queue.Queue) error {
	var reply chan<- Stats
	defer func() {
		if reply != nil {
			close(reply)
		}
	}()
	for {
		c, err := q.Take(ctx)
		if err != nil {
			return err
		}
		stats := readStats(c)
		if reply != nil {
			reply <- stats
			reply = nil
		}
		select {
		case reply = <-d.requests:
			q.Push(c, 0)
		case <-ctx.Done():
			q.Return(c)
			return ctx.Err()
		}
	}
}

// readStats reads the figures in c. Those it does not know are left out.
func readStats(c *queue.Chain) Stats {
	stats := Stats{}
	var e [entrySize]byte
	for range maxEntries {
		if n, _ := c.Read(e[:]); n < len(e) {
			break
		}
		if tag := Stat(binary.LittleEndian.Uint16(e[:])); tag < numStats {
			stats[tag] = binary.LittleEndian.Uint64(e[2:])
		}
	}
	return stats
}
