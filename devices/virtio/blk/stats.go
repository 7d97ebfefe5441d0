package blk

import "sync/atomic"

// Stats counts what was done, as the guest sees it: requests, and their bytes.
type Stats struct {
	Reads, ReadBytes   uint64
	Writes, WriteBytes uint64
}

type counters struct {
	reads, readBytes, writes, writeBytes atomic.Uint64
}

// Stats is what was done so far.
func (d *Device) Stats() Stats {
	c := &d.stats
	return Stats{c.reads.Load(), c.readBytes.Load(), c.writes.Load(), c.writeBytes.Load()}
}
