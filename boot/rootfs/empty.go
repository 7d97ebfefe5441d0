package rootfs

import (
	"encoding/binary"
	"fmt"
	"os"
)

// EmptyFileSystem is what WriteEmpty makes, by the name that mount(2) has.
const EmptyFileSystem = "ext4"

// The sizes that WriteEmpty takes, in bytes.
const (
	MinEmpty = 8 << 20
	MaxEmpty = 16<<40 - blockSize // block numbers have 32 bits
)

// An ext4 (kernel Documentation/filesystems/ext4). There is no journal: the disk is not
// meant to outlive a crash of its machine. Groups that nothing is in are marked so, and
// inode tables as zeroed, which a sparse file's are; so there is little to write, and
// nothing for the guest to initialize later.
const (
	groupBlocks = 8 * blockSize // what one block of a bitmap counts
	groupInodes = 8192          // one for 16 KiB, as mke2fs has it
	tableInode  = 256           // bytes
	tableBlocks = groupInodes * tableInode / blockSize
	groupDesc   = 32 // bytes
	firstInode  = 11 // that is not reserved; lost+found
	rootInode   = 2

	inodesUnused, blocksUnused, inodesZeroed = 1, 2, 4 // a group's flags
)

// emptyID is the UUID of all empty disks.
const emptyID = "husk\x00\x00\x40\x00\x80\x00\x00\x00\x00\x00\x00\x01"

// WriteEmpty makes w, which loses what it had, a disk of size bytes (in steps of 4096)
// with an empty file system on it that can be written to. What is not written takes no
// room on the host.
func WriteEmpty(w *os.File, size int64) error {
	if size < MinEmpty || size > MaxEmpty {
		return fmt.Errorf("a writable disk of %d bytes: it can have %d (8 MiB) to %d (16 TiB)", size, int64(MinEmpty), int64(MaxEmpty))
	}
	if err := w.Truncate(0); err != nil {
		return fmt.Errorf("empty the writable disk: %w", err)
	}
	if err := w.Truncate(size &^ (blockSize - 1)); err != nil {
		return fmt.Errorf("make the writable disk: %w", err)
	}
	e := newEmpty(size / blockSize)
	for _, part := range []struct {
		block int64
		bytes []byte
	}{
		{0, append(make([]byte, superOffset), e.super()...)},
		{1, e.descriptors()},
		{e.bitmaps(0), e.blockBitmap(0)},
		{e.bitmaps(0) + 1, inodeBitmap()},
		{e.bitmaps(0) + 2, e.inodes()},
		{e.content, folder(rootInode, rootInode, "lost+found", firstInode)},
		{e.content + 1, folder(firstInode, rootInode, "", 0)},
		{e.bitmaps(e.groups - 1), e.blockBitmap(e.groups - 1)},
	} {
		if _, err := w.WriteAt(part.bytes, part.block*blockSize); err != nil {
			return fmt.Errorf("make the writable disk: %w", err)
		}
	}
	return nil
}

// An empty is where things are.
type empty struct {
	blocks  int64
	groups  int64
	content int64 // the first block of what is neither bitmap nor table: the root
}

func newEmpty(blocks int64) empty {
	// A last group without room for much more than its own tables is left out.
	if rest := blocks % groupBlocks; blocks > groupBlocks && rest < 2*tableBlocks {
		blocks -= rest
	}
	e := empty{blocks: blocks, groups: (blocks + groupBlocks - 1) / groupBlocks}
	e.content = e.bitmaps(0) + 2 + tableBlocks
	return e
}

// bitmaps is the block of a group's first bitmap; the other one and the table follow.
func (e empty) bitmaps(group int64) int64 {
	if group == 0 {
		return 1 + (e.groups*groupDesc+blockSize-1)/blockSize
	}
	return group * groupBlocks
}

// used is how many of a group's blocks are, all at its start.
func (e empty) used(group int64) int64 {
	if group == 0 {
		return e.content + 2
	}
	return 2 + tableBlocks
}

// length is how many blocks a group has.
func (e empty) length(group int64) int64 {
	return min(groupBlocks, e.blocks-group*groupBlocks)
}

