package image

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// isOld tells whether nobody has written a file for so long that nobody will go on with it.
func isOld(_ string, e fs.DirEntry) bool {
	info, err := e.Info()
	return err == nil && time.Since(info.ModTime()) > keepPartial
}

// sweep removes what processes that were killed have left, unless someone is adding: what
// has come of blobs after a day, drafts at once. Images, and what may become of one, stay:
// that is for collect.
func (s *Store) sweep() error {
	lock, err := s.alone()
	if err != nil || lock == nil {
		return err
	}
	defer lock.Close()
	isDraft := func(path string, _ fs.DirEntry) bool {
		return strings.HasPrefix(filepath.Base(path), ".draft-") || strings.HasSuffix(path, draftSuffix)
	}
	left, err := filepath.Glob(s.path(".index.json.*")) // of earlier versions
	for _, path := range left {
		err = errors.Join(err, os.Remove(path))
	}
	return errors.Join(err, s.collectFrom("partial", isOld), s.collectFrom("blobs", isDraft), s.collectFrom("roots", isDraft))
}

// dropRoots removes the roots in other formats than key's: they are those of another
// version of husk. What is in use, or while someone is adding, waits for the next time.
func (s *Store) dropRoots(key string) error {
	lock, err := s.alone()
	if err != nil || lock == nil {
		return err
	}
	defer lock.Close()
	keys, err := os.ReadDir(s.path("roots"))
	if err != nil {
		return err
	}
	for _, k := range keys {
		if k.Name() == key {
			continue
		}
		err = errors.Join(err, s.collectFrom("roots/"+k.Name(), func(path string, _ fs.DirEntry) bool {
			return isUnused(path)
		}))
		_ = os.Remove(s.path("roots", k.Name())) // if it is empty
	}
	return err
}
