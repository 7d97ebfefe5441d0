// Package ext4 reads files out of an ext2, ext3 or ext4 file system without
// mounting it (kernel Documentation/filesystems/ext4).
//
// It is our own because none of the Go modules that can be had reads what
// mke2fs makes. Tried on images of mke2fs 1.47: diskfs/go-diskfs 1.9.4 reads a
// file with holes for ever, refuses ext2 and ext3, and panics on block maps;
// masahiro331/go-ext4-filesystem (April 2026) panics on the long symbolic links
// of block-mapped file systems, loses inline data and bigalloc, cannot read at an
// offset, and reads a whole directory's inodes for every name. Here a file is an
// io.ReaderAt that reads straight from the image.
//
// Checksums are not verified, the journal is not replayed (see FS.NeedsRecovery)
// and extended attributes are looked at for inline data only.
package ext4

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"
	"strings"
)

// The reasons for which a file system or a file is refused. A file that is not
// there is fs.ErrNotExist.
var (
	ErrNotExt      = errors.New("not an ext2, ext3 or ext4 file system")
	ErrMalformed   = errors.New("damaged ext4 file system")
	ErrUnsupported = errors.New("ext4 file system with an unsupported feature")
	ErrKind        = errors.New("file of the wrong kind")
)

// Where the superblock is, and how large, in bytes (super.rst).
const (
	superOffset = 1024
	superSize   = 1024
	superMagic  = 0xef53
)

// Feature flags (super.rst, s_feature_compat, _incompat, _ro_compat).
const (
	compatSparseSuper2 = 0x200

	roSparseSuper = 0x1

	incompatFiletype = 0x2
	incompatRecover  = 0x4
	incompatMetaBG   = 0x10
	incompatExtents  = 0x40
	incompat64Bit    = 0x80
	incompatMMP      = 0x100
	incompatFlexBG   = 0x200
	incompatEAInode  = 0x400
	incompatCsumSeed = 0x2000
	incompatLargeDir = 0x4000
	incompatInline   = 0x8000
	incompatEncrypt  = 0x10000 // encrypted inodes are refused one by one
	incompatCasefold = 0x20000 // names are found as they were written

	incompatKnown = incompatFiletype | incompatRecover | incompatMetaBG | incompatExtents | incompat64Bit | incompatMMP |
		incompatFlexBG | incompatEAInode | incompatCsumSeed | incompatLargeDir | incompatInline | incompatEncrypt | incompatCasefold
)

// unknown names the incompatible features that this package cannot read.
var unknown = map[uint32]string{
	0x1:    "compression",
	0x8:    "journal_dev (this is another file system's journal)",
	0x1000: "dirdata",
}

// An FS is a file system, opened for reading. It does not change and may be used
// by several goroutines if its image allows reads at once.
type FS struct {
	image  io.ReaderAt
	blocks int64 // of the whole file system

	blockSize      int64 // bytes
	firstBlock     int64 // s_first_data_block
	blocksPerGroup int64
	inodes         uint32
	inodesPerGroup uint32
	inodeSize      int64 // bytes
	descSize       int64 // bytes
	firstMetaBG    int64 // groups' descriptors from this block of them on are spread
	backupGroups   [2]uint32
	uuid           [16]byte
	label          string

	compat, incompat, roCompat uint32
}

