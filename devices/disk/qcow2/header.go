package qcow2

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"
)

// Why an image is not opened.
var (
	// ErrFormat is a file that is no qcow2 image, or whose header makes no sense.
	ErrFormat = errors.New("not a valid qcow2 image")
	// ErrUnsupported is a feature of the format that is not implemented.
	ErrUnsupported = errors.New("unsupported qcow2 feature")
	// ErrDirty is an image whose reference counts must be rebuilt before it is written to.
	ErrDirty = errors.New("qcow2 image was not closed properly")
	// ErrCorrupt is an image whose tables contradict themselves.
	ErrCorrupt = errors.New("qcow2 image is corrupt")
)

// Magic is what a qcow2 image begins with.
const Magic = "QFI\xfb"

// Offsets in the header (docs/interop/qcow2.txt, "Header"), in bytes.
const (
	hdrBackingOffset   = 8
	hdrBackingSize     = 16
	hdrClusterBits     = 20
	hdrSize            = 24
	hdrCrypt           = 32
	hdrL1Size          = 36
	hdrL1Offset        = 40
	hdrRefTableOffset  = 48
	hdrRefTableLength  = 56
	hdrSnapshots       = 60
	hdrSnapshotsOffset = 64
	hdrIncompatible    = 72
	hdrCompatible      = 80
	hdrAutoclear       = 88
	hdrRefcountOrder   = 96
	hdrLength          = 100
	hdrCompression     = 104

	headerV2 = 72
	headerV3 = 104
	headerUs = 112 // with the compression type, padded to 8
)

// Incompatible features.
const (
	featDirty = 1 << iota
	featCorrupt
	featDataFile
	featCompression
	featExtendedL2
)

// Header extensions.
const (
	extEnd           = 0
	extBackingFormat = 0xe2792aca
	extFeatureNames  = 0x6803f857
)

// The limits of QEMU, taken over: they bound what a header can make us allocate.
const (
	minClusterBits  = 9
	maxClusterBits  = 21
	maxL1Bytes      = 32 << 20
	maxRefTable     = 8 << 20
	maxBackingName  = 1023
	maxHostOffset   = 1 << 56 // bits 9-55 of an entry
	maxFeatureNames = 64 * 3
)

// A Compression is how an image's compressed clusters are packed.
type Compression uint8

// The compression types.
const (
	Zlib Compression = iota
	Zstd
)

// A header is what the first cluster says.
type header struct {
	version     uint32
	clusterBits uint32
	size        int64 // of the virtual disk, in bytes

	l1Entries, l1Needed int64
	l1Offset            int64
	refTableOffset      int64
	refTableClusters    int64
	refcountOrder       uint32
	snapshots           uint32
	snapshotsOffset     int64

	incompatible, autoclear uint64
	compression             Compression

	backing, backingFormat string
}

// parseHeader reads the header out of p, the start of the file: its first
// cluster, or as much of that as there is.
func parseHeader(p []byte) (*header, error) {
	if len(p) < headerV2 || string(p[:4]) != Magic {
		return nil, fmt.Errorf("%w: it does not begin with a qcow2 header", ErrFormat)
	}
	be := binary.BigEndian
	h := &header{
		version:          be.Uint32(p[4:]),
		clusterBits:      be.Uint32(p[hdrClusterBits:]),
		l1Entries:        int64(be.Uint32(p[hdrL1Size:])),
		refTableClusters: int64(be.Uint32(p[hdrRefTableLength:])),
		snapshots:        be.Uint32(p[hdrSnapshots:]),
		refcountOrder:    4,
	}
	if h.version != 2 && h.version != 3 {
		return nil, fmt.Errorf("%w: version %d; convert the image with: qemu-img convert -O qcow2", ErrUnsupported, h.version)
	}
	if h.clusterBits < minClusterBits || h.clusterBits > maxClusterBits {
		return nil, fmt.Errorf("%w: cluster_bits is %d, not %d to %d", ErrFormat, h.clusterBits, minClusterBits, maxClusterBits)
	}
	length := int64(headerV2)
	if h.version == 3 {
		if len(p) < headerV3 {
			return nil, fmt.Errorf("%w: the header is cut off", ErrFormat)
		}
		h.incompatible = be.Uint64(p[hdrIncompatible:])
		h.autoclear = be.Uint64(p[hdrAutoclear:])
		h.refcountOrder = be.Uint32(p[hdrRefcountOrder:])
		length = int64(be.Uint32(p[hdrLength:]))
		if length < headerV3 || length%8 != 0 || length > int64(len(p)) || length > h.clusterSize() {
			return nil, fmt.Errorf("%w: header_length is %d", ErrFormat, length)
		}
		if length > hdrCompression {
			h.compression = Compression(p[hdrCompression])
		}
	}
	p = p[:min(int64(len(p)), h.clusterSize())]
	names, err := h.parseExtensions(p, length)
	if err != nil {
		return nil, err
	}
	if err := h.checkFeatures(be.Uint32(p[hdrCrypt:]), names); err != nil {
		return nil, err
	}
	if err := h.parseBacking(p); err != nil {
		return nil, err
	}
	for _, f := range []struct {
		name string
		at   int
		to   *int64
	}{
		{"l1_table_offset", hdrL1Offset, &h.l1Offset},
		{"refcount_table_offset", hdrRefTableOffset, &h.refTableOffset},
		{"snapshots_offset", hdrSnapshotsOffset, &h.snapshotsOffset},
	} {
		v := be.Uint64(p[f.at:])
		if v >= maxHostOffset || v&uint64(h.clusterSize()-1) != 0 {
			return nil, fmt.Errorf("%w: %s is %#x", ErrFormat, f.name, v)
		}
		*f.to = int64(v)
	}
	return h, h.checkSizes(be.Uint64(p[hdrSize:]))
}

