package image

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// hexBytes is a digest as bytes.
func hexBytes(h v1.Hash) ([]byte, error) {
	b, err := hex.DecodeString(h.Hex)
	if err != nil {
		return nil, fmt.Errorf("digest %s: %w", h, err)
	}
	return b, nil
}

// sumOf is a digest made from a hash.
func sumOf(algorithm string, h hash.Hash) v1.Hash {
	return v1.Hash{Algorithm: algorithm, Hex: hex.EncodeToString(h.Sum(nil))}
}

// checkBytes holds text against its digest.
func checkBytes(text []byte, want v1.Hash) error {
	h, err := v1.Hasher(want.Algorithm)
	if err != nil {
		return err
	}
	h.Write(text)
	sum, err := hexBytes(want)
	if err != nil {
		return err
	}
	if !bytes.Equal(h.Sum(nil), sum) {
		return fmt.Errorf("%w: %s expected, %s found", ErrDigest, want, sumOf(want.Algorithm, h))
	}
	return nil
}

// A checker is given a blob's bytes in order. It makes the blob's digest, and at the same
// time, in a goroutine of its own, unpacks the tar in it and makes the tar's.
type checker struct {
	algorithm string
	blob      hash.Hash
	size      int64
	diff      string
	pipe      *io.PipeWriter
	result    chan tarResult
}

// A tarResult is what has been found in a blob.
type tarResult struct {
	diffID v1.Hash
	size   int64
	kind   compression
	err    error
}

// newChecker is for a blob and a tar with digests of these algorithms; the tar must not
// have more than most bytes. It must come to its end by finish or abandon.
func newChecker(ctx context.Context, blobAlgorithm, diffAlgorithm string, most int64) (*checker, error) {
	blob, err := v1.Hasher(blobAlgorithm)
	if err != nil {
		return nil, err
	}
	diff, err := v1.Hasher(diffAlgorithm)
	if err != nil {
		return nil, err
	}
	r, w := io.Pipe()
	c := &checker{algorithm: blobAlgorithm, blob: blob, diff: diffAlgorithm, pipe: w, result: make(chan tarResult, 1)}
	go func() {
		var res tarResult
		unpacked, kind, err := unpack(r)
		if err == nil {
			res.kind = kind
			res.size, err = io.Copy(diff, bounded{reader{ctx, unpacked}, new(int64), func() int64 { return most }})
			err = errors.Join(err, unpacked.Close())
		}
		res.diffID, res.err = sumOf(diffAlgorithm, diff), err
		// What is behind the end, or behind what cannot be unpacked, is still the blob's.
		_, _ = io.Copy(io.Discard, r)
		c.result <- res
	}()
	return c, nil
}

// Write takes more of the blob. It never fails.
func (c *checker) Write(p []byte) (int, error) {
	c.blob.Write(p)
	c.size += int64(len(p))
	_, _ = c.pipe.Write(p) // its reader drains it, whatever it finds
	return len(p), nil
}

// finish is the blob's digest and what is in it.
func (c *checker) finish() (v1.Hash, tarResult) {
	_ = c.pipe.Close()
	return sumOf(c.algorithm, c.blob), <-c.result
}

// abandon ends the checker without a result.
func (c *checker) abandon() {
	_ = c.pipe.CloseWithError(io.ErrUnexpectedEOF)
	<-c.result
}
