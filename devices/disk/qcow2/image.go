// Package qcow2 reads and writes disk images in QEMU's qcow2 format, versions 2
// and 3 (QEMU, docs/interop/qcow2.txt).
//
// Changes of the tables stay in memory until Flush, Close, or until there are
// too many. They are written in an order that leaves a valid image wherever it is cut
// off: what is new and not yet pointed to first (data, reference counts, new
// tables), then a fence, then the pointers, then a fence, and only then are
// clusters that nothing points to any more counted as free. A crash leaks
// clusters at worst.
package qcow2

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/huskvm/husk/devices/iovec"
)

// A File is where an image is kept. It is used by several goroutines at once.
type File interface {
	// ReadAt fills v from off on. Behind the end of the file there are zeroes.
	ReadAt(v [][]byte, off int64) error
	// WriteAt writes all of v, and makes the file longer where needed.
	WriteAt(v [][]byte, off int64) error
	// Sync returns when all writes that have returned will survive a crash. Its
	// failure means that some may not.
	Sync() error
	// PunchHole gives the space of a range back, if it can.
	PunchHole(off, n int64) error
	// Size is the file's length in bytes.
	Size() (int64, error)
	Close() error
}

// A Backing holds what an image itself does not.
type Backing interface {
	ReadAt(v [][]byte, off int64) error
	Size() int64
	Close() error
}

// Options say how an image is opened.
type Options struct {
	ReadOnly bool
	// Base, if not nil, is the image's backing file, whatever its header says.
	Base Backing
	// OpenBacking opens the backing file that the header names, whose format is
	// empty if the header does not tell. Nil refuses images with a backing file.
	OpenBacking func(name, format string) (Backing, error)
	// PunchHoles gives the space of discarded clusters back to the host.
	PunchHoles bool
	Log        *slog.Logger
}

// Memory for tables, in bytes.
const (
	l2Memory       = 32 << 20 // covers 256 GiB by clusters of 64 KiB
	refBlockMemory = 4 << 20
	minTables      = 4 // of each, whatever their size
)

// An Image is an open qcow2 image. All its methods but Close may be called by
// several goroutines at once.
type Image struct {
	file    File
	backing Backing
	log     *slog.Logger

	readOnly, punch bool
	size            int64 // of the virtual disk
	version         uint32
	clusterBits     uint32
	clusterSize     int64
	l2Entries       int64 // in an L2 table
	refcountOrder   uint32
	blockEntries    int64 // in a refcount block
	snapshotsOffset int64
	unpack          *unpacker
	zeroes          []byte // one cluster
	buffers         sync.Pool

	// inflight is held for reading while clusters are read or written on the
	// strength of a mapping. Who takes it for writing knows that no mapping from
	// before is in use any more.
	inflight sync.RWMutex

	// committing serialises commits and the growth of the refcount table. It is
	// taken before mu and inflight.
	committing sync.Mutex

	// mu guards what follows. It is not held while data moves.
	mu          sync.Mutex
	l1, refs    *table // the L1 table and the refcount table
	l2s, blocks *cache
	hint        int64 // no cluster below is free
	fileEnd     int64 // nothing was ever written here and beyond
	allocations []*allocation
	freeing     []extent // unmapped clusters, their references not yet dropped
	dataFirst   bool     // L2 entries in memory point to data written since the last fence
	commits     uint64
	broken      error // the file may not be what memory says: no more metadata is written
	warned      bool  // of a reference count below zero
}

// Open opens the image in f. It closes f and the backing files when it fails,
// and Close does later.
func Open(f File, o Options) (_ *Image, err error) {
	q := &Image{file: f, readOnly: o.ReadOnly, punch: o.PunchHoles, backing: o.Base, log: o.Log}
	defer func() {
		if err != nil {
			_ = q.closeFiles()
		}
	}()
	if q.log == nil {
		q.log = slog.New(slog.DiscardHandler)
	}
	if q.fileEnd, err = f.Size(); err != nil {
		return nil, err
	}
	h, err := readHeader(f, q.fileEnd)
	if err != nil {
		return nil, err
	}
	if err := q.adopt(h); err != nil {
		return nil, err
	}
	if q.backing == nil && h.backing != "" {
		if o.OpenBacking == nil {
			return nil, fmt.Errorf("%w: backing file %q", ErrUnsupported, h.backing)
		}
		if q.backing, err = o.OpenBacking(h.backing, h.backingFormat); err != nil {
			return nil, fmt.Errorf("backing file %q: %w", h.backing, err)
		}
	}
	q.unpack, err = newUnpacker(h.compression, q.clusterSize)
	return q, err
}