func (h *header) clusterSize() int64 { return 1 << h.clusterBits }

// checkSizes bounds the tables that will be read into memory.
func (h *header) checkSizes(size uint64) error {
	// What does not fill a sector cannot be reached by a guest (nor in QEMU).
	size &^= 511
	if size > math.MaxInt64 {
		return fmt.Errorf("%w: the disk's size is %#x", ErrFormat, size)
	}
	h.size = int64(size)
	l2Bits := h.clusterBits - 3
	h.l1Needed = l1EntriesFor(h.size, h.clusterBits)
	if h.l1Needed*8 > maxL1Bytes || h.l1Entries*8 > maxL1Bytes {
		return fmt.Errorf("%w: the disk's size %#x needs an L1 table of more than %d MiB; use larger clusters", ErrFormat, size, maxL1Bytes>>20)
	}
	if h.l1Entries < h.l1Needed {
		return fmt.Errorf("%w: the L1 table has %d entries, %d are needed (1 << %d clusters each)", ErrFormat, h.l1Entries, h.l1Needed, l2Bits)
	}
	if h.l1Needed > 0 && h.l1Offset == 0 {
		return fmt.Errorf("%w: l1_table_offset is 0", ErrFormat)
	}
	if h.refcountOrder > 6 {
		return fmt.Errorf("%w: refcount_order is %d", ErrFormat, h.refcountOrder)
	}
	if h.refTableOffset == 0 || h.refTableClusters == 0 {
		return fmt.Errorf("%w: there is no refcount table", ErrFormat)
	}
	if h.refTableClusters<<h.clusterBits > maxRefTable {
		return fmt.Errorf("%w: the refcount table has %d clusters, more than %d MiB", ErrFormat, h.refTableClusters, maxRefTable>>20)
	}
	return nil
}

// l1EntriesFor is how many L2 tables a disk of size bytes has.
func l1EntriesFor(size int64, clusterBits uint32) int64 {
	per := clusterBits + clusterBits - 3 // bits covered by an L2 table
	n := size >> per
	if size&(1<<per-1) != 0 {
		n++
	}
	return n
}

// A feature is a bit of one of the three feature masks.
type feature struct{ kind, bit uint8 }

// parseExtensions walks the header extensions, and returns the names of the
// features that the image brings along.
func (h *header) parseExtensions(p []byte, at int64) (map[feature]string, error) {
	names := map[feature]string{}
	for at+8 <= int64(len(p)) {
		kind := binary.BigEndian.Uint32(p[at:])
		n := int64(binary.BigEndian.Uint32(p[at+4:]))
		if kind == extEnd {
			break
		}
		at += 8
		if n > int64(len(p))-at {
			return nil, fmt.Errorf("%w: header extension %#x has %d bytes, and passes the first cluster", ErrFormat, kind, n)
		}
		data := p[at : at+n]
		switch kind {
		case extBackingFormat:
			h.backingFormat = string(data)
		case extFeatureNames:
			for ; len(data) >= 48 && len(names) < maxFeatureNames; data = data[48:] {
				names[feature{data[0], data[1]}] = strings.TrimRight(string(data[2:48]), "\x00")
			}
		}
		at += (n + 7) &^ 7
	}
	return names, nil
}

func (h *header) checkFeatures(crypt uint32, names map[feature]string) error {
	switch crypt {
	case 0:
	case 1:
		return fmt.Errorf("%w: AES encryption; decrypt the image with: qemu-img convert", ErrUnsupported)
	case 2:
		return fmt.Errorf("%w: LUKS encryption; decrypt the image with: qemu-img convert", ErrUnsupported)
	default:
		return fmt.Errorf("%w: encryption method %d", ErrUnsupported, crypt)
	}
	if h.incompatible&featDataFile != 0 {
		return fmt.Errorf("%w: external data file; make one file of it with: qemu-img convert -O qcow2", ErrUnsupported)
	}
	if h.incompatible&featExtendedL2 != 0 {
		return fmt.Errorf("%w: extended L2 entries (subclusters); convert the image with: qemu-img convert -O qcow2", ErrUnsupported)
	}
	known := uint64(featDirty | featCorrupt | featCompression)
	for bit := range uint8(64) {
		if h.incompatible&^known&(1<<bit) != 0 {
			name := names[feature{0, bit}]
			if name == "" {
				name = "without a name"
			}
			return fmt.Errorf("%w: incompatible feature bit %d (%q)", ErrUnsupported, bit, name)
		}
	}
	if zlib := h.compression == Zlib; zlib == (h.incompatible&featCompression != 0) {
		return fmt.Errorf("%w: compression type %d contradicts the feature bit", ErrFormat, h.compression)
	}
	if h.compression > Zstd {
		return fmt.Errorf("%w: compression type %d", ErrUnsupported, h.compression)
	}
	return nil
}

func (h *header) parseBacking(p []byte) error {
	at := binary.BigEndian.Uint64(p[hdrBackingOffset:])
	n := uint64(binary.BigEndian.Uint32(p[hdrBackingSize:]))
	if at == 0 {
		return nil
	}
	if n == 0 || n > maxBackingName {
		return fmt.Errorf("%w: the backing file's name has %d bytes, not 1 to %d", ErrFormat, n, maxBackingName)
	}
	if at > uint64(len(p)) || n > uint64(len(p))-at {
		return fmt.Errorf("%w: the backing file's name passes the first cluster", ErrFormat)
	}
	name := p[at : at+n]
	if bytes.IndexByte(name, 0) >= 0 {
		return fmt.Errorf("%w: the backing file's name holds a zero byte", ErrFormat)
	}
	h.backing = string(name)
	return nil
}
