package net

import "sync/atomic"

// Stats counts frames and their bytes without the header of virtio, as the guest
// sees them: what it receives, and what it sends. What a Kernel moves is not in it: the
// host counts that at the interface.
type Stats struct {
	RxFrames, RxBytes uint64
	// RxDropped are frames that did not fit into the driver's buffers, or that it
	// can not take.
	RxDropped         uint64
	TxFrames, TxBytes uint64
	// TxDropped are frames that were malformed, or that the link did not take.
	TxDropped uint64
}

type counters struct {
	rx, tx direction
}

type direction struct {
	frames, bytes, dropped atomic.Uint64
}

func (c *direction) passed(bytes int) {
	c.frames.Add(1)
	c.bytes.Add(uint64(bytes))
}

// Stats is what passed so far.
func (d *Device) Stats() Stats {
	rx, tx := &d.stats.rx, &d.stats.tx
	return Stats{
		RxFrames: rx.frames.Load(), RxBytes: rx.bytes.Load(), RxDropped: rx.dropped.Load(),
		TxFrames: tx.frames.Load(), TxBytes: tx.bytes.Load(), TxDropped: tx.dropped.Load(),
	}
}
