package rootfs

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"
)

// The form of EROFS on a disk (erofs_fs.h). Only what Linux 5.10 knows is used: inodes
// of the extended kind, because only they have a time, and contents without compression.
const (
	superOffset = 1024
	superSize   = 128
	superMagic  = 0xe0f5e1e2
	superCRC    = 1 // EROFS_FEATURE_COMPAT_SB_CHKSUM
	blockBits   = 12

	inodeSize = 64      // struct erofs_inode_extended
	nidBytes  = 32      // an inode's number is its offset in these units
	firstNode = 64      // the root's offset: number 0 would be no inode's to readdir(3)
	extended  = 1       // i_format, bit 0
	flatPlain = 0 << 1  // EROFS_INODE_FLAT_PLAIN: all content in blocks
	flatTail  = 2 << 1  // EROFS_INODE_FLAT_INLINE: the last bytes behind the inode
	direntLen = 12      // struct erofs_dirent
	maxInline = 2 << 10 // bytes of a directory or link behind its inode
)

// fileTypes are EROFS_FT_*, by the type in the mode.
var fileTypes = map[uint16]uint8{
	typeFile: 1, typeDir: 2, typeChar: 3, typeBlock: 4, typeFifo: 5, typeLink: 7,
}

// A dirent is a name in a directory.
type dirent struct {
	name string
	node *inode
}

// sortEntries puts a directory's names in the order in which the kernel searches them,
// with "." and ".." among them, and computes its size.
func sortEntries(node, parent *inode) {
	d := node.dir
	d.sorted = make([]dirent, 0, len(d.children)+2)
	d.sorted = append(d.sorted, dirent{".", node}, dirent{"..", parent})
	for name, child := range d.children {
		d.sorted = append(d.sorted, dirent{name, child})
	}
	d.children = nil
	slices.SortFunc(d.sorted, func(a, b dirent) int { return cmp.Compare(a.name, b.name) })
	used := 0
	for _, e := range d.sorted {
		need := direntLen + len(e.name)
		if used+need > blockSize {
			node.size += blockSize
			used = 0
		}
		used += need
	}
	node.size += int64(used)
}

// appendEntries adds a directory's content: in each block first the entries and then,
// back to back, their names.
func appendEntries(p []byte, node *inode) []byte {
	entries := node.dir.sorted
	for len(entries) > 0 {
		n, used := 0, 0
		for n < len(entries) && used+direntLen+len(entries[n].name) <= blockSize {
			used += direntLen + len(entries[n].name)
			n++
		}
		names := n * direntLen
		for _, e := range entries[:n] {
			p = binary.LittleEndian.AppendUint64(p, e.node.nid)
			p = binary.LittleEndian.AppendUint16(p, uint16(names))
			p = append(p, fileTypes[e.node.kind()], 0)
			names += len(e.name)
		}
		for _, e := range entries[:n] {
			p = append(p, e.name...)
		}
		if entries = entries[n:]; len(entries) > 0 {
			p = append(p, zeros[used:]...)
		}
	}
	return p
}

// appendInode adds struct erofs_inode_extended and the extended attributes behind it.
// tail says whether the content's last bytes follow.
func appendInode(p []byte, node *inode, tail bool) []byte {
	format := uint16(extended | flatPlain)
	if tail {
		format = extended | flatTail
	}
	where := node.block
	if k := node.kind(); k == typeChar || k == typeBlock {
		where = node.rdev
	}
	xattrs := 0 // i_xattr_icount
	if len(node.xattrs) > 0 {
		xattrs = (len(node.xattrs)-xattrHeader)/4 + 1
	}
	le := binary.LittleEndian
	p = le.AppendUint16(p, format)
	p = le.AppendUint16(p, uint16(xattrs))
	p = le.AppendUint16(p, node.mode)
	p = le.AppendUint16(p, 0)
	p = le.AppendUint64(p, uint64(node.size))
	p = le.AppendUint32(p, where)
	p = le.AppendUint32(p, uint32(node.nid)) // i_ino: for 32-bit programs only
	p = le.AppendUint32(p, node.uid)
	p = le.AppendUint32(p, node.gid)
	p = le.AppendUint64(p, uint64(node.seconds))
	p = le.AppendUint32(p, node.nanos)
	p = le.AppendUint32(p, node.links)
	p = append(p, zeros[:16]...)
	return append(p, node.xattrs...)
}

// superblock gives the image's first block.
func superblock(root *inode, inodes uint64, blocks, meta uint32) []byte {
	p := make([]byte, blockSize)
	s, le := p[superOffset:], binary.LittleEndian
	le.PutUint32(s[0:], superMagic)
	le.PutUint32(s[8:], superCRC) // feature_compat
	s[12] = blockBits
	le.PutUint16(s[14:], uint16(root.nid))
	le.PutUint64(s[16:], inodes)
	le.PutUint32(s[36:], blocks)
	le.PutUint32(s[40:], meta) // meta_blkaddr
	// CRC-32C of the block from here on, without the last inversion (erofs/super.c).
	le.PutUint32(s[4:], ^crc32.Checksum(s, crc32.MakeTable(crc32.Castagnoli)))
	return p
}

// finish writes the inodes and the directories behind the files' contents, and at last
// the superblock.
func (b *builder) finish() error {
	l := layout{builder: b}
	l.visit(b.root, b.root)
	for _, node := range b.data {
		if node.links == 0 {
			b.out.punch(node)
		}
	}
	if err := l.write(); err != nil {
		return err
	}
	if err := b.out.flush(); err != nil {
		return err
	}
	b.stats.Size = b.out.position()
	blocks := b.stats.Size / blockSize
	super := superblock(b.root, uint64(len(l.order)), uint32(blocks), l.meta)
	if err := b.out.w.Truncate(b.stats.Size); err != nil {
		return fmt.Errorf("end the image: %w", err)
	}
	if _, err := b.out.w.WriteAt(super, 0); err != nil {
		return fmt.Errorf("write the image's superblock: %w", err)
	}
	return nil
}
