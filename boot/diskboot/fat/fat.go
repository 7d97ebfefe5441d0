// Package fat reads files out of a FAT12, FAT16 or FAT32 file system without
// mounting it (Microsoft, "FAT: General Overview of On-Disk Format", 1.03). It is
// for EFI system partitions, so it knows long names and nothing of times.
//
// It is our own: it has two hundred lines, and a file here is an io.ReaderAt that
// reads straight from the image, which the module for it in reach has not.
package fat

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/huskvm/husk/boot/diskboot/runs"
)

// The reasons for which a file system or a file is refused. A file that is not
// there is fs.ErrNotExist.
var (
	ErrNotFAT    = errors.New("not a FAT file system")
	ErrMalformed = errors.New("damaged FAT file system")
	ErrKind      = errors.New("file of the wrong kind")
)

// An FS is a file system, opened for reading. It does not change and may be used
// by several goroutines if its image allows reads at once.
type FS struct {
	image    io.ReaderAt
	bits     int   // 12, 16 or 32: the width of an entry of the table
	table    int64 // where the first table is, in bytes
	root     int64 // where the root folder is, in bytes; FAT32 has a cluster instead
	rootSize int64 // bytes
	rootHead uint32
	data     int64 // where cluster 2 is, in bytes
	cluster  int64 // bytes
	clusters uint32
	serial   uint32
	size     int64
}

// Open reads the boot sector. The image begins with the file system.
func Open(image io.ReaderAt) (*FS, error) {
	b := make([]byte, 512)
	if n, err := image.ReadAt(b, 0); n < len(b) {
		if err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, fmt.Errorf("%w: it is too small for one", ErrNotFAT)
		}
		return nil, fmt.Errorf("read the boot sector: %w", err)
	}
	le := binary.LittleEndian
	var (
		sector   = int64(le.Uint16(b[11:])) // BPB_BytsPerSec
		perClus  = int64(b[13])             // BPB_SecPerClus
		reserved = int64(le.Uint16(b[14:])) // BPB_RsvdSecCnt
		tables   = int64(b[16])             // BPB_NumFATs
		entries  = int64(le.Uint16(b[17:])) // BPB_RootEntCnt
		total    = int64(le.Uint16(b[19:])) // BPB_TotSec16
		perTable = int64(le.Uint16(b[22:])) // BPB_FATSz16
	)
	power := func(n, least, most int64) bool { return n >= least && n <= most && n&(n-1) == 0 }
	if b[0] != 0xeb && b[0] != 0xe9 || b[510] != 0x55 || b[511] != 0xaa ||
		!power(sector, 512, 4096) || !power(perClus, 1, 128) || reserved == 0 || tables == 0 || b[21] < 0xf0 {
		return nil, fmt.Errorf("%w: no boot sector of one", ErrNotFAT)
	}
	if total == 0 {
		total = int64(le.Uint32(b[32:])) // BPB_TotSec32
	}
	f := &FS{image: image, serial: le.Uint32(b[39:])} // BS_VolID
	wide := perTable == 0
	if wide {
		perTable = int64(le.Uint32(b[36:])) // BPB_FATSz32
		f.rootHead, f.serial = le.Uint32(b[44:]), le.Uint32(b[67:])
	}
	rootSectors := (entries*dirEntry + sector - 1) / sector
	dataSector := reserved + tables*perTable + rootSectors
	if dataSector >= total {
		return nil, fmt.Errorf("%w: of %d sectors, %d come before the first file", ErrMalformed, total, dataSector)
	}
	f.table, f.root, f.rootSize = reserved*sector, (reserved+tables*perTable)*sector, entries*dirEntry
	f.data, f.cluster, f.size = dataSector*sector, perClus*sector, total*sector
	count := (total - dataSector) / perClus
	switch { // §3.5: the number of clusters, and nothing else, tells the width
	case wide:
		f.bits = 32
	case count < 4085:
		f.bits = 12
	default:
		f.bits = 16
	}
	// Entries that the table has no room for are no clusters.
	count = min(count, perTable*sector*8/int64(f.bits)-2)
	if count < 1 {
		return nil, fmt.Errorf("%w: it has no clusters", ErrMalformed)
	}
	f.clusters = uint32(min(count, 1<<28))
	return f, nil
}

// Kind is "vfat", as mount and blkid call all of them.
func (f *FS) Kind() string { return "vfat" }

// UUID is the volume's serial number, as root=UUID= has it.
func (f *FS) UUID() string { return fmt.Sprintf("%04X-%04X", f.serial>>16, f.serial&0xffff) }

// Size is what the file system takes up, in bytes.
func (f *FS) Size() int64 { return f.size }

// A chain is a file's clusters. Many are read at once from the table.
type chain struct {
	fs    *FS
	at    int64 // offset in the table of what is held
	held  []byte
	count uint32 // clusters followed
}

// next is the cluster that follows in the file, and false at its end.
func (c *chain) next(cluster uint32) (uint32, bool, error) {
	f := c.fs
	if c.count++; c.count > f.clusters {
		return 0, false, fmt.Errorf("%w: a file's clusters go round in a circle", ErrMalformed)
	}
	// The first bit of an entry, and its value in its lowest bits.
	bit := int64(cluster) * int64(f.bits)
	p, err := c.bytes(bit / 8)
	if err != nil {
		return 0, false, err
	}
	value := binary.LittleEndian.Uint32(p) >> (bit % 8)
	value &= uint32(1)<<min(f.bits, 28) - 1 // the top bits of FAT32 mean nothing
	if value >= uint32(1)<<min(f.bits, 28)-8 {
		return 0, false, nil
	}
	return value, true, f.valid(value)
}

// bytes is four bytes of the table, or what is left of it and zeros.
func (c *chain) bytes(off int64) ([]byte, error) {
	const window = 4096
	if c.held == nil || off < c.at || off+4 > c.at+int64(len(c.held)) {
		p := make([]byte, window)
		n, err := c.fs.image.ReadAt(p, c.fs.table+off)
		if n < 4 {
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, fmt.Errorf("read the allocation table: %w", err)
		}
		c.at, c.held = off, p[:n]
	}
	return c.held[off-c.at:][:4], nil
}

// valid tells whether a number is a cluster's.
func (f *FS) valid(cluster uint32) error {
	if cluster < 2 || cluster-2 >= f.clusters {
		return fmt.Errorf("%w: cluster %d, of %d", ErrMalformed, cluster, f.clusters)
	}
	return nil
}

// open gives what begins with a cluster: size bytes, or, where size is negative,
// up to the chain's end, but no more than most bytes.
func (f *FS) open(first uint32, size, most int64) (*io.SectionReader, error) {
	if first == 0 || size == 0 {
		if size > 0 {
			return nil, fmt.Errorf("%w: a file of %d bytes has no clusters", ErrMalformed, size)
		}
		return io.NewSectionReader(f.image, 0, 0), nil
	}
	if size >= 0 {
		most = size
	}
	if err := f.valid(first); err != nil {
		return nil, err
	}
	var m runs.Map
	c := chain{fs: f}
	for at, cluster := int64(0), first; ; {
		if err := m.Add(at, f.data+int64(cluster-2)*f.cluster, f.cluster); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
		}
		if at += f.cluster; at >= most {
			return m.Open(f.image, most), nil
		}
		next, more, err := c.next(cluster)
		switch {
		case err != nil:
			return nil, err
		case !more && size >= 0:
			return nil, fmt.Errorf("%w: a file of %d bytes ends after %d", ErrMalformed, size, at)
		case !more:
			return m.Open(f.image, at), nil
		}
		cluster = next
	}
}
