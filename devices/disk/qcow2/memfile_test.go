package qcow2

import (
	"bytes"
	"slices"
	"sync"
	"syscall"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/devices/iovec"
)

// A memFile is a file in memory, which remembers what was done to it.
type memFile struct {
	mu     sync.Mutex
	data   []byte
	limit  int64 // ENOSPC beyond, if not 0
	fail   func(op fileOp) error
	record bool
	punch  bool // open the image so that it punches holes
	log    []fileOp
	closed bool
}

// A fileOp is a write, or, without data, a sync.
type fileOp struct {
	off  int64
	data []byte
}

func (f *memFile) ReadAt(v [][]byte, off int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	iovec.Zero(v)
	if off >= 0 && off < int64(len(f.data)) {
		iovec.Scatter(v, f.data[off:])
	}
	return nil
}

func (f *memFile) WriteAt(v [][]byte, off int64) error {
	p := bytes.Join(v, nil)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.limit > 0 && off+int64(len(p)) > f.limit {
		return syscall.ENOSPC
	}
	op := fileOp{off, p}
	if f.fail != nil {
		if err := f.fail(op); err != nil {
			return err
		}
	}
	if f.record {
		f.log = append(f.log, op)
	}
	f.data = apply(f.data, op)
	return nil
}

func apply(data []byte, op fileOp) []byte {
	if end := op.off + int64(len(op.data)); end > int64(len(data)) {
		data = append(data, make([]byte, end-int64(len(data)))...)
	}
	copy(data[op.off:], op.data)
	return data
}

func (f *memFile) Sync() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		if err := f.fail(fileOp{}); err != nil {
			return err
		}
	}
	if f.record {
		f.log = append(f.log, fileOp{})
	}
	return nil
}

func (f *memFile) PunchHole(off, n int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if off >= int64(len(f.data)) {
		return nil
	}
	p := make([]byte, min(n, int64(len(f.data))-off))
	if f.record {
		f.log = append(f.log, fileOp{off, p})
	}
	copy(f.data[off:], p)
	return nil
}

func (f *memFile) Size() (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return int64(len(f.data)), nil
}

func (f *memFile) Close() error {
	f.closed = true
	return nil
}

// A memBacking is a backing file in memory.
type memBacking []byte

func (b memBacking) ReadAt(v [][]byte, off int64) error {
	iovec.Scatter(v, b[off:])
	return nil
}
func (b memBacking) Size() int64  { return int64(len(b)) }
func (b memBacking) Close() error { return nil }

// smallCaches makes tables leave memory after a few requests.
func smallCaches(q *Image) *Image {
	q.l2s.limit, q.blocks.limit = 2, 2
	return q
}

func newImage(t require.TestingT, size int64, o CreateOptions) *memFile {
	f := &memFile{}
	require.NoError(t, Create(f, size, o))
	return f
}

func open(t require.TestingT, f *memFile, base Backing) *Image {
	q, err := Open(f, Options{Base: base, PunchHoles: f.punch})
	require.NoError(t, err)
	return smallCaches(q)
}

func readDisk(t require.TestingT, q *Image) []byte {
	p := make([]byte, q.Size())
	require.NoError(t, q.ReadAt([][]byte{p}, 0))
	return p
}

// split cuts p into a vector of pieces of n bytes.
func split(p []byte, n int) [][]byte { return slices.Collect(slices.Chunk(p, n)) }
