package blk

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"github.com/huskvm/husk/devices/virtio"
)

// Feature bits (virtio 1.2 §5.2.3).
const (
	featSizeMax     = 1 << 1  // VIRTIO_BLK_F_SIZE_MAX
	featSegMax      = 1 << 2  // VIRTIO_BLK_F_SEG_MAX
	featRO          = 1 << 5  // VIRTIO_BLK_F_RO
	featBlkSize     = 1 << 6  // VIRTIO_BLK_F_BLK_SIZE
	featFlush       = 1 << 9  // VIRTIO_BLK_F_FLUSH
	featTopology    = 1 << 10 // VIRTIO_BLK_F_TOPOLOGY
	featConfigWCE   = 1 << 11 // VIRTIO_BLK_F_CONFIG_WCE
	featMQ          = 1 << 12 // VIRTIO_BLK_F_MQ
	featDiscard     = 1 << 13 // VIRTIO_BLK_F_DISCARD
	featWriteZeroes = 1 << 14 // VIRTIO_BLK_F_WRITE_ZEROES
)

const (
	// sectorSize is the unit of the protocol in bytes, whatever the block size.
	sectorSize = 512

	queueSize = 256
	// maxQueues bounds Config.Queues, maxDepth Config.Depth.
	maxQueues = 64
	maxDepth  = queueSize
	// maxSegments leaves room in the queue for the header and the status.
	maxSegments = queueSize - 2
	// maxSegment is the longest segment that a driver should make, in bytes.
	maxSegment = 128 << 10
	// maxData is the longest request that follows from that. One buffer named again
	// and again can make one of 4 GiB, and who stops the device would wait for it.
	maxData = maxSegments * maxSegment
	// maxAtWork bounds what a queue's requests under way have to do, in bytes, for
	// the same reason. It is exceeded by one request.
	maxAtWork = 32 << 20

	// maxRanges bounds the ranges of a discard or write-zeroes request, and
	// maxRangeSectors the length of each, which a host may have to write.
	maxRanges       = 4
	maxRangeSectors = 64 << 20 / sectorSize

	serialSize = 20 // bytes (§5.2.6)
)

// A Config is what a device shows of its disk. Sizes are in bytes.
type Config struct {
	Disk Disk
	// Size is the disk's. A last part of less than 512 bytes is not shown.
	Size int64
	// BlockSize is that of the disk's blocks as software sees them, PhysicalSize
	// that of the blocks below. Powers of two from 512; 0 is 512 and BlockSize.
	BlockSize, PhysicalSize int
	ReadOnly                bool
	// Discard offers the driver to give up ranges of the disk.
	Discard bool
	// Serial is the disk's name for the guest, at most 20 bytes of ASCII.
	Serial string
	// Queues is how many queues there are, Depth how many requests of each are
	// worked on at a time. 0 is 1 and 64.
	Queues, Depth int
}

// validate fills in what was left open.
func (c *Config) validate() error {
	if c.BlockSize == 0 {
		c.BlockSize = sectorSize
	}
	if c.PhysicalSize == 0 {
		c.PhysicalSize = c.BlockSize
	}
	if c.Queues == 0 {
		c.Queues = 1
	}
	if c.Depth == 0 {
		c.Depth = 64
	}
	power := func(n int) bool { return n >= sectorSize && n <= 1<<20 && n&(n-1) == 0 }
	switch {
	case c.Size < 0:
		return fmt.Errorf("virtio-blk: a disk of %d bytes", c.Size)
	case !power(c.BlockSize) || !power(c.PhysicalSize) || c.PhysicalSize < c.BlockSize:
		return fmt.Errorf("virtio-blk: block sizes %d and %d: they must be powers of two, 512 to 1 MiB, the physical one not smaller", c.BlockSize, c.PhysicalSize)
	case c.Queues < 0 || c.Queues > maxQueues:
		return fmt.Errorf("virtio-blk: %d queues: give 1 to %d", c.Queues, maxQueues)
	case c.Depth < 0 || c.Depth > maxDepth:
		return fmt.Errorf("virtio-blk: an iodepth of %d: give 1 to %d", c.Depth, maxDepth)
	case len(c.Serial) > serialSize:
		return fmt.Errorf("virtio-blk: the serial %q is longer than %d bytes", c.Serial, serialSize)
	}
	for _, b := range []byte(c.Serial) {
		if b < ' ' || b > '~' {
			return fmt.Errorf("virtio-blk: the serial %q is not printable ASCII", c.Serial)
		}
	}
	return nil
}

