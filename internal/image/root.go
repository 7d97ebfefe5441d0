package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
)

// rootKey is what a builder may call its format: it becomes a folder's name.
var rootKey = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{0,63}$`)

// Root gives the file with an image's root file system, open for reading. The first time,
// build makes it: it writes to w, an empty file, from the layers, bottom first. Who calls
// at the same time, in this process or another, waits. If build fails, or ctx ends, nothing
// is left. Images with the same layers share a root.
//
// key names the format and the version of what build makes, as "erofs-2".
//
// As long as the file is open, its name stays: another process can be told to open
// f.Name(), and once it has, f can be closed. That image may be removed at any time.
func (s *Store) Root(ctx context.Context, i *Image, key string, build func(ctx context.Context, w *os.File, layers []Layer) error) (*os.File, error) {
	if !rootKey.MatchString(key) {
		return nil, fmt.Errorf("image %s: %q cannot be the name of a root's format", i, key)
	}
	// Until the root is open, nobody collects what it is made from, nor itself.
	adding, err := s.add(ctx)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", i, err)
	}
	built := false
	defer func() {
		s.release(adding, nil)
		if built {
			_ = s.dropRoots(key) // if it fails, the next one tries
		}
	}()
	ix, err := s.readIndex()
	if err != nil {
		return nil, err
	}
	if i.record == nil || ix.byID(i.ID) == nil {
		return nil, fmt.Errorf("image %s: %w here any more", i, ErrNotFound)
	}
	if err := os.MkdirAll(s.path("roots", key), 0o700); err != nil {
		return nil, fmt.Errorf("image %s: %w", i, err)
	}
	path := s.path("roots", key, rootName(i.record))
	f, err := openRoot(ctx, path)
	if !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	f, err = s.makeRoot(ctx, i, path, build)
	if err != nil {
		return nil, plainly(fmt.Errorf("image %s: %w", i, explain(err)))
	}
	built = true
	return f, nil
}

// makeRoot makes the root at path, unless another does while we wait.
func (s *Store) makeRoot(ctx context.Context, i *Image, path string, build func(context.Context, *os.File, []Layer) error) (*os.File, error) {
	draft, err := lockFile(ctx, path+draftSuffix, exclusive)
	if err != nil {
		return nil, err
	}
	defer draft.Close()
	if exists(path) {
		if err := os.Remove(draft.Name()); err != nil {
			return nil, err
		}
		return openRoot(ctx, path)
	}
	if err := s.buildRoot(ctx, i, draft, build); err != nil {
		return nil, errors.Join(err, os.Remove(draft.Name()))
	}
	if err := errors.Join(os.Rename(draft.Name(), path), syncDir(filepath.Dir(path))); err != nil {
		return nil, err
	}
	if err := draft.Chmod(0o400); err != nil { // not before: a draft that is left must be writable
		return nil, err
	}
	// The lock is the file's, whatever its name, and would keep ourselves out.
	if err := draft.Close(); err != nil {
		return nil, err
	}
	return openRoot(ctx, path)
}

// draftSuffix is that of a root in the making.
const draftSuffix = ".draft"

// rootName is the name of the root that these layers make.
func rootName(r *record) string {
	h := sha256.New()
	for _, l := range r.Layers {
		fmt.Fprintln(h, l.DiffID)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// openRoot opens a root that is there, and has it stay.
func openRoot(ctx context.Context, path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	for {
		// Who waited for the draft may have it for a moment.
		locked, err := tryLock(f, shared)
		if err == nil && !locked {
			err = pause(ctx, pollLock)
		}
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		if locked {
			return f, nil
		}
	}
}

// buildRoot makes a root in a file that may have a part of one that was never finished.
func (s *Store) buildRoot(ctx context.Context, i *Image, w *os.File, build func(context.Context, *os.File, []Layer) error) error {
	if err := w.Truncate(0); err != nil {
		return err
	}
	layers, err := s.Layers(i)
	if err != nil {
		return err
	}
	if err := s.room(i.record.size()); err != nil { // a root is about as large as its tars
		return err
	}
	err = build(ctx, w, layers)
	for _, l := range layers {
		if err == nil && !l.read.Load() { // by build, to its end
			err = l.verify(ctx)
		}
	}
	if err != nil {
		return errors.Join(err, s.discardDamaged(ctx, layers))
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	return w.Sync()
}

// discardDamaged removes the layers that are not any more what they were, so that they
// are fetched again: other images may have them, too. It tells of those it finds.
func (s *Store) discardDamaged(ctx context.Context, layers []Layer) (damaged error) {
	for _, l := range layers {
		blob, err := l.openBlob()
		if err != nil {
			continue
		}
		_, err = io.Copy(io.Discard, reader{ctx, blob})
		_ = blob.Close()
		if errors.Is(err, ErrDigest) {
			damaged = errors.Join(damaged, fmt.Errorf("layer %s was damaged and is removed; pull the image again", shortID(l.Digest)), os.Remove(l.path))
		}
	}
	return damaged
}
