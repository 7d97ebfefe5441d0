package rootfs

import "fmt"

// A layout is where in the image the inodes go. Those of a directory's files are side by
// side: the kernel reads a block of them at once.
type layout struct {
	*builder
	order []*inode // in the order of the disk
	meta  uint32   // the block that the first of them is in
}

// visit puts a directory's files into the order, and then those of the directories in it.
func (l *layout) visit(node, parent *inode) {
	if node == parent { // the root
		l.add(node)
	}
	sortEntries(node, parent)
	node.links = 2
	for _, e := range node.dir.sorted {
		if e.name == "." || e.name == ".." {
			continue
		}
		if e.node.kind() == typeDir {
			node.links++
		} else {
			e.node.links++
		}
		if e.node.links <= 1 {
			l.add(e.node)
		}
	}
	for _, e := range node.dir.sorted {
		if e.node.kind() == typeDir && e.name != "." && e.name != ".." {
			l.visit(e.node, node)
		}
	}
}

// add puts an inode into the order and counts it.
func (l *layout) add(node *inode) {
	l.order = append(l.order, node)
	switch node.kind() {
	case typeFile:
		l.stats.Files++
		l.stats.Content += node.size
	case typeDir:
		l.stats.Directories++
	case typeLink:
		l.stats.Symlinks++
	default:
		l.stats.Others++
	}
}

// inline is how many bytes of content follow an inode. Of a link it is all or nothing, and
// nothing if the link could not be in one block with it (see assign).
func inline(node *inode) int64 {
	switch node.kind() {
	case typeDir:
		if tail := node.size % blockSize; tail <= maxInline {
			return tail
		}
	case typeLink:
		if node.size <= maxInline && headSize(node)+node.size <= blockSize {
			return node.size
		}
	default:
		return int64(len(node.tail))
	}
	return 0
}

// headSize is the length of an inode with its extended attributes.
func headSize(node *inode) int64 { return inodeSize + int64(len(node.xattrs)) }

// assign numbers the inodes, and gives blocks to the directories and links that need
// them. It returns the length of the inodes.
func (l *layout) assign() (int64, error) {
	offset := int64(firstNode)
	for _, node := range l.order {
		head, tail := headSize(node), inline(node)
		// Content behind an inode has to be in one block (erofs_map_blocks_flatmode);
		// the inode's attributes may be in the one before. A link's has to be in the
		// block where the inode itself ends: erofs_fill_symlink of Linux 5.10 copies it
		// from there, and refuses any other.
		from, need := (offset+head)%blockSize, tail
		if node.kind() == typeLink && tail > 0 {
			from, need = offset%blockSize, head+tail
		}
		if from+need > blockSize {
			offset = alignUp(offset+blockSize-from, inodeSize)
		}
		node.nid = uint64(offset / nidBytes)
		offset = alignUp(offset+head+tail, inodeSize)
	}
	length := alignUp(offset, blockSize)
	next := int64(l.meta) + length/blockSize
	for _, node := range l.order {
		if k := node.kind(); k != typeDir && k != typeLink {
			continue
		}
		if bytes := alignUp(node.size-inline(node), blockSize); bytes > 0 {
			node.block = uint32(next)
			next += bytes / blockSize
		}
		if next > maxBlocks {
			return 0, refuse(fmt.Errorf("the image would be larger than the 16 TiB that EROFS can have"))
		}
	}
	return length, nil
}

func alignUp(n, to int64) int64 { return (n + to - 1) &^ (to - 1) }

// write writes the inodes and what stands in blocks of directories and links.
func (l *layout) write() error {
	start := l.out.position()
	l.meta = uint32(start / blockSize)
	length, err := l.assign()
	if err != nil {
		return err
	}
	var p []byte
	for i, node := range l.order {
		if i%1024 == 0 && l.ctx.Err() != nil {
			return l.ctx.Err()
		}
		gap := start + int64(node.nid)*nidBytes - l.out.position()
		p = append(p[:0], zeros[:gap]...)
		tail := inline(node)
		p = appendInode(p, node, tail > 0)
		if _, err := l.out.Write(p); err != nil {
			return err
		}
		p = whole(p[:0], node)
		if _, err := l.out.Write(p[int64(len(p))-tail:]); err != nil {
			return err
		}
	}
	if _, err := l.out.Write(make([]byte, start+length-l.out.position())); err != nil {
		return err
	}
	for _, node := range l.order {
		if k := node.kind(); k != typeDir && k != typeLink {
			continue
		}
		p = whole(p[:0], node)
		if _, err := l.out.Write(p[:int64(len(p))-inline(node)]); err != nil {
			return err
		}
		if err := l.out.pad(); err != nil {
			return err
		}
	}
	return nil
}

// whole gives all that write has to write of a node's content.
func whole(p []byte, node *inode) []byte {
	if node.kind() == typeDir {
		return appendEntries(p, node)
	}
	return append(p, node.tail...)
}
