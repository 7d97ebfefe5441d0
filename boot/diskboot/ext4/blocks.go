package ext4

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/huskvm/husk/boot/diskboot/runs"
)

// Bounds on what the map of one file may cost.
const (
	// maxMap is the bytes of tree nodes and indirect blocks. Enough for a file of
	// 4 GiB, the most that an initramfs has, in the smallest blocks.
	maxMap = 20 << 20
	// maxDepth is the most levels that an extent tree has (ifork.rst).
	maxDepth = 5
)

// open gives an inode's content.
func (f *FS) open(i *inode) (*io.SectionReader, error) {
	switch {
	case i.flags&flagInline != 0:
		head, rest, err := i.inline()
		if err != nil {
			return nil, err
		}
		return io.NewSectionReader(bytes.NewReader(bytes.Join([][]byte{head, rest}, nil)), 0, i.size), nil
	case i.kind() == modeLink && i.flags&flagExtents == 0 && i.size < iBlockSize:
		return io.NewSectionReader(bytes.NewReader(i.iBlock()), 0, i.size), nil
	}
	m := mapper{fs: f, end: (i.size-1)/f.blockSize + 1, left: maxMap}
	var err error
	if i.size == 0 {
		m.end = 0
	}
	if i.flags&flagExtents != 0 {
		err = m.extents(i.iBlock(), maxDepth)
	} else {
		err = m.pointers(i.iBlock())
	}
	if err != nil {
		return nil, fmt.Errorf("inode %d: %w", i.number, err)
	}
	return m.runs.Open(f.image, i.size), nil
}

// A mapper collects where the blocks of one file are.
type mapper struct {
	fs   *FS
	runs runs.Map
	end  int64 // first block after the file's last
	left int64 // bytes of the map that may still be read
}

// add maps n blocks of the file.
func (m *mapper) add(logical int64, physical uint64, n int64) error {
	off, err := m.fs.offset(physical, n)
	if err != nil {
		return err
	}
	if err := m.runs.Add(logical*m.fs.blockSize, off, n*m.fs.blockSize); err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return nil
}

// block reads a block of the map.
func (m *mapper) block(number uint64) ([]byte, error) {
	off, err := m.fs.offset(number, 1)
	if err != nil {
		return nil, err
	}
	if m.left -= m.fs.blockSize; m.left < 0 {
		return nil, fmt.Errorf("%w: the map of the file's blocks has more than %d bytes", ErrMalformed, maxMap)
	}
	p := make([]byte, m.fs.blockSize)
	return p, m.fs.read(p, off)
}

// extents walks a node of an extent tree and all below it. Depth is the most
// that the node may say of itself (ifork.rst, "Extent Tree").
func (m *mapper) extents(node []byte, most int) error {
	const magic, size, unwritten = 0xf30a, 12, 1 << 15
	le := binary.LittleEndian
	entries, depth := int(le.Uint16(node[2:])), int(le.Uint16(node[6:]))
	if le.Uint16(node) != magic || entries > len(node)/size-1 || depth > most {
		return fmt.Errorf("%w: bad node in an extent tree", ErrMalformed)
	}
	for e := node[size : size*(entries+1)]; len(e) > 0; e = e[size:] {
		logical := int64(le.Uint32(e))
		if logical >= m.end {
			return nil
		}
		if depth > 0 {
			child, err := m.block(uint64(le.Uint32(e[4:])) | uint64(le.Uint16(e[8:]))<<32)
			if err != nil {
				return err
			}
			if int(le.Uint16(child[6:])) != depth-1 {
				return fmt.Errorf("%w: bad depth in an extent tree", ErrMalformed)
			}
			if err := m.extents(child, depth-1); err != nil {
				return err
			}
			continue
		}
		n := int64(le.Uint16(e[4:]))
		if n > unwritten { // allocated, and reads as zeros
			continue
		}
		if err := m.add(logical, uint64(le.Uint32(e[8:]))|uint64(le.Uint16(e[6:]))<<32, n); err != nil {
			return err
		}
	}
	return nil
}

// pointers walks the older map: twelve blocks, and three trees (ifork.rst,
// "Direct/Indirect Block Addressing").
func (m *mapper) pointers(iBlock []byte) error {
	const direct = 12
	if err := m.indirect(iBlock[:4*direct], 0, 0); err != nil {
		return err
	}
	logical, span := int64(direct), int64(1)
	for level := 1; level <= 3; level++ {
		span *= m.fs.blockSize / 4
		p := iBlock[4*(direct+level-1):][:4]
		if err := m.indirect(p, logical, level); err != nil {
			return err
		}
		logical += span
	}
	return nil
}

// indirect walks pointers to trees of so many levels; at level 0 they point to
// the file's blocks. Zero is a hole.
func (m *mapper) indirect(pointers []byte, logical int64, level int) error {
	span := int64(1)
	for range level {
		span *= m.fs.blockSize / 4
	}
	for ; len(pointers) > 0 && logical < m.end; pointers, logical = pointers[4:], logical+span {
		number := uint64(binary.LittleEndian.Uint32(pointers))
		if number == 0 {
			continue
		}
		var err error
		if level == 0 {
			err = m.add(logical, number, 1)
		} else {
			var p []byte
			if p, err = m.block(number); err == nil {
				err = m.indirect(p, logical, level-1)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}
