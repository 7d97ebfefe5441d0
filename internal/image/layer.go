package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"sync/atomic"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// A verdict is set when a layer has been read to its end and was what it should be.
type verdict struct{ atomic.Bool }

// Open reads the layer's tar, unpacked. What is read is held against DiffID and TarSize:
// a Read gives ErrDigest instead of io.EOF, or when there is more than there should be.
// A tar's reader may stop before the end; read on to know.
func (l Layer) Open() (io.ReadCloser, error) {
	f, err := os.Open(l.path)
	if err != nil {
		return nil, fmt.Errorf("layer %s: %w", shortID(l.Digest), err)
	}
	r, _, err := unpack(f)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("layer %s: %w", shortID(l.Digest), err), f.Close())
	}
	h, err := v1.Hasher(l.DiffID.Algorithm)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("layer %s: %w", shortID(l.Digest), err), r.Close(), f.Close())
	}
	return &layerReader{layer: l, unpacked: r, file: f, hash: h}, nil
}

// verify reads the layer to its end.
func (l Layer) verify(ctx context.Context) error {
	r, err := l.Open()
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, reader{ctx, r})
	return errors.Join(err, r.Close())
}

// A layerReader reads a layer's tar, and holds it against what it should be.
type layerReader struct {
	layer    Layer
	unpacked io.ReadCloser
	file     *os.File
	hash     hash.Hash
	n        int64
	err      error // what ended it
}

func (r *layerReader) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	n, err := r.unpacked.Read(p)
	r.hash.Write(p[:n])
	r.n += int64(n)
	switch {
	case r.n > r.layer.TarSize:
		err = fmt.Errorf("layer %s: %w: longer than %d bytes", shortID(r.layer.Digest), ErrDigest, r.layer.TarSize)
	case errors.Is(err, io.EOF):
		if err = r.atEnd(); err == nil {
			err = io.EOF
		}
	case err != nil:
		err = fmt.Errorf("layer %s: %w", shortID(r.layer.Digest), err)
	}
	r.err = err
	return n, err
}

// atEnd tells whether all of the layer is what it should be.
func (r *layerReader) atEnd() error {
	want, err := hexBytes(r.layer.DiffID)
	if err != nil {
		return err
	}
	if !bytes.Equal(r.hash.Sum(nil), want) {
		return fmt.Errorf("layer %s: %w: its file has changed", shortID(r.layer.Digest), ErrDigest)
	}
	r.layer.read.Store(true)
	return nil
}

func (r *layerReader) Close() error {
	if r.err == nil {
		r.err = os.ErrClosed
	}
	return errors.Join(r.unpacked.Close(), r.file.Close())
}

// openBlob reads the layer as it came, held against Digest.
func (l Layer) openBlob() (io.ReadCloser, error) {
	f, err := os.Open(l.path)
	if err != nil {
		return nil, fmt.Errorf("layer %s: %w", shortID(l.Digest), err)
	}
	h, err := v1.Hasher(l.Digest.Algorithm)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	blob := l
	blob.DiffID, blob.TarSize, blob.read = l.Digest, l.Size, &verdict{}
	return &layerReader{layer: blob, unpacked: io.NopCloser(f), file: f, hash: h}, nil
}

// ociType is the OCI's media type for how the layer is packed.
func (l Layer) ociType() (types.MediaType, error) {
	f, err := os.Open(l.path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	head := make([]byte, 6)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return "", err
	}
	switch detect(head[:n]) {
	case gzipped:
		return types.OCILayer, nil
	case zstandard:
		return types.OCILayerZStd, nil
	}
	return types.OCIUncompressedLayer, nil
}
