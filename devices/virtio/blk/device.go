// Package blk is the block device (virtio 1.2 §5.2): requests of the driver,
// done on a Disk.
package blk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync/atomic"

	"github.com/huskvm/husk/devices/virtio"
	"github.com/huskvm/husk/devices/virtio/queue"
)

// A Disk is what a device reads and writes. Offsets and lengths are in bytes,
// whole sectors of 512 bytes within the disk. Its methods are called from several
// goroutines at once, and do all of what they are asked, or fail.
//
// ReadAt fills segments, and WriteAt writes them, one after the other. They are
// the guest's memory, at most about a thousand, and none is empty.
//
// A Disk logs what fails on the host: the device does not, unless its log is a
// debugging one.
//
// Flush returns when all writes that had returned before are on stable storage.
//
// Discard gives up a range: what it reads as afterwards is open. WriteZeroes makes
// it read as zeroes, and may give up the space below if unmap is set.
type Disk interface {
	ReadAt(segments [][]byte, off int64) error
	WriteAt(segments [][]byte, off int64) error
	Flush() error
	Discard(off, n int64) error
	WriteZeroes(off, n int64, unmap bool) error
}

// A Device is one block device.
type Device struct {
	c          Config
	negotiated atomic.Uint64
	// writeback says that the driver flushes. Without, each write is flushed
	// before the driver hears that it is done.
	writeback atomic.Bool
	stats     counters
}

// New returns a device for a disk. It fails if the configuration cannot be.
func New(c Config) (*Device, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	d := &Device{c: c}
	d.Negotiated(0)
	return d, nil
}

// Type implements virtio.Device.
func (*Device) Type() virtio.Type { return virtio.Block }

// Features implements virtio.Device.
func (d *Device) Features() uint64 { return d.c.features() }

// QueueSizes implements virtio.Device.
func (d *Device) QueueSizes() []int {
	sizes := make([]int, d.c.Queues)
	for i := range sizes {
		sizes[i] = queueSize
	}
	return sizes
}

// Serve implements virtio.Device.
func (d *Device) Serve(ctx context.Context, s *virtio.Session) error {
	return s.ServeQueues(ctx, func(ctx context.Context, _ int, q *queue.Queue) error {
		return newServer(d, q, s.Log).serve(ctx)
	})
}

// do does a request, and returns its status and how many bytes of its data it
// has read.
func (d *Device) do(r *request, log *slog.Logger) (status, uint64) {
	n, st, err := d.try(r)
	if err != nil {
		log.Debug("virtio-blk: a request failed", "type", r.kind, "sector", r.sector, "err", err)
	}
	return st, n
}

var (
	errReadOnly = errors.New("the disk is read-only")
	errNotKnown = errors.New("requests of this type are not offered")
)

func (d *Device) try(r *request) (read uint64, _ status, _ error) {
	switch r.kind {
	case typeIn:
		e, err := d.c.data(r.sector, r.room)
		if err == nil && e.n > 0 {
			err = d.c.Disk.ReadAt(r.in, e.off)
		}
		if err != nil {
			return 0, statusIOErr, err
		}
		d.stats.reads.Add(1)
		d.stats.readBytes.Add(uint64(e.n))
		return uint64(e.n), statusOK, nil
	case typeFlush:
		err := d.c.Disk.Flush()
		return 0, result(err), err
	case typeGetID:
		var id [serialSize]byte
		copy(id[:], d.c.Serial)
		n, _ := r.chain.Write(id[:min(serialSize, r.room)])
		return uint64(n), statusOK, nil
	case typeOut, typeDiscard, typeWriteZeroes:
		if d.c.ReadOnly {
			return 0, statusIOErr, errReadOnly
		}
		st, err := d.change(r)
		if st == statusOK && !d.writeback.Load() {
			err = d.c.Disk.Flush()
			st = result(err)
		}
		return 0, st, err
	}
	return 0, statusUnsupported, nil // drivers probe for some
}

func result(err error) status {
	if err != nil {
		return statusIOErr
	}
	return statusOK
}

// change does a request that changes the disk.
func (d *Device) change(r *request) (status, error) {
	if r.kind == typeOut {
		e, err := d.c.data(r.sector, queue.Len(r.out))
		if err == nil && e.n > 0 {
			err = d.c.Disk.WriteAt(r.out, e.off)
		}
		if err == nil {
			d.stats.writes.Add(1)
			d.stats.writeBytes.Add(uint64(e.n))
		}
		return result(err), err
	}
	if r.kind == typeDiscard && !d.c.Discard {
		return statusUnsupported, errNotKnown
	}
	for n := 0; ; n++ {
		g, st, err := d.c.nextRange(r)
		if errors.Is(err, io.EOF) {
			return statusOK, nil
		}
		if err != nil {
			return st, err
		}
		if n == maxRanges {
			return statusIOErr, fmt.Errorf("more than %d ranges", maxRanges)
		}
		switch {
		case g.n == 0:
		case r.kind == typeDiscard:
			err = d.c.Disk.Discard(g.off, g.n)
		default:
			err = d.c.Disk.WriteZeroes(g.off, g.n, g.unmap && d.c.Discard)
		}
		if err != nil {
			return statusIOErr, err
		}
	}
}
