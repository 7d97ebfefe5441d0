package queue

import (
	"encoding/binary"
	"fmt"
	"io"
)

const (
	// maxBytes bounds the length of a chain (virtio 1.2 §2.7.5.2).
	maxBytes = 1 << 32
	// maxDescriptors bounds the descriptors of a chain. §2.7.5.3.1 says the
	// queue's size; Linux makes longer ones with indirect descriptors.
	maxDescriptors = 1024
)

// A Chain is a request: buffers that the device reads, and buffers that it
// writes. They are the guest's memory, which may change at any time: what must
// be checked is copied first.
//
// How a request is cut into buffers says nothing (§2.7.4.1), so a device takes
// structures off the front with Read and Write, whatever the cuts. An empty
// buffer is left out.
type Chain struct {
	Out, In [][]byte // device-readable, device-writable

	head     uint16
	segments [][]byte // Out, then In, as they were at first
	gpas     []uint64 // of the segments
	outs     int      // how many of them are Out
}

// InRanges yields the guest-physical address and the length in bytes of each
// buffer of In, for requests that are about the memory itself. It holds before
// anything was read or written.
func (c *Chain) InRanges(yield func(gpa, n uint64) bool) {
	for i := c.outs; i < len(c.segments); i++ {
		if !yield(c.gpas[i], uint64(len(c.segments[i]))) {
			return
		}
	}
}

// Read copies the front of Out into p and takes it off: less than p holds only
// where Out ends.
func (c *Chain) Read(p []byte) (int, error) {
	n, rest := move(c.Out, func(done int, s []byte) int { return copy(p[done:], s) })
	c.Out = rest
	if n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return n, nil
}

// Write copies p to the front of In and takes that off. It fails with
// io.ErrShortWrite if there is no room for all of p.
func (c *Chain) Write(p []byte) (int, error) {
	n, rest := move(c.In, func(done int, s []byte) int { return copy(s, p[done:]) })
	c.In = rest
	if n < len(p) {
		return n, io.ErrShortWrite
	}
	return n, nil
}

// move takes bytes off the front of segments as long as f, which gets how many
// were taken before, takes whole segments.
func move(segments [][]byte, f func(done int, s []byte) int) (int, [][]byte) {
	done := 0
	for len(segments) > 0 {
		n := f(done, segments[0])
		done += n
		if n < len(segments[0]) {
			segments[0] = segments[0][n:]
			break
		}
		segments = segments[1:]
	}
	return done, segments
}

// Len is the length of segments in bytes. It is at most 4 GiB.
func Len(segments [][]byte) uint64 {
	n := uint64(0)
	for _, s := range segments {
		n += uint64(len(s))
	}
	return n
}

// descSize is the size of a descriptor in bytes.
const descSize = 16

// The flags of a descriptor (§2.7.5).
const (
	flagNext     = 1 // VIRTQ_DESC_F_NEXT
	flagWrite    = 2 // VIRTQ_DESC_F_WRITE
	flagIndirect = 4 // VIRTQ_DESC_F_INDIRECT
)

type descriptor struct {
	addr  uint64
	len   uint32
	flags uint16
	next  uint16
}

// descriptorAt copies a descriptor, once: the guest may change it meanwhile.
func descriptorAt(table []byte, i int) descriptor {
	var b [descSize]byte
	copy(b[:], table[i*descSize:])
	return descriptor{
		addr:  binary.LittleEndian.Uint64(b[0:]),
		len:   binary.LittleEndian.Uint32(b[8:]),
		flags: binary.LittleEndian.Uint16(b[12:]),
		next:  binary.LittleEndian.Uint16(b[14:]),
	}
}

// walk follows the chain from head and fills c.
func (q *Queue) walk(c *Chain, head uint16) error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w at descriptor %d: %s", ErrBadChain, head, fmt.Sprintf(format, args...))
	}
	c.head, c.segments, c.gpas = head, c.segments[:0], c.gpas[:0]
	table, size, limit := q.desc, int(q.size), int(q.size)
	indirect, outs, total := false, -1, uint64(0)
	for i, n := int(head), 0; ; n++ {
		if i >= size {
			return bad("it leads to descriptor %d of %d", i, size)
		}
		if n == limit {
			return bad("it has more than %d descriptors, or is a loop", limit)
		}
		d := descriptorAt(table, i)
		if d.flags&flagIndirect != 0 {
			switch {
			case !q.features.IndirectDesc:
				return bad("INDIRECT was not negotiated")
			case indirect:
				return bad("a table of descriptors inside another")
			case d.flags&flagNext != 0:
				return bad("NEXT beside INDIRECT")
			case d.len == 0 || d.len%descSize != 0:
				return bad("a table of %d bytes", d.len)
			}
			t, err := q.mem.Readable(d.addr, uint64(d.len))
			if err != nil {
				return bad("table of descriptors: %v", err)
			}
			indirect, table, size, i = true, t, len(t)/descSize, 0
			limit = n + 1 + max(int(q.size), maxDescriptors)
			continue
		}
		write := d.flags&flagWrite != 0
		if write && outs < 0 {
			outs = len(c.segments)
		} else if !write && outs >= 0 {
			return bad("a device-readable buffer behind a device-writable one")
		}
		if total += uint64(d.len); total > maxBytes {
			return bad("it is longer than 4 GiB")
		}
		if d.len > 0 {
			ask := q.mem.Readable
			if write {
				ask = q.mem.Writable
			}
			s, err := ask(d.addr, uint64(d.len))
			if err != nil {
				return bad("buffer: %v", err)
			}
			c.segments, c.gpas = append(c.segments, s), append(c.gpas, d.addr)
		}
		if d.flags&flagNext == 0 {
			break
		}
		i = int(d.next)
	}
	if outs < 0 {
		outs = len(c.segments)
	}
	c.outs = outs
	c.Out, c.In = c.segments[:outs:outs], c.segments[outs:]
	return nil
}