// readHeader reads the first cluster of a file of size bytes.
func readHeader(f File, size int64) (*header, error) {
	p := make([]byte, min(size, 1<<minClusterBits))
	if err := f.ReadAt([][]byte{p}, 0); err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	if len(p) >= headerV2 {
		bits := min(binary.BigEndian.Uint32(p[hdrClusterBits:]), maxClusterBits)
		p = make([]byte, min(size, max(int64(len(p)), 1<<bits)))
		if err := f.ReadAt([][]byte{p}, 0); err != nil {
			return nil, fmt.Errorf("header: %w", err)
		}
	}
	return parseHeader(p)
}

// adopt takes over what the header says, and reads the first-level tables.
func (q *Image) adopt(h *header) error {
	q.size, q.version, q.clusterBits, q.clusterSize = h.size, h.version, h.clusterBits, h.clusterSize()
	q.l2Entries = q.clusterSize / 8
	q.refcountOrder = h.refcountOrder
	q.blockEntries = q.clusterSize * 8 >> h.refcountOrder
	q.snapshotsOffset = h.snapshotsOffset
	q.zeroes = make([]byte, q.clusterSize)
	q.l2s = newCache(max(minTables, int(l2Memory/q.clusterSize)))
	q.blocks = newCache(max(minTables, int(refBlockMemory/q.clusterSize)))

	q.l1 = newTable(0, h.l1Offset, h.l1Needed*8)
	if err := q.file.ReadAt([][]byte{q.l1.data}, q.l1.off); err != nil {
		return fmt.Errorf("L1 table: %w", err)
	}
	if h.incompatible&featCorrupt != 0 {
		if !q.readOnly {
			return fmt.Errorf("%w: it is marked so; repair it with: qemu-img check -r all, or open it read-only", ErrCorrupt)
		}
		q.log.Warn("qcow2 image is marked corrupt; what is read from it may be wrong")
	}
	if q.readOnly {
		return nil
	}
	if h.incompatible&featDirty != 0 {
		return fmt.Errorf("%w: its reference counts must be rebuilt (lazy refcounts); repair it with: qemu-img check -r all", ErrDirty)
	}
	q.refs = newTable(0, h.refTableOffset, h.refTableClusters<<h.clusterBits)
	if err := q.file.ReadAt([][]byte{q.refs.data}, q.refs.off); err != nil {
		return fmt.Errorf("refcount table: %w", err)
	}
	if err := q.checkRefTable(); err != nil {
		return err
	}
	return q.clearAutoclear(h)
}

// clearAutoclear clears the autoclear features before anything is written: none
// of them is kept up here.
func (q *Image) clearAutoclear(h *header) error {
	if h.autoclear == 0 {
		return nil
	}
	q.log.Warn("qcow2 image has features that writing makes invalid; they are switched off (dirty bitmaps)",
		"autoclear_features", fmt.Sprintf("%#x", h.autoclear))
	if err := q.file.WriteAt([][]byte{make([]byte, 8)}, hdrAutoclear); err != nil {
		return fmt.Errorf("autoclear_features: %w", err)
	}
	return q.file.Sync()
}

// Size is the size of the virtual disk in bytes, a multiple of 512.
func (q *Image) Size() int64 { return q.size }

// ClusterSize is the unit of allocation, in bytes.
func (q *Image) ClusterSize() int64 { return q.clusterSize }

// Close writes what is in memory, and closes the image and its backing files.
// No other method may be at work, and none may be called afterwards.
func (q *Image) Close() error {
	var err error
	if !q.readOnly {
		// The first commit frees clusters, the next one writes that. When few
		// tables fit into memory, that takes several turns.
		for {
			before := q.pending()
			if err = q.commit(); err != nil {
				break
			}
			if now := q.pending(); now == 0 || now >= before && before > 0 {
				break
			}
		}
		if err == nil {
			err = q.commit()
		}
	}
	return errors.Join(err, q.closeFiles())
}

// pending counts the extents that wait to be freed.
func (q *Image) pending() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.freeing)
}

func (q *Image) closeFiles() error {
	err := q.file.Close()
	if q.backing != nil {
		err = errors.Join(err, q.backing.Close())
	}
	return err
}

// check refuses ranges outside of the disk, and changes of a read-only image.
func (q *Image) check(op string, off, n int64, change bool) error {
	if off < 0 || n < 0 || off > q.size || n > q.size-off {
		return fmt.Errorf("%s of %d bytes at %#x: outside of the disk's %#x bytes", op, n, off, q.size)
	}
	if change && q.readOnly {
		return fmt.Errorf("%s: the image is open read-only", op)
	}
	return nil
}

// readBacking reads what the image itself does not hold.
func (q *Image) readBacking(v [][]byte, off int64) error {
	n := iovec.Len(v)
	have := min(n, q.backed(off))
	iovec.Zero(iovec.Slice(v, have, n-have))
	if have == 0 {
		return nil
	}
	return q.backing.ReadAt(iovec.Slice(v, 0, have), off)
}

// backed returns how many bytes from off on are in the backing file.
func (q *Image) backed(off int64) int64 {
	if q.backing == nil {
		return 0
	}
	return max(0, q.backing.Size()-off)
}
