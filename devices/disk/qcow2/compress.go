package qcow2

import (
	"bytes"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zstd"
)

// unpackedClusters is how many unpacked clusters are kept: a guest that reads a
// cluster page by page has it unpacked once.
const unpackedClusters = 4

// An unpacker unpacks compressed clusters, and keeps the last few.
type unpacker struct {
	size     int64 // of a cluster
	decoders sync.Pool

	mu   sync.Mutex
	kept []unpacked // the latest first
}

// An unpacked is a cluster with the L2 entry that it belongs to. Nothing makes
// such an entry but what made the image, so no other cluster will have it.
type unpacked struct {
	entry uint64
	data  []byte
}

// A decoder produces the bytes of a compressed stream.
type decoder interface {
	io.Reader
	reset(src []byte) error
}

func newUnpacker(c Compression, size int64) (*unpacker, error) {
	u := &unpacker{size: size}
	u.decoders.New = func() any { return &inflater{flate.NewReader(nil)} }
	if c == Zstd {
		if _, err := newZstd(); err != nil {
			return nil, err
		}
		u.decoders.New = func() any {
			d, _ := newZstd() // with the options that have just worked
			return d
		}
	}
	return u, nil
}

// use calls f with the cluster of entry, which fill makes if it is not at hand.
func (u *unpacker) use(entry uint64, fill func([]byte) error, f func([]byte)) error {
	u.mu.Lock()
	for i, k := range u.kept {
		if k.entry == entry {
			copy(u.kept[1:i+1], u.kept[:i])
			u.kept[0] = k
			u.mu.Unlock()
			f(k.data)
			return nil
		}
	}
	u.mu.Unlock()
	data := make([]byte, u.size)
	if err := fill(data); err != nil {
		return err
	}
	f(data)
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.kept) < unpackedClusters {
		u.kept = append(u.kept, unpacked{})
	}
	copy(u.kept[1:], u.kept)
	u.kept[0] = unpacked{entry, data}
	return nil
}

// unpack fills dst from the stream that src begins with. What follows the
// stream is not looked at: the length of src is rounded up to sectors.
func (u *unpacker) unpack(dst, src []byte) error {
	d := u.decoders.Get().(decoder)
	defer u.decoders.Put(d)
	if err := d.reset(src); err != nil {
		return fmt.Errorf("%w: compressed cluster: %w", ErrCorrupt, err)
	}
	if _, err := io.ReadFull(d, dst); err != nil {
		return fmt.Errorf("%w: compressed cluster: %w", ErrCorrupt, err)
	}
	return nil
}

// An inflater reads a raw deflate stream, which is what "zlib" means here.
type inflater struct{ io.ReadCloser }

func (d *inflater) reset(src []byte) error {
	return d.ReadCloser.(flate.Resetter).Reset(bytes.NewReader(src), nil)
}

type zstdDecoder struct{ *zstd.Decoder }

// newZstd makes a decoder that needs no goroutines, and no more memory than the
// windows of QEMU's compressor ask for.
func newZstd() (*zstdDecoder, error) {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(8<<20))
	return &zstdDecoder{d}, err
}

func (d *zstdDecoder) reset(src []byte) error { return d.Reset(bytes.NewReader(src)) }
