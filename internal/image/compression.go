package image

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/therootcompany/xz"
)

// maxWindow bounds the memory that a zstd stream can ask for: what zstd --long=27 makes.
const maxWindow = 128 << 20

// A compression is how a stream of bytes is packed, by how it begins.
type compression int

const (
	plain compression = iota
	gzipped
	zstandard
	bzipped // in archives only, as docker load takes them
	xzipped
)

// detect tells from the first bytes how a stream is packed. Media types are wrong often
// enough that nobody else believes them either.
func detect(head []byte) compression {
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		return gzipped
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return zstandard
	case len(head) >= 4 && head[0]&0xf0 == 0x50 && bytes.HasPrefix(head[1:], []byte{0x2a, 0x4d, 0x18}):
		return zstandard // one that begins with a skippable frame (RFC 8878 §3.1.2)
	case bytes.HasPrefix(head, []byte("BZh")):
		return bzipped
	case bytes.HasPrefix(head, []byte{0xfd, '7', 'z', 'X', 'Z', 0}):
		return xzipped
	}
	return plain
}

// How much may come out of a stream: a few MiB of zstd can be petabytes of zeros. Gzip
// makes of a byte 1032 at most (RFC 1951: a match of 258 bytes takes two bits), and tars of
// programs and data compress by less than 20.
const (
	alwaysUnpacked = 1 << 30 // this much, however small the stream is
	maxRatio       = 1200
	mostUnpacked   = 1 << 40
)

// maxUnpacked is how many bytes may be in a stream of packed bytes.
func maxUnpacked(packed int64) int64 {
	return max(packed, alwaysUnpacked, maxRatio*min(packed, mostUnpacked/maxRatio))
}

// bounded reads no more than most allows, and fails when there is more.
type bounded struct {
	r    io.Reader
	n    *int64 // bytes that were read
	most func() int64
}

func (b bounded) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	*b.n += int64(n)
	if most := b.most(); *b.n > most {
		return 0, fmt.Errorf("%w: more than %d MiB are in it, and husk takes no more for its size", ErrFormat, most>>20)
	}
	return n, err
}

// counted tells how many bytes were read.
type counted struct {
	r io.Reader
	n int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// unpack reads what is in a stream. Close frees what the unpacking needs, not r.
func unpack(r io.Reader) (io.ReadCloser, compression, error) {
	b := bufio.NewReaderSize(r, 64<<10)
	head, err := b.Peek(6)
	if err != nil && err != io.EOF { //nolint:errorlint // Peek gives it bare
		return nil, plain, err
	}
	kind := detect(head)
	switch kind {
	case gzipped:
		z, err := gzip.NewReader(b)
		return z, kind, err
	case zstandard:
		z, err := zstd.NewReader(b, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, kind, err
		}
		return z.IOReadCloser(), kind, nil
	case bzipped:
		return io.NopCloser(bzip2.NewReader(b)), kind, nil
	case xzipped:
		x, err := xz.NewReader(b, xz.DefaultDictMax)
		return io.NopCloser(x), kind, err
	}
	return io.NopCloser(b), kind, nil
}
