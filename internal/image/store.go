// Package image keeps container images: it has them from registries, archives, layouts
// and Docker's daemon, verifies every byte by its digest, and keeps each layer once, for
// all processes of a user's.
package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// What is wrong with a name, an image, or what it came from. Errors of this package
// wrap them and say more.
var (
	ErrNotFound  = errors.New("no such image")
	ErrAmbiguous = errors.New("more than one image begins so")
	ErrName      = errors.New("not an image's name")
	ErrDigest    = errors.New("not what its digest says")
	ErrFormat    = errors.New("not an image that husk knows")
	ErrPlatform  = errors.New("no image for this platform")
	ErrInUse     = errors.New("the image has more than one name")
)

// A Store is a folder with images. Any number of processes may use it at once.
//
//	index.json          which images there are: names, layers (index.go)
//	blobs/sha256/HEX    manifests, configs and layers, as they came; what is here is whole and verified
//	partial/sha256-HEX  a blob on its way; who fetches it has it locked
//	roots/KEY/HEX       root file systems; HEX is that of the layers (root.go)
//	lock                shared by who adds to the store, exclusive to who collects garbage
//	garbage             is there when someone wanted to collect and could not
type Store struct {
	dir string
}

// DefaultDir is where a user's images are: $XDG_DATA_HOME/husk, or else
// ~/.local/share/husk.
func DefaultDir(getenv func(string) string) (string, error) {
	if dir := getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) { // the specification ignores others
		return filepath.Join(dir, "husk"), nil
	}
	if home := getenv("HOME"); home != "" {
		return filepath.Join(home, ".local", "share", "husk"), nil
	}
	return "", errors.New("no place for images: neither XDG_DATA_HOME nor HOME is set")
}

// Open makes the store in dir, if it is not there yet.
func Open(dir string) (*Store, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("images: %w", err)
	}
	for _, sub := range []string{"blobs/sha256", "blobs/sha512", "partial", "roots"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return nil, fmt.Errorf("images: %w; XDG_DATA_HOME names another place", err)
		}
	}
	return &Store{dir: dir}, nil
}

// path is that of a file in the store.
func (s *Store) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

func (s *Store) blobPath(h v1.Hash) string { return s.path("blobs", h.Algorithm, h.Hex) }

func (s *Store) partialPath(h v1.Hash) string { return s.path("partial", h.Algorithm+"-"+h.Hex) }

// has tells whether a blob is there. size is what it must have; -1 for any.
func (s *Store) has(h v1.Hash, size int64) bool {
	info, err := os.Stat(s.blobPath(h))
	return err == nil && info.Mode().IsRegular() && (size < 0 || info.Size() == size)
}

// add is for who adds to the store: until it is closed, nothing is collected.
func (s *Store) add(ctx context.Context) (*os.File, error) {
	return lockFile(ctx, s.path("lock"), shared)
}

// syncDir makes the names in a folder last.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// replaceFile writes a file so that it has the old content or the new, whatever happens.
// draft is an open file in the same folder, and is closed and gone in the end.
func replaceFile(draft *os.File, path string, content []byte) error {
	_, err := draft.Write(content)
	err = errors.Join(err, draft.Sync(), draft.Close())
	if err == nil {
		err = os.Rename(draft.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(draft.Name()))
	}
	return syncDir(filepath.Dir(path))
}

// putFile writes a file beside the blobs. Several may write the same at once. A draft that
// is left there is collected.
func (s *Store) putFile(path string, content []byte) error {
	draft, err := os.CreateTemp(filepath.Dir(path), ".draft-*")
	if err != nil {
		return err
	}
	return replaceFile(draft, path, content)
}

// exists tells whether there is something at path.
func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}
