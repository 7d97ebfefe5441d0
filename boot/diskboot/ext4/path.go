package ext4

import (
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// Bounds on a path, which are the kernel's (path_resolution(7)).
const (
	maxLinks = 40
	maxPath  = 4096
	// maxSearch is the bytes of folders that are read for one path: a link may
	// lead through the same large folder a thousand times.
	maxSearch = 16 << 20
)

// Open opens a regular file. Symbolic links are followed, inside the file
// system: its root is the root that they mean.
func (f *FS) Open(name string) (*io.SectionReader, error) {
	i, err := f.lookup(name, modeRegular, "regular file")
	if err != nil {
		return nil, err
	}
	r, err := f.open(i)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return r, nil
}

// List gives the names in a folder, sorted.
func (f *FS) List(name string) ([]string, error) {
	dir, err := f.lookup(name, modeDir, "folder")
	if err != nil {
		return nil, err
	}
	var names []string
	err = f.entries(dir, func(entry []byte, _ uint32) bool {
		if n := string(entry); n != "." && n != ".." {
			names = append(names, n)
		}
		return len(names) <= maxEntries
	})
	if err == nil && len(names) > maxEntries {
		err = fmt.Errorf("%w: more than %d names", ErrUnsupported, maxEntries)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	slices.Sort(names)
	return names, nil
}

// Stat tells what a path leads to, with links followed as Open does.
func (f *FS) Stat(name string) (fs.FileInfo, error) { return f.stat(name, f.walk) }

// Lstat tells what a path leads to, which may be a link.
func (f *FS) Lstat(name string) (fs.FileInfo, error) { return f.stat(name, f.walkToLink) }

func (f *FS) stat(name string, walk func(string) (*inode, error)) (fs.FileInfo, error) {
	i, err := walk(name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return i.info(path.Base(name)), nil
}

// ReadLink reads a symbolic link.
func (f *FS) ReadLink(name string) (string, error) {
	i, err := f.walkToLink(name)
	if err == nil && i.kind() != modeLink {
		err = fmt.Errorf("%w: it is not a symbolic link", ErrKind)
	}
	var target string
	if err == nil {
		target, err = f.target(i)
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	return target, nil
}

// ReadDir tells what is in a folder, in the order that it has there. Links are not
// followed.
func (f *FS) ReadDir(name string) ([]fs.FileInfo, error) {
	dir, err := f.lookup(name, modeDir, "folder")
	if err != nil {
		return nil, err
	}
	var infos []fs.FileInfo
	var bad error
	err = f.entries(dir, func(entry []byte, number uint32) bool {
		if n := string(entry); n != "." && n != ".." {
			var i *inode
			if i, bad = f.inode(number); bad == nil {
				infos = append(infos, i.info(n))
			}
		}
		return bad == nil && len(infos) <= maxEntries
	})
	switch {
	case err == nil && bad != nil:
		err = bad
	case err == nil && len(infos) > maxEntries:
		err = fmt.Errorf("%w: more than %d names", ErrUnsupported, maxEntries)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return infos, nil
}

// lookup finds what a path leads to, which must be of one kind.
func (f *FS) lookup(name string, kind uint16, called string) (*inode, error) {
	i, err := f.walk(name)
	if err == nil && i.kind() != kind {
		err = fmt.Errorf("%w: it is not a %s", ErrKind, called)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return i, nil
}

// walk follows a path from the root to what is no link.
func (f *FS) walk(name string) (*inode, error) { return f.follow(name, true) }

// walkToLink follows a path from the root, but not the link that it may end with.
func (f *FS) walkToLink(name string) (*inode, error) { return f.follow(name, false) }

// follow is walk or walkToLink. The folders that lead to where it is are
// kept, so that ".." is never read and the root is never left.
func (f *FS) follow(name string, last bool) (*inode, error) {
	root, err := f.inode(rootInode)
	if err != nil {
		return nil, err
	}
	if len(name) > maxPath {
		return nil, fmt.Errorf("%w: a path of %d bytes", fs.ErrNotExist, len(name))
	}
	at, left := []*inode{root}, int64(maxSearch)
	todo := strings.Split(name, "/")
	for links := 0; len(todo) > 0; {
		word := todo[0]
		todo = todo[1:]
		here := at[len(at)-1]
		if here.kind() != modeDir {
			return nil, fmt.Errorf("%w: a part of it is not a folder", fs.ErrNotExist)
		}
		switch word {
		case "", ".":
			continue
		case "..":
			at = at[:max(1, len(at)-1)]
			continue
		}
		if left -= here.size + f.blockSize; left < 0 {
			return nil, fmt.Errorf("%w: more than %d bytes of folders on the way", ErrUnsupported, maxSearch)
		}
		next, err := f.child(here, word)
		if err != nil {
			return nil, err
		}
		if next.kind() != modeLink || !last && len(todo) == 0 {
			if at = append(at, next); len(at) > maxPath {
				return nil, fmt.Errorf("%w: it is nested too deep", fs.ErrNotExist)
			}
			continue
		}
		if links++; links > maxLinks {
			return nil, fmt.Errorf("%w: more than %d symbolic links", ErrMalformed, maxLinks)
		}
		target, err := f.target(next)
		if err != nil {
			return nil, err
		}
		if strings.HasPrefix(target, "/") {
			at = at[:1]
		}
		todo = append(strings.Split(target, "/"), todo...)
	}
	return at[len(at)-1], nil
}

// child finds a name in a folder.
func (f *FS) child(dir *inode, name string) (*inode, error) {
	var number uint32
	err := f.entries(dir, func(entry []byte, n uint32) bool {
		if string(entry) == name {
			number = n
		}
		return number == 0
	})
	if err != nil {
		return nil, err
	}
	if number == 0 {
		return nil, fs.ErrNotExist
	}
	return f.inode(number)
}

// target reads a symbolic link.
func (f *FS) target(link *inode) (string, error) {
	if link.size == 0 || link.size > maxPath {
		return "", fmt.Errorf("%w: symbolic link of %d bytes", ErrMalformed, link.size)
	}
	r, err := f.open(link)
	if err != nil {
		return "", err
	}
	p := make([]byte, link.size)
	if _, err := io.ReadFull(r, p); err != nil {
		return "", fmt.Errorf("symbolic link in inode %d: %w", link.number, err)
	}
	return string(p), nil
}
