package ext4

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/huskvm/husk/boot/diskboot/imagefs"
)

// Inode numbers and flags (inodes.rst, i_mode and i_flags).
const (
	rootInode = 2

	modeType    = 0xf000
	modeFIFO    = 0x1000
	modeChar    = 0x2000
	modeDir     = 0x4000
	modeBlock   = 0x6000
	modeRegular = 0x8000
	modeLink    = 0xa000
	modeSocket  = 0xc000

	flagEncrypt = 0x800
	flagExtents = 0x80000
	flagInline  = 0x10000000
)

// iBlockSize is the room in an inode for the map of its blocks, for a short
// symbolic link or for the beginning of inline data, in bytes.
const iBlockSize = 60

// An inode is what is needed of one to read it.
type inode struct {
	number uint32
	mode   uint16
	flags  uint32
	size   int64 // bytes
	raw    []byte
}

// iBlock is i_block: the map, the link or the data.
func (i *inode) iBlock() []byte { return i.raw[0x28 : 0x28+iBlockSize] }

func (i *inode) kind() uint16 { return i.mode & modeType }

// types are the kinds of inodes as package fs has them.
var types = map[uint16]fs.FileMode{
	modeFIFO: fs.ModeNamedPipe, modeChar: fs.ModeDevice | fs.ModeCharDevice, modeDir: fs.ModeDir,
	modeBlock: fs.ModeDevice, modeRegular: 0, modeLink: fs.ModeSymlink, modeSocket: fs.ModeSocket,
}

// info is what is told of an inode that a folder calls so.
func (i *inode) info(name string) fs.FileInfo {
	mode, ok := types[i.kind()]
	if !ok {
		mode = fs.ModeIrregular
	}
	return imagefs.Info(name, mode|fs.FileMode(i.mode).Perm(), i.size)
}

// read fills p from the image at off, whatever is there.
func (f *FS) read(p []byte, off int64) error {
	n, err := f.image.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("%d bytes at %d of the file system: %w", len(p), off, err)
}

// offset turns a block number, and a number of blocks from there on, into a
// byte offset of the image.
func (f *FS) offset(block uint64, n int64) (int64, error) {
	if n < 0 || block == 0 || block >= uint64(f.blocks) || n > f.blocks-int64(block) {
		return 0, fmt.Errorf("%w: block %d, of %d", ErrMalformed, block, f.blocks)
	}
	return int64(block) * f.blockSize, nil
}

// descriptor is where the descriptor of a block group is, in bytes
// (group_descr.rst, and "Meta Block Groups" in blockgroup.rst).
func (f *FS) descriptor(group int64) (int64, error) {
	perBlock := f.blockSize / f.descSize
	index := group / perBlock
	block := superOffset/f.blockSize + 1 + index
	if index >= f.firstMetaBG {
		first := index * perBlock
		block = f.firstBlock + first*f.blocksPerGroup
		if f.hasSuper(first) {
			block++
		}
	}
	off, err := f.offset(uint64(block), 1)
	return off + group%perBlock*f.descSize, err
}

// hasSuper tells whether a block group begins with a copy of the superblock.
func (f *FS) hasSuper(group int64) bool {
	switch {
	case group == 0:
		return true
	case f.compat&compatSparseSuper2 != 0:
		return group == int64(f.backupGroups[0]) || group == int64(f.backupGroups[1])
	case f.roCompat&roSparseSuper == 0 || group == 1:
		return true
	}
	for _, base := range []int64{3, 5, 7} {
		n := base
		for n < group {
			n *= base
		}
		if n == group {
			return true
		}
	}
	return false
}

// inode reads one inode.
func (f *FS) inode(number uint32) (*inode, error) {
	if number == 0 || number > f.inodes {
		return nil, fmt.Errorf("%w: inode %d, of %d", ErrMalformed, number, f.inodes)
	}
	desc := make([]byte, f.descSize)
	off, err := f.descriptor(int64((number - 1) / f.inodesPerGroup))
	if err == nil {
		err = f.read(desc, off)
	}
	if err != nil {
		return nil, fmt.Errorf("group descriptor of inode %d: %w", number, err)
	}
	le := binary.LittleEndian
	table := uint64(le.Uint32(desc[0x8:]))
	if f.descSize >= 64 {
		table |= uint64(le.Uint32(desc[0x28:])) << 32
	}
	inTable := int64((number-1)%f.inodesPerGroup) * f.inodeSize
	base, err := f.offset(table, inTable/f.blockSize+1)
	if err != nil {
		return nil, fmt.Errorf("inode %d: %w", number, err)
	}
	i := &inode{number: number, raw: make([]byte, f.inodeSize)}
	if err := f.read(i.raw, base+inTable); err != nil {
		return nil, fmt.Errorf("inode %d: %w", number, err)
	}
	i.mode, i.flags = le.Uint16(i.raw), le.Uint32(i.raw[0x20:])
	i.size = int64(le.Uint32(i.raw[0x4:]))
	if i.kind() == modeRegular || i.kind() == modeDir { // elsewhere the field was something else
		i.size |= int64(le.Uint32(i.raw[0x6c:])) << 32
	}
	switch {
	case i.size < 0:
		return nil, fmt.Errorf("%w: inode %d has %d bytes", ErrMalformed, number, uint64(i.size))
	case i.flags&flagEncrypt != 0:
		return nil, fmt.Errorf("%w: inode %d is encrypted", ErrUnsupported, number)
	}
	return i, nil
}

// inline is the data that an inode holds itself: the beginning in the place of
// the map, the rest in the extended attribute system.data (inlinedata.rst,
// attributes.rst).
func (i *inode) inline() (head, rest []byte, err error) {
	head = i.iBlock()
	if int64(len(head)) >= i.size {
		return head[:i.size], nil, nil
	}
	rest, err = i.systemData()
	if err != nil {
		return nil, nil, err
	}
	if short := i.size - int64(len(head)) - int64(len(rest)); short > 0 {
		return nil, nil, fmt.Errorf("%w: inode %d lacks %d of its %d bytes", ErrMalformed, i.number, short, i.size)
	}
	return head, rest[:i.size-int64(len(head))], nil
}

// systemData is the value of the attribute in the inode's own tail.
func (i *inode) systemData() ([]byte, error) {
	const magic, indexSystem, entrySize = 0xea020000, 7, 16
	bad := fmt.Errorf("%w: extended attributes of inode %d", ErrMalformed, i.number)
	le := binary.LittleEndian
	if len(i.raw) < 0x82 {
		return nil, bad
	}
	start := 128 + int(le.Uint16(i.raw[0x80:])) // i_extra_isize
	if start+4 > len(i.raw) || le.Uint32(i.raw[start:]) != magic {
		return nil, bad
	}
	area := i.raw[start+4:]
	for e := area; len(e) >= entrySize && le.Uint32(e) != 0; {
		nameLen, index := int(e[0]), e[1]
		if entrySize+nameLen > len(e) {
			return nil, bad
		}
		if index == indexSystem && string(e[entrySize:entrySize+nameLen]) == "data" {
			off, size := int64(le.Uint16(e[2:])), int64(le.Uint32(e[8:]))
			if le.Uint32(e[4:]) != 0 || off > int64(len(area)) || size > int64(len(area))-off {
				return nil, bad
			}
			return area[off : off+size], nil
		}
		e = e[min(len(e), (entrySize+nameLen+3)&^3):]
	}
	return nil, bad
}