// Open reads the superblock. The image begins with the file system.
func Open(image io.ReaderAt) (*FS, error) {
	sb := make([]byte, superSize)
	if n, err := image.ReadAt(sb, superOffset); n < len(sb) {
		if err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, fmt.Errorf("%w: it is too small for one", ErrNotExt)
		}
		return nil, fmt.Errorf("read the superblock: %w", err)
	}
	le := binary.LittleEndian
	if le.Uint16(sb[0x38:]) != superMagic {
		return nil, fmt.Errorf("%w: no magic number at byte %d", ErrNotExt, superOffset+0x38)
	}
	f := &FS{
		image:          image,
		blocks:         int64(le.Uint32(sb[0x4:])),
		firstBlock:     int64(le.Uint32(sb[0x14:])),
		blocksPerGroup: int64(le.Uint32(sb[0x20:])),
		inodes:         le.Uint32(sb[0:]),
		inodesPerGroup: le.Uint32(sb[0x28:]),
		inodeSize:      128,
		descSize:       32,
		firstMetaBG:    math.MaxInt64,
		backupGroups:   [2]uint32{le.Uint32(sb[0x24c:]), le.Uint32(sb[0x250:])},
		uuid:           [16]byte(sb[0x68:0x78]),
		label:          strings.TrimRight(string(sb[0x78:0x88]), "\x00"),
	}
	if le.Uint32(sb[0x4c:]) > 0 { // s_rev_level: the first had neither features nor sizes
		f.compat, f.incompat, f.roCompat = le.Uint32(sb[0x5c:]), le.Uint32(sb[0x60:]), le.Uint32(sb[0x64:])
		f.inodeSize = int64(le.Uint16(sb[0x58:]))
	}
	if err := f.known(); err != nil {
		return nil, err
	}
	logBlock := le.Uint32(sb[0x18:])
	if logBlock > 6 {
		return nil, fmt.Errorf("%w: blocks of 1 KiB << %d", ErrMalformed, logBlock)
	}
	f.blockSize = 1024 << logBlock
	if f.incompat&incompat64Bit != 0 {
		f.descSize = int64(le.Uint16(sb[0xfe:]))
		f.blocks |= int64(le.Uint32(sb[0x150:])) << 32
	}
	if f.incompat&incompatMetaBG != 0 {
		f.firstMetaBG = int64(le.Uint32(sb[0x104:]))
	}
	return f, f.check()
}

// known refuses features that change what the bytes mean, by their names.
func (f *FS) known() error {
	var names []string
	for rest := f.incompat &^ incompatKnown; rest != 0; rest &= rest - 1 {
		bit := uint32(1) << bits.TrailingZeros32(rest)
		name := unknown[bit]
		if name == "" {
			name = fmt.Sprintf("incompatible feature %#x", bit)
		}
		names = append(names, name)
	}
	if names != nil {
		return fmt.Errorf("%w: %s", ErrUnsupported, strings.Join(names, ", "))
	}
	return nil
}

// check looks at what later arithmetic relies on.
func (f *FS) check() error {
	power := func(n, least, most int64) bool { return n >= least && n <= most && n&(n-1) == 0 }
	switch {
	case f.blocks <= 0 || f.blocks > math.MaxInt64/f.blockSize:
		return fmt.Errorf("%w: %d blocks of %d bytes", ErrMalformed, uint64(f.blocks), f.blockSize)
	case f.firstBlock > 1 || f.blocksPerGroup == 0 || f.inodesPerGroup == 0 || f.inodes == 0:
		return fmt.Errorf("%w: groups of %d blocks and %d inodes, %d inodes, first block %d",
			ErrMalformed, f.blocksPerGroup, f.inodesPerGroup, f.inodes, f.firstBlock)
	case !power(f.inodeSize, 128, f.blockSize):
		return fmt.Errorf("%w: inodes of %d bytes", ErrMalformed, f.inodeSize)
	case f.incompat&incompat64Bit == 0 && f.descSize != 32, f.incompat&incompat64Bit != 0 && !power(f.descSize, 64, 1024):
		return fmt.Errorf("%w: group descriptors of %d bytes", ErrMalformed, f.descSize)
	}
	return nil
}

// Kind is "ext2", "ext3" or "ext4", by the features in use as blkid tells them apart.
func (f *FS) Kind() string {
	const hasJournal, ext3Incompat, ext3RO = 0x4, incompatFiletype | incompatRecover | incompatMetaBG, 0x7
	switch {
	case f.incompat&^ext3Incompat != 0 || f.roCompat&^ext3RO != 0:
		return "ext4"
	case f.compat&hasJournal != 0:
		return "ext3"
	}
	return "ext2"
}

// UUID identifies the file system, as root=UUID= has it.
func (f *FS) UUID() string {
	u := f.uuid
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}

// Label is the volume's name, or "".
func (f *FS) Label() string { return f.label }

// Size is what the file system takes up, in bytes.
func (f *FS) Size() int64 { return f.blocks * f.blockSize }

// NeedsRecovery tells that the file system was not unmounted and its journal may
// have newer metadata than what is read here.
func (f *FS) NeedsRecovery() bool { return f.incompat&incompatRecover != 0 }
