package rootfs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

const (
	blockSize = 4096 // the only size that kernels before 6.4 mount
	// maxBlocks is how many a 32-bit address reaches: 16 TiB.
	maxBlocks = 1<<32 - 1
	// inlineTail is up to how many bytes a file's last bytes stand behind its inode
	// and not in a block of their own. docs/rootfs.md has what other values cost.
	inlineTail = 512
)

var zeros [blockSize]byte

// An output is the image's file, written from its start to its end. Blocks of zeros are
// not written but left as holes.
type output struct {
	w      *os.File
	buffer []byte // what comes next, not yet written; starts at a block
	offset int64  // of the buffer's start
}

func newOutput(w *os.File) *output {
	return &output{w: w, buffer: make([]byte, 0, 1<<20), offset: blockSize}
}

// position is the offset in the image where the next byte goes.
func (o *output) position() int64 { return o.offset + int64(len(o.buffer)) }

// Write adds bytes.
func (o *output) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		k := copy(o.buffer[len(o.buffer):cap(o.buffer)], p)
		o.buffer, p = o.buffer[:len(o.buffer)+k], p[k:]
		if len(o.buffer) == cap(o.buffer) {
			if err := o.flush(); err != nil {
				return 0, err
			}
		}
	}
	return n, nil
}

// pad adds zeros up to the next block.
func (o *output) pad() error {
	_, err := o.Write(zeros[:-o.position()&(blockSize-1)])
	return err
}

// flush writes what is buffered.
func (o *output) flush() error {
	for start := 0; start < len(o.buffer); {
		end := start
		for end < len(o.buffer) && !isZero(o.block(end)) {
			end += len(o.block(end))
		}
		if end > start {
			if _, err := o.w.WriteAt(o.buffer[start:end], o.offset+int64(start)); err != nil {
				return fmt.Errorf("write the image: %w", err)
			}
		}
		start = end
		for start < len(o.buffer) && isZero(o.block(start)) {
			start += len(o.block(start))
		}
	}
	o.offset += int64(len(o.buffer))
	o.buffer = o.buffer[:0]
	return nil
}

// block is a block of the buffer; the last may be shorter.
func (o *output) block(at int) []byte {
	return o.buffer[at:min(at+blockSize, len(o.buffer))]
}

func isZero(p []byte) bool { return bytes.Equal(p, zeros[:len(p)]) }

// content reads the content of a file, node.size bytes, into blocks of its own, or behind
// the inode if it is short.
func (o *output) content(ctx context.Context, r io.Reader, node *inode) error {
	tail := node.size % blockSize
	if tail > inlineTail {
		tail = 0
	}
	if err := o.place(node, node.size-tail); err != nil {
		return err
	}
	if err := o.copy(ctx, r, node.size-tail); err != nil {
		return err
	}
	if tail > 0 {
		node.tail = make([]byte, tail)
		if _, err := io.ReadFull(r, node.tail); err != nil {
			return unreadable(err)
		}
	}
	return o.pad()
}

// copy adds n bytes that it reads.
func (o *output) copy(ctx context.Context, r io.Reader, n int64) error {
	for n > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		free := o.buffer[len(o.buffer):cap(o.buffer)]
		free = free[:min(int64(len(free)), n)]
		if _, err := io.ReadFull(r, free); err != nil {
			return unreadable(err)
		}
		n -= int64(len(free))
		o.buffer = o.buffer[:len(o.buffer)+len(free)]
		if len(o.buffer) == cap(o.buffer) {
			if err := o.flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

// sparse is content for a file of which only fragments are there. EROFS of Linux 5.10
// knows no holes, but the image's file can have them. It returns how much it has read.
func (o *output) sparse(ctx context.Context, r io.Reader, node *inode, fragments []fragment) (int64, error) {
	if err := o.place(node, node.size); err != nil {
		return 0, err
	}
	var at, read int64
	for _, f := range fragments {
		if err := o.skip(f.offset - at); err != nil {
			return read, err
		}
		if err := o.copy(ctx, r, f.length); err != nil {
			return read, err
		}
		at = f.offset + f.length
		read += f.length
	}
	if err := o.skip(node.size - at); err != nil {
		return read, err
	}
	return read, o.pad()
}

// skip adds n zeros, without writing more of them than blocks are filled up with.
func (o *output) skip(n int64) error {
	fill := min(n, -o.position()&(blockSize-1))
	if _, err := o.Write(zeros[:fill]); err != nil {
		return err
	}
	n -= fill
	if n >= blockSize {
		if err := o.flush(); err != nil {
			return err
		}
		o.offset += n &^ (blockSize - 1)
	}
	_, err := o.Write(zeros[:n&(blockSize-1)])
	return err
}

// place says where a node's blocks are: here.
func (o *output) place(node *inode, bytes int64) error {
	first := o.position() / blockSize
	if bytes > (maxBlocks-first)*blockSize {
		return refuse(fmt.Errorf("with its %d bytes the image would be larger than the 16 TiB that EROFS can have", node.size))
	}
	if bytes > 0 {
		node.block = uint32(first)
	}
	return nil
}

func unreadable(err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return refuse(err)
}

// punch gives the room of a node's blocks back, where the host's file system can do that.
func (o *output) punch(node *inode) {
	length := (node.size - int64(len(node.tail)) + blockSize - 1) &^ (blockSize - 1)
	// Without success the file is larger than it need be, and nothing else.
	_ = unix.Fallocate(int(o.w.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, int64(node.block)*blockSize, length)
}
