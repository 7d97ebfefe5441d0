package blk

import (
	"encoding/binary"
	"fmt"
	"io"

	"github.com/huskvm/husk/devices/virtio/queue"
)

// The types of a request (virtio 1.2 §5.2.6).
const (
	typeIn          = 0  // VIRTIO_BLK_T_IN
	typeOut         = 1  // VIRTIO_BLK_T_OUT
	typeFlush       = 4  // VIRTIO_BLK_T_FLUSH
	typeGetID       = 8  // VIRTIO_BLK_T_GET_ID
	typeDiscard     = 11 // VIRTIO_BLK_T_DISCARD
	typeWriteZeroes = 13 // VIRTIO_BLK_T_WRITE_ZEROES
)

// A status is how a request ended.
type status byte

const (
	statusOK          status = 0 // VIRTIO_BLK_S_OK
	statusIOErr       status = 1 // VIRTIO_BLK_S_IOERR
	statusUnsupported status = 2 // VIRTIO_BLK_S_UNSUPP
)

const (
	headerSize = 16 // struct virtio_blk_req up to its data
	rangeSize  = 16 // struct virtio_blk_discard_write_zeroes
	flagUnmap  = 1
)

// A request is a chain whose header was copied.
type request struct {
	chain  *queue.Chain
	kind   uint32
	sector uint64
	out    [][]byte // what the driver writes
	in     [][]byte // room for what it reads
	room   uint64   // the length of in
	status []byte   // one byte, the last of the chain
}

// parse takes the header off the front of a chain and the status byte off its
// end, however the chain is cut (§2.7.4.1). A chain that has no room for them has
// no way to say so, and is a fault of the driver: queue.ErrBadChain.
func parse(c *queue.Chain) (request, error) {
	var h [headerSize]byte
	if n, _ := c.Read(h[:]); n < headerSize {
		return request{}, fmt.Errorf("%w: a block request without a header of %d bytes", queue.ErrBadChain, headerSize)
	}
	if len(c.In) == 0 {
		return request{}, fmt.Errorf("%w: a block request without room for its status", queue.ErrBadChain)
	}
	last := len(c.In) - 1
	end := len(c.In[last]) - 1
	r := request{
		chain: c, kind: binary.LittleEndian.Uint32(h[0:]), sector: binary.LittleEndian.Uint64(h[8:]),
		out: c.Out, in: c.In, status: c.In[last][end:],
	}
	if r.in[last] = r.in[last][:end]; end == 0 {
		r.in = r.in[:last]
	}
	r.room = queue.Len(r.in)
	return r, nil
}

// weight is what r has to do, in bytes. That of ranges is not known before they
// are read, so it counts as a lot.
func (r *request) weight() int64 {
	switch r.kind {
	case typeIn, typeOut:
		return int64(min(r.room+queue.Len(r.out), maxData))
	case typeDiscard, typeWriteZeroes:
		return maxAtWork
	}
	return 0
}

// An extent is a piece of the disk, in bytes.
type extent struct {
	off, n int64
}

// data is the extent of a request with n bytes of data.
func (c *Config) data(sector, n uint64) (extent, error) {
	if n > maxData {
		return extent{}, fmt.Errorf("%d bytes at once, more than %d", n, maxData)
	}
	return c.extent(sector, n)
}

// extent checks that n bytes from sector on are whole sectors of the disk.
func (c *Config) extent(sector, n uint64) (extent, error) {
	capacity := c.capacity()
	if n%sectorSize != 0 {
		return extent{}, fmt.Errorf("%d bytes are not whole sectors", n)
	}
	if sector > capacity || n/sectorSize > capacity-sector {
		return extent{}, fmt.Errorf("sectors %d to %d of %d", sector, sector+n/sectorSize, capacity)
	}
	return extent{int64(sector) * sectorSize, int64(n)}, nil
}

// A rangeOp is one range of a discard or write-zeroes request.
type rangeOp struct {
	extent
	unmap bool
}

// nextRange takes a range off the front of r's data: io.EOF behind the last one.
// A range that is refused comes with the status that says so.
func (c *Config) nextRange(r *request) (rangeOp, status, error) {
	var b [rangeSize]byte
	switch n, _ := r.chain.Read(b[:]); {
	case n == 0:
		return rangeOp{}, statusOK, io.EOF
	case n < rangeSize:
		return rangeOp{}, statusIOErr, fmt.Errorf("a range shorter than %d bytes", rangeSize)
	}
	sector, sectors := binary.LittleEndian.Uint64(b[0:]), binary.LittleEndian.Uint32(b[8:])
	flags := binary.LittleEndian.Uint32(b[12:])
	if flags&^flagUnmap != 0 || flags != 0 && r.kind == typeDiscard {
		return rangeOp{}, statusUnsupported, fmt.Errorf("flags %#x", flags) // §5.2.6.2
	}
	if sectors > maxRangeSectors {
		return rangeOp{}, statusIOErr, fmt.Errorf("%d sectors at once, more than %d", sectors, maxRangeSectors)
	}
	e, err := c.extent(sector, uint64(sectors)*sectorSize)
	if err != nil {
		return rangeOp{}, statusIOErr, err
	}
	return rangeOp{e, flags&flagUnmap != 0}, statusOK, nil
}
