package qcow2

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrCreate is an image that cannot be made as asked for.
var ErrCreate = errors.New("cannot create qcow2 image")

// CreateOptions describe a new image. The zero value is version 3 with clusters
// of 64 KiB, reference counts of 16 bits and no backing file.
type CreateOptions struct {
	Version      int // 2 or 3
	ClusterBits  int // 9 to 21
	RefcountBits int // 1, 2, 4, …, 64; 16 in version 2

	// Backing is the backing file's name, relative to the image's folder, and
	// BackingFormat its format: "raw" or "qcow2".
	Backing, BackingFormat string
}

// Create writes an empty image for a disk of size bytes, a multiple of 512, to
// the empty file f. It does not close f. Compressed clusters are only read, so
// there is no compression to choose.
func Create(f File, size int64, o CreateOptions) error {
	c, err := newCreation(size, o)
	if err != nil {
		return err
	}
	image := make([]byte, c.blocksAt()+c.blocks<<c.bits)
	copy(image, c.header(o))
	for i := range c.blocks {
		at := c.blocksAt() + i<<c.bits
		binary.BigEndian.PutUint64(image[c.tableAt()+i*8:], uint64(at))
		block := image[at : at+1<<c.bits]
		for j := range min(c.perBlock, c.used()-i*c.perBlock) {
			setRefcount(block, c.order, j, 1)
		}
	}
	if err := f.WriteAt([][]byte{image}, 0); err != nil {
		return fmt.Errorf("%w: %w", ErrCreate, err)
	}
	// The L1 table lies behind everything else: it is long, and all zeroes.
	if c.l1Entries > 0 {
		end := c.l1At() + c.l1Entries*8
		if err := f.WriteAt([][]byte{make([]byte, 8)}, end-8); err != nil {
			return fmt.Errorf("%w: %w", ErrCreate, err)
		}
	}
	return f.Sync()
}

// A creation is the layout of an empty image: header, refcount table, refcount
// blocks, L1 table.
type creation struct {
	version         uint32
	bits            uint32 // of a cluster
	order           uint32
	size            int64
	l1Entries       int64
	table, blocks   int64 // clusters of the refcount table, refcount blocks
	l1              int64 // clusters of the L1 table
	perBlock        int64 // reference counts in a block
	perTableCluster int64 // blocks that a cluster of the table points to
}

func newCreation(size int64, o CreateOptions) (*creation, error) {
	if o.Version == 0 {
		o.Version = 3
	}
	if o.ClusterBits == 0 {
		o.ClusterBits = 16
	}
	if o.RefcountBits == 0 {
		o.RefcountBits = 16
	}
	if o.Version != 2 && o.Version != 3 {
		return nil, fmt.Errorf("%w: version %d is neither 2 nor 3", ErrCreate, o.Version)
	}
	if o.ClusterBits < minClusterBits || o.ClusterBits > maxClusterBits {
		return nil, fmt.Errorf("%w: clusters of 1<<%d bytes; take 1<<%d to 1<<%d", ErrCreate, o.ClusterBits, minClusterBits, maxClusterBits)
	}
	c := &creation{version: uint32(o.Version), bits: uint32(o.ClusterBits), size: size}
	for c.order < 7 && 1<<c.order != o.RefcountBits {
		c.order++
	}
	if c.order == 7 || o.Version == 2 && c.order != 4 {
		return nil, fmt.Errorf("%w: version %d with reference counts of %d bits", ErrCreate, o.Version, o.RefcountBits)
	}
	if size < 0 || size%512 != 0 {
		return nil, fmt.Errorf("%w: size %d is not a multiple of 512", ErrCreate, size)
	}
	c.l1Entries = l1EntriesFor(size, c.bits)
	if c.l1Entries*8 > maxL1Bytes {
		return nil, fmt.Errorf("%w: a disk of %d bytes needs larger clusters than 1<<%d bytes", ErrCreate, size, c.bits)
	}
	if len(o.Backing) > maxBackingName || len(c.header(o)) > 1<<c.bits {
		return nil, fmt.Errorf("%w: the backing file's name has %d bytes, too many", ErrCreate, len(o.Backing))
	}
	c.l1 = clusters(c.l1Entries*8, c.bits)
	c.perBlock = 8 << c.bits >> c.order
	c.perTableCluster = 1 << c.bits / 8
	for before := int64(-1); before != c.used(); {
		before = c.used()
		c.blocks = (before + c.perBlock - 1) / c.perBlock
		c.table = max(1, (c.blocks+c.perTableCluster-1)/c.perTableCluster)
	}
	return c, nil
}

// clusters is how many clusters n bytes take.
func clusters(n int64, bits uint32) int64 { return (n + 1<<bits - 1) >> bits }

func (c *creation) used() int64     { return 1 + c.table + c.blocks + c.l1 }
func (c *creation) tableAt() int64  { return 1 << c.bits }
func (c *creation) blocksAt() int64 { return (1 + c.table) << c.bits }
func (c *creation) l1At() int64     { return (1 + c.table + c.blocks) << c.bits }

// header is the image's first cluster, as far as it is not zero.
func (c *creation) header(o CreateOptions) []byte {
	be := binary.BigEndian
	length := headerV2
	if c.version == 3 {
		length = headerUs
	}
	p := make([]byte, length)
	copy(p, Magic)
	be.PutUint32(p[4:], c.version)
	be.PutUint32(p[hdrClusterBits:], c.bits)
	be.PutUint64(p[hdrSize:], uint64(c.size))
	be.PutUint32(p[hdrL1Size:], uint32(c.l1Entries))
	be.PutUint64(p[hdrL1Offset:], uint64(c.l1At()))
	be.PutUint64(p[hdrRefTableOffset:], uint64(c.tableAt()))
	be.PutUint32(p[hdrRefTableLength:], uint32(c.table))
	if c.version == 3 {
		be.PutUint32(p[hdrRefcountOrder:], c.order)
		be.PutUint32(p[hdrLength:], uint32(length))
	}
	if o.Backing == "" {
		return p
	}
	if o.BackingFormat != "" {
		p = be.AppendUint32(p, extBackingFormat)
		p = be.AppendUint32(p, uint32(len(o.BackingFormat)))
		p = append(p, o.BackingFormat...)
		p = append(p, make([]byte, -len(o.BackingFormat)&7)...)
	}
	p = append(p, make([]byte, 8)...) // the end of the extensions
	be.PutUint64(p[hdrBackingOffset:], uint64(len(p)))
	be.PutUint32(p[hdrBackingSize:], uint32(len(o.Backing)))
	return append(p, o.Backing...)
}