// capacity is the disk's size in sectors.
func (c *Config) capacity() uint64 { return uint64(c.Size) / sectorSize }

func (c *Config) features() uint64 {
	f := uint64(featSizeMax | featSegMax | featBlkSize | featFlush | featTopology)
	if c.Queues > 1 {
		f |= featMQ
	}
	if c.ReadOnly {
		return f | featRO
	}
	f |= featConfigWCE | featWriteZeroes
	if c.Discard {
		f |= featDiscard
	}
	return f
}

// Offsets in the configuration space (§5.2.4).
const (
	cfgCapacity          = 0
	cfgSizeMax           = 8
	cfgSegMax            = 12
	cfgBlkSize           = 20
	cfgPhysicalExp       = 24
	cfgMinIOSize         = 26
	cfgWriteback         = 32
	cfgNumQueues         = 34
	cfgMaxDiscardSectors = 36
	cfgMaxDiscardSeg     = 40
	cfgDiscardAlignment  = 44
	cfgMaxZeroesSectors  = 48
	cfgMaxZeroesSeg      = 52
	cfgZeroesMayUnmap    = 56
	cfgSize              = 60
)

// Config implements virtio.Device.
func (d *Device) Config(p []byte) int {
	le := binary.LittleEndian
	p = p[:cfgSize]
	clear(p)
	le.PutUint64(p[cfgCapacity:], d.c.capacity())
	le.PutUint32(p[cfgSizeMax:], maxSegment)
	le.PutUint32(p[cfgSegMax:], maxSegments)
	le.PutUint32(p[cfgBlkSize:], uint32(d.c.BlockSize))
	blocks := d.c.PhysicalSize / d.c.BlockSize
	p[cfgPhysicalExp] = byte(bits.TrailingZeros(uint(blocks)))
	le.PutUint16(p[cfgMinIOSize:], uint16(blocks))
	if d.writeback.Load() {
		p[cfgWriteback] = 1
	}
	le.PutUint16(p[cfgNumQueues:], uint16(d.c.Queues))
	if d.c.features()&featDiscard != 0 {
		le.PutUint32(p[cfgMaxDiscardSectors:], maxRangeSectors)
		le.PutUint32(p[cfgMaxDiscardSeg:], maxRanges)
		le.PutUint32(p[cfgDiscardAlignment:], uint32(d.c.PhysicalSize/sectorSize))
		p[cfgZeroesMayUnmap] = 1
	}
	if d.c.features()&featWriteZeroes != 0 {
		le.PutUint32(p[cfgMaxZeroesSectors:], maxRangeSectors)
		le.PutUint32(p[cfgMaxZeroesSeg:], maxRanges)
	}
	return cfgSize
}

// StoreConfig implements virtio.ConfigStorer: the driver chooses between a
// write-back and a write-through cache.
func (d *Device) StoreConfig(off int, p []byte) {
	if i := cfgWriteback - off; i >= 0 && i < len(p) && d.negotiated.Load()&featConfigWCE != 0 {
		d.writeback.Store(p[i]&1 != 0)
	}
}

// Negotiated implements virtio.ConfigStorer. A driver that does not know how to
// flush has its writes flushed for it (§5.2.5.2, §5.2.6.2).
func (d *Device) Negotiated(features uint64) {
	d.negotiated.Store(features)
	d.writeback.Store(features == 0 || features&featFlush != 0)
}

var _ virtio.ConfigStorer = (*Device)(nil)
