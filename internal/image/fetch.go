package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// A fetcher brings layers into the store.
type fetcher struct {
	store    *Store
	progress Progress
	first    time.Duration // see patience
}

// known is a layer that the store has, nil if it has not: by its blob's digest, or by the
// tar in it, which other images may have packed otherwise.
func (s *Store) known(ix *index, blob, diffID v1.Hash) *layerRecord {
	for _, r := range ix.Images {
		for _, l := range r.Layers {
			if l.DiffID == diffID && s.has(l.Digest, l.Size) {
				return &l
			}
		}
	}
	if blob.Hex == "" {
		return nil
	}
	text, err := os.ReadFile(s.notePath(blob))
	if err != nil {
		return nil
	}
	var l layerRecord
	if json.Unmarshal(text, &l) != nil || l.Digest != blob || l.DiffID != diffID || !s.has(blob, l.Size) {
		return nil
	}
	return &l
}

// notePath is the file beside a layer's blob that says what is in it.
func (s *Store) notePath(h v1.Hash) string { return s.blobPath(h) + noteSuffix }

const noteSuffix = ".layer"

// fetch has a layer of an origin in the store. Another process that fetches it is waited
// for; what an earlier one left is gone on with.
func (f *fetcher) fetch(ctx context.Context, from origin, d v1.Descriptor, diffID v1.Hash) (layerRecord, error) {
	waiting := time.AfterFunc(time.Second, func() {
		f.progress.Note(fmt.Sprintf("layer %s is being fetched by another process; waiting for it", shortID(d.Digest)))
	})
	file, err := lockFile(ctx, f.store.partialPath(d.Digest), exclusive)
	waiting.Stop()
	if err != nil {
		return layerRecord{}, err
	}
	defer file.Close()
	if l := f.store.known(&index{}, d.Digest, diffID); l != nil {
		f.progress.Done(d.Digest, false)
		return *l, os.Remove(file.Name())
	}
	resumed := false
	if info, err := file.Stat(); err == nil {
		resumed = info.Size() > 0
	}
	for {
		l, err := f.fetchInto(ctx, file, from, d, diffID)
		switch {
		case err == nil:
			f.progress.Done(d.Digest, true)
			return l, nil
		case errors.Is(err, ErrDigest) && resumed:
			resumed = false // what was left of an earlier time may have been damaged
			err = file.Truncate(0)
		case errors.Is(err, ErrDigest) && from.distrust(d, err):
			err = file.Truncate(0)
		case errors.Is(err, ErrDigest) || errors.Is(err, ErrFormat) || isFull(err):
			err = errors.Join(err, os.Remove(file.Name()))
		}
		if err != nil {
			return layerRecord{}, fmt.Errorf("layer %s: %w", shortID(d.Digest), explain(err))
		}
	}
}

// fetchInto fetches into a file that may have the beginning.
func (f *fetcher) fetchInto(ctx context.Context, file *os.File, from origin, d v1.Descriptor, diffID v1.Hash) (layerRecord, error) {
	check, err := newChecker(ctx, d.Digest.Algorithm, diffID.Algorithm, maxUnpacked(d.Size))
	if err != nil {
		return layerRecord{}, err
	}
	t := &transfer{fetcher: f, file: file, check: check, layer: d}
	if err := t.run(ctx, from); err != nil {
		check.abandon()
		f.progress.Advance(d.Digest, -t.have)
		return layerRecord{}, err
	}
	sum, tar := check.finish()
	l := layerRecord{Digest: d.Digest, Size: d.Size, MediaType: d.MediaType, DiffID: diffID, TarSize: tar.size}
	switch {
	case sum != d.Digest:
		err = fmt.Errorf("%w: %s expected, %s found", ErrDigest, d.Digest, sum)
	default:
		err = checkTar(tar, diffID)
	}
	if err == nil {
		err = f.store.keep(file, l)
	}
	if err != nil {
		f.progress.Advance(d.Digest, -t.have)
	}
	return l, err
}

// checkTar holds what was in a blob against what should be.
func checkTar(tar tarResult, diffID v1.Hash) error {
	switch {
	case tar.err != nil:
		return fmt.Errorf("%w: it cannot be unpacked: %w", ErrFormat, tar.err)
	case tar.kind == bzipped || tar.kind == xzipped:
		return fmt.Errorf("%w: it is compressed neither by gzip nor by zstd", ErrFormat)
	case tar.diffID != diffID:
		return fmt.Errorf("%w: the tar in it must be %s, and is %s", ErrDigest, diffID, tar.diffID)
	}
	return nil
}

// keep makes a file that was verified a blob of the store.
func (s *Store) keep(file *os.File, l layerRecord) error {
	note, err := json.Marshal(l)
	if err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	if err := s.putFile(s.notePath(l.Digest), note); err != nil {
		return err
	}
	if err := os.Rename(file.Name(), s.blobPath(l.Digest)); err != nil {
		return err
	}
	return file.Chmod(0o400) // last: what is left of an interrupted pull must be writable
}

// A transfer is a layer on its way into a file.
type transfer struct {
	*fetcher
	file  *os.File
	check *checker
	layer v1.Descriptor
	have  int64 // bytes that are in the file and that check has had
}

// run fetches until the file is as long as it should be.
func (t *transfer) run(ctx context.Context, from origin) error {
	if err := t.resume(ctx); err != nil {
		return err
	}
	wait := patience{first: t.first}
	for t.have < t.layer.Size {
		before := t.have
		err := t.more(ctx, from)
		if err == nil {
			break
		}
		if t.have-before >= 1<<20 {
			wait.tries = 0 // it breaks, but it gets on
		}
		if err := wait.again(ctx, err); err != nil {
			return err
		}
		t.progress.Note(fmt.Sprintf("layer %s: %v; going on at %d of %d bytes", shortID(t.layer.Digest), err, t.have, t.layer.Size))
	}
	return nil
}

// resume takes what is in the file from an earlier time.
func (t *transfer) resume(ctx context.Context) error {
	info, err := t.file.Stat()
	if err != nil {
		return err
	}
	if info.Size() > t.layer.Size {
		if err := t.file.Truncate(0); err != nil {
			return err
		}
	}
	if _, err := t.file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return t.take(ctx, t.check, t.file)
}

// more asks the origin for what is missing.
func (t *transfer) more(ctx context.Context, from origin) error {
	r, at, err := from.blob(ctx, t.layer, t.have)
	if err != nil {
		return err
	}
	defer r.Close()
	if at < t.have { // it began at the beginning
		if _, err := io.CopyN(io.Discard, r, t.have-at); err != nil {
			return endOf(err)
		}
	}
	if err := t.take(ctx, io.MultiWriter(t.file, t.check), r); err != nil {
		return err
	}
	if t.have < t.layer.Size {
		return io.ErrUnexpectedEOF
	}
	return nil
}

// endOf makes an end where none should be an error.
func endOf(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// take copies to w until r ends. What is more than the layer's size is an error: a
// registry could fill the disk.
func (t *transfer) take(ctx context.Context, w io.Writer, r io.Reader) error {
	buf := make([]byte, 128<<10)
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := r.Read(buf)
		if t.have+int64(n) > t.layer.Size {
			return fmt.Errorf("%w: more than the %d bytes that its manifest says", ErrDigest, t.layer.Size)
		}
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return refusal{err}
			}
			t.have += int64(n)
			t.progress.Advance(t.layer.Digest, int64(n))
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
