package disk

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/huskvm/husk/devices/disk/qcow2"
	"github.com/huskvm/husk/devices/iovec"
)

// ErrMagic is a write that would make a raw image look like another format.
var ErrMagic = errors.New("the guest writes the header of a qcow2 image to a disk whose format was guessed as raw")

// A raw is an image that is the disk's bytes as they are.
//
// A file whose length is not a multiple of 512 is a disk of the next larger
// size, as in QEMU: what is missing reads as zeroes, and the file grows when its last
// sector is written.
type raw struct {
	*file
	size     int64
	writable bool
	// guessed tells that nobody has said that the image is raw. Then the guest
	// must not make it into anything else: a qcow2 header could name any file of
	// the host as its backing file, for the next start to open.
	guessed bool
}

const sector = 512

func newRaw(f *file, guessed, write bool, log *slog.Logger) (*raw, error) {
	n, err := f.Size()
	if err != nil {
		return nil, err
	}
	r := &raw{file: f, size: (n + sector - 1) &^ (sector - 1), writable: write, guessed: guessed}
	if r.size < n {
		return nil, fmt.Errorf("%s: its size of %d bytes is too large", f.path, n)
	}
	if write && !f.device && f.align > 1 && n%f.align != 0 {
		return nil, fmt.Errorf("%s: its size of %d bytes is not a multiple of %d, as cache=direct needs here; use cache=writeback", f.path, n, f.align)
	}
	if r.size != n {
		log.Warn("raw image does not end with a sector; its last one is filled up with zeroes", "file", f.path, "size", n)
	}
	return r, nil
}

func (r *raw) Size() int64 { return r.size }

func (r *raw) Flush() error { return r.Sync() }

func (r *raw) Discard(off, n int64) error { return r.PunchHole(off, n) }

func (r *raw) WriteZeroes(off, n int64, mayUnmap bool) error { return r.zero(off, n, mayUnmap) }

func (r *raw) WriteAt(v [][]byte, off int64) error {
	if !r.guessed || off >= int64(len(qcow2.Magic)) {
		return r.file.WriteAt(v, off)
	}
	// The guest can change its memory while we look at it, so what is looked at
	// is a copy.
	first := make([]byte, min(sector, iovec.Len(v)))
	iovec.Gather(first, v)
	start := make([]byte, len(qcow2.Magic))
	if err := r.ReadAt([][]byte{start}, 0); err != nil {
		return err
	}
	copy(start[off:], first)
	if bytes.Equal(start, []byte(qcow2.Magic)) {
		return fmt.Errorf("%w; if it is meant to, say format=raw", ErrMagic)
	}
	n := int64(len(first))
	return r.file.WriteAt(slices.Insert(slices.Clone(iovec.Slice(v, n, iovec.Len(v)-n)), 0, first), off)
}

// Close writes what the host still has in memory.
func (r *raw) Close() error {
	var err error
	if r.writable {
		err = r.Sync()
	}
	return errors.Join(err, r.file.Close())
}