func (e empty) super() []byte {
	s, le := make([]byte, 1024), binary.LittleEndian
	free := e.blocks
	for g := range e.groups {
		free -= e.used(g)
	}
	for at, n := range map[int]uint32{
		0x00: uint32(e.groups * groupInodes), 0x04: uint32(e.blocks),
		0x0c: uint32(free), 0x10: uint32(e.groups*groupInodes - firstInode),
		0x18: blockBits - 10, 0x1c: blockBits - 10, // block and cluster: 1024 << n
		0x20: groupBlocks, 0x24: groupBlocks, 0x28: groupInodes,
		0x4c: 1, // revision: there are features
		0x54: firstInode,
		0x5c: 0x0228, // compatible: sparse_super2 without copies, dir_index, ext_attr
		0x60: 0x0042, // else not readable: extents, filetype
		0x64: 0x007a, // else read-only: extra_isize, dir_nlink, uninit_bg, huge_file, large_file
		// The seed of directories' hashes
		0xec: 0x6b737568, 0xf0: 0x40000000, 0xf4: 0x80, 0xf8: 0x01000000,
		0x100: 0x000c, // mounted with: acl, user_xattr
		0x160: 1,      // hashes with signed characters
	} {
		le.PutUint32(s[at:], n)
	}
	for at, n := range map[int]uint16{
		0x36: 0xffff,                               // mounts until a check: any number
		0x38: 0xef53, 0x3a: 1 /* clean */, 0x3c: 1, /* errors: go on */
		0x58: tableInode, 0x15c: 32, 0x15e: 32, // inodes, and what they have beyond 128 bytes
	} {
		le.PutUint16(s[at:], n)
	}
	copy(s[0x68:], emptyID)
	s[0xfc] = 1 // half MD4
	return s
}

func (e empty) descriptors() []byte {
	p, le := make([]byte, 0, e.groups*groupDesc), binary.LittleEndian
	for g := range e.groups {
		flags, inodes, folders := uint16(inodesZeroed), groupInodes, 0
		switch g {
		case 0:
			inodes, folders = groupInodes-firstInode, 2
		case e.groups - 1: // its end has to be marked
			flags |= inodesUnused
		default:
			flags |= inodesUnused | blocksUnused
		}
		start := len(p)
		bitmap := uint32(e.bitmaps(g))
		p = le.AppendUint32(p, bitmap)
		p = le.AppendUint32(p, bitmap+1)
		p = le.AppendUint32(p, bitmap+2)
		p = le.AppendUint16(p, uint16(e.length(g)-e.used(g)))
		p = le.AppendUint16(p, uint16(inodes))
		p = le.AppendUint16(p, uint16(folders))
		p = le.AppendUint16(p, flags)
		p = le.AppendUint64(p, 0)
		p = le.AppendUint16(p, uint16(inodes)) // never used so far
		sum := crc16(0xffff, []byte(emptyID))
		sum = crc16(sum, le.AppendUint32(nil, uint32(g)))
		p = le.AppendUint16(p, crc16(sum, p[start:]))
	}
	return p
}

// crc16 is CRC-16/ARC, as the kernel's lib/crc16.c has it.
func crc16(sum uint16, p []byte) uint16 {
	for _, b := range p {
		sum ^= uint16(b)
		for range 8 {
			sum = sum>>1 ^ -(sum&1)&0xa001
		}
	}
	return sum
}

// blockBitmap has a bit for each block: those in use, and those behind the disk's end.
func (e empty) blockBitmap(group int64) []byte {
	p := make([]byte, blockSize)
	setBits(p, 0, e.used(group))
	setBits(p, e.length(group), groupBlocks)
	return p
}

// inodeBitmap is that of the first group.
func inodeBitmap() []byte {
	p := make([]byte, blockSize)
	setBits(p, 0, firstInode)
	setBits(p, groupInodes, groupBlocks)
	return p
}

func setBits(p []byte, from, to int64) {
	for i := from; i < to; i++ {
		p[i/8] |= 1 << (i % 8)
	}
}

// inodes is the table as far as it is in use.
func (e empty) inodes() []byte {
	p, le := make([]byte, firstInode*tableInode), binary.LittleEndian
	for _, i := range []struct {
		number, mode, links int
		block               int64
	}{{rootInode, typeDir | 0o755, 3, e.content}, {firstInode, typeDir | 0o700, 2, e.content + 1}} {
		n := p[(i.number-1)*tableInode:]
		le.PutUint16(n[0x00:], uint16(i.mode))
		le.PutUint32(n[0x04:], blockSize)
		le.PutUint16(n[0x1a:], uint16(i.links))
		le.PutUint32(n[0x1c:], blockSize/512)
		le.PutUint32(n[0x20:], 0x80000) // EXTENTS_FL
		le.PutUint16(n[0x28:], 0xf30a)  // the extent tree: one leaf, of four that fit
		le.PutUint16(n[0x2a:], 1)
		le.PutUint16(n[0x2c:], 4)
		le.PutUint16(n[0x38:], 1) // one block, the first
		le.PutUint32(n[0x3c:], uint32(i.block))
		le.PutUint16(n[0x80:], 32) // i_extra_isize
	}
	return p
}

// folder is a directory's block; a name of "" is none.
func folder(self, parent uint32, name string, inode uint32) []byte {
	p, le := make([]byte, blockSize), binary.LittleEndian
	entry := func(at, length int, inode uint32, name string) {
		le.PutUint32(p[at:], inode)
		le.PutUint16(p[at+4:], uint16(length))
		p[at+6], p[at+7] = byte(len(name)), 2 // a directory
		copy(p[at+8:], name)
	}
	entry(0, 12, self, ".")
	if name == "" {
		entry(12, blockSize-12, parent, "..")
		return p
	}
	entry(12, 12, parent, "..")
	entry(24, blockSize-24, inode, name)
	return p
}
