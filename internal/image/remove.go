package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// A Removal is what Remove has done.
type Removal struct {
	Untagged []string
	Deleted  []v1.Hash // IDs of images that are gone
}

// Remove takes a name from an image. With its last name the image goes, and with it all
// that no other image needs. Who names it by its ID removes all its names: if it is called
// by several repositories, only with force (ErrInUse). A machine that runs is not disturbed.
func (s *Store) Remove(ctx context.Context, name string, force bool) (Removal, error) {
	var done Removal
	err := s.update(ctx, func(ix *index) error {
		r, err := ix.find(name)
		if err != nil {
			return err
		}
		done, err = ix.remove(r, name, force)
		return err
	})
	if err != nil {
		return Removal{}, err
	}
	if len(done.Deleted) > 0 {
		if err := s.collect(); err != nil {
			return done, fmt.Errorf("%s is removed, but not all its files: %w", name, err)
		}
	}
	return done, nil
}

// remove takes name from an image, or all names if name is its ID.
func (ix *index) remove(r *record, name string, force bool) (Removal, error) {
	ref, err := ParseReference(name)
	var done Removal
	switch {
	case err == nil && ref.Digest == "" && r.called(ref):
		done.Untagged = []string{ref.Familiar()}
		ix.untag(ref.Familiar())
		if len(r.Names) > 0 {
			return done, nil
		}
	case err == nil && ref.Digest != "":
		done.Untagged = r.untagDigest(ref)
		if len(r.Names) > 0 || len(r.Digests) > 0 {
			return done, nil
		}
	case len(r.repositories()) > 1 && !force:
		return done, fmt.Errorf("%s: %w: %s; name them, or remove it with --force", name, ErrInUse, strings.Join(r.Names, ", "))
	}
	done.Untagged = append(done.Untagged, slices.Concat(r.Names, r.Digests)...)
	done.Deleted = []v1.Hash{r.ID}
	ix.Images = slices.DeleteFunc(ix.Images, func(other *record) bool { return other == r })
	return done, nil
}

// untagDigest takes a name with a digest from the image. One that has the digest of the
// image's own manifest means those that the repository has for the lists it came from.
func (r *record) untagDigest(ref Reference) (gone []string) {
	means := func(d string) bool { return d == ref.Familiar() }
	if !slices.ContainsFunc(r.Digests, means) {
		means = func(d string) bool {
			repository, _, _ := strings.Cut(d, "@")
			return repository == ref.familiarRepository()
		}
	}
	r.Digests = slices.DeleteFunc(r.Digests, func(d string) bool {
		if means(d) {
			gone = append(gone, d)
			return true
		}
		return false
	})
	return gone
}

// repositories are those that have names for the image.
func (r *record) repositories() (list []string) {
	for _, name := range r.Names {
		repository, _ := splitName(name)
		list = append(list, repository)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// splitName takes a name and its tag apart.
func splitName(name string) (repository, tag string) {
	colon := strings.LastIndexByte(name, ':')
	if colon < 0 {
		return name, ""
	}
	return name[:colon], name[colon+1:]
}

// keepPartial is how long what has come of a blob stays for a pull that goes on with it.
const keepPartial = 24 * time.Hour

// release is the end of adding. What could not be collected meanwhile is collected, and
// what has come of an image for which there is no room.
func (s *Store) release(adding *os.File, err error) {
	_ = adding.Close()
	if isFull(err) || exists(s.path("garbage")) {
		_ = s.collect() // if it fails, the next one tries
	}
}

// collect removes what no image needs. If someone is adding to the store, it is left to
// them.
func (s *Store) collect() error {
	// First, so that who ends adding now sees it.
	if err := os.WriteFile(s.path("garbage"), nil, 0o600); err != nil && !isFull(err) {
		return err
	}
	lock, err := s.alone()
	if err != nil || lock == nil {
		return err
	}
	defer lock.Close()
	ix, err := s.readIndex()
	if err != nil {
		return err
	}
	blobs, roots := map[string]bool{}, map[string]bool{}
	for _, r := range ix.Images {
		for _, h := range r.blobs() {
			blobs[s.blobPath(h)] = true
		}
		roots[rootName(r)] = true
	}
	if err := s.collectFrom("blobs", func(path string, _ fs.DirEntry) bool {
		return !blobs[strings.TrimSuffix(path, noteSuffix)]
	}); err != nil {
		return err
	}
	if err := s.collectFrom("partial", isOld); err != nil {
		return err
	}
	busy := false
	if err := s.collectFrom("roots", func(path string, e fs.DirEntry) bool {
		if roots[e.Name()] {
			return false
		}
		unused := strings.HasSuffix(path, draftSuffix) || isUnused(path)
		busy = busy || !unused
		return unused
	}); err != nil || busy {
		return err
	}
	if err := os.Remove(s.path("garbage")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// alone has nobody add to the store until the file is closed. It is nil if someone is
// adding now.
func (s *Store) alone() (*os.File, error) {
	lock, err := os.OpenFile(s.path("lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	locked, err := tryLock(lock, exclusive)
	if err != nil || !locked {
		return nil, errors.Join(err, lock.Close())
	}
	return lock, nil
}

// collectFrom removes the files below a folder of the store that are garbage.
func (s *Store) collectFrom(folder string, garbage func(path string, e fs.DirEntry) bool) error {
	return fs.WalkDir(os.DirFS(s.dir), folder, func(name string, e fs.DirEntry, err error) error {
		path := s.path(name)
		if err != nil || e.IsDir() || !garbage(path, e) {
			return err
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	})
}

// isUnused tells whether nobody has a root open that another is about to open by its name.
func isUnused(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return errors.Is(err, fs.ErrNotExist)
	}
	defer f.Close()
	locked, err := tryLock(f, exclusive)
	return err == nil && locked
}
