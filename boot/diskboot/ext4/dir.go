package ext4

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Bounds on one folder. Linux's are higher, but nobody has so much in /boot.
const (
	maxDirBytes = 4 << 20
	maxEntries  = 1 << 16
)

// entries calls each for every name in a folder, "." and ".." among them, until
// it returns false. Blocks that index the names look like empty ones, so a
// folder is read from its beginning to its end (directory.rst).
func (f *FS) entries(dir *inode, each func(name []byte, number uint32) bool) error {
	if dir.flags&flagInline != 0 {
		head, rest, err := dir.inline()
		if err != nil {
			return err
		}
		if len(head) < 4 {
			return fmt.Errorf("%w: folder of %d bytes in inode %d", ErrMalformed, len(head), dir.number)
		}
		// The parent's number takes the place of "." and "..".
		more, err := f.dirBlock(head[4:], each)
		if more && err == nil {
			_, err = f.dirBlock(rest, each)
		}
		return err
	}
	if dir.size > maxDirBytes {
		return fmt.Errorf("%w: inode %d is a folder of %d bytes, at most %d are read", ErrUnsupported, dir.number, dir.size, maxDirBytes)
	}
	r, err := f.open(dir)
	if err != nil {
		return err
	}
	block := make([]byte, f.blockSize)
	for {
		_, err := io.ReadFull(r, block)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("folder in inode %d: %w", dir.number, err)
		}
		if more, err := f.dirBlock(block, each); !more || err != nil {
			return err
		}
	}
}

// dirBlock goes through one block of names, and tells whether to go on.
func (f *FS) dirBlock(block []byte, each func(name []byte, number uint32) bool) (more bool, err error) {
	const header = 8
	for len(block) >= header {
		le := binary.LittleEndian
		number, recLen, nameLen := le.Uint32(block), int(le.Uint16(block[4:])), int(block[6])
		if f.incompat&incompatFiletype == 0 {
			nameLen = int(le.Uint16(block[6:]))
		}
		if f.blockSize == 1<<16 && (recLen == 0 || recLen == 1<<16-1) {
			recLen = 1 << 16 // it does not fit into the field
		}
		if recLen < header || recLen%4 != 0 || recLen > len(block) || nameLen > recLen-header {
			return false, fmt.Errorf("%w: bad name in a folder", ErrMalformed)
		}
		if number != 0 && !each(block[header:header+nameLen], number) {
			return false, nil
		}
		block = block[recLen:]
	}
	return true, nil
}
