// Package inroot opens and makes files and folders in a root that is not the process's
// own, such as a container's before anybody is in it: symbolic links, absolute ones and
// those with "..", lead inside of it.
package inroot

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// A Root is a folder that is the root of paths.
type Root struct{ dir *os.File }

// Open opens a root.
func Open(dir string) (*Root, error) {
	f, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return &Root{f}, nil
}

// Close closes it.
func (r *Root) Close() error { return r.dir.Close() }

// Find opens what is at a path with O_PATH and flags (openat2(2)).
func (r *Root) Find(name string, flags uint64) (*os.File, error) {
	how := &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC | flags, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	for {
		fd, err := unix.Openat2(int(r.dir.Fd()), name, how)
		switch {
		case err == nil:
			return os.NewFile(uintptr(fd), name), nil
		case !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN):
			return nil, &os.PathError{Op: "open", Path: name, Err: err}
		}
	}
}

// Folder opens a folder. What is missing of the path is made: root's, with mode 0755.
func (r *Root) Folder(name string) (*os.File, error) {
	return r.open(name, maxLinks, func(dir int, last string) error { return unix.Mkdirat(dir, last, 0o755) })
}

// File opens a file, of any kind, or a folder. A missing one is made as an empty file,
// in folders as Folder makes them.
func (r *Root) File(name string) (*os.File, error) {
	return r.open(name, maxLinks, func(dir int, last string) error {
		return unix.Mknodat(dir, last, unix.S_IFREG|0o644, 0)
	})
}

// maxLinks is how many links that lead nowhere are followed (path_resolution(7)).
const maxLinks = 40

// open opens a path, and makes the last element where it leads nowhere.
func (r *Root) open(name string, links int, create func(dir int, last string) error) (*os.File, error) {
	if links == 0 {
		return nil, &os.PathError{Op: "open", Path: name, Err: unix.ELOOP}
	}
	f, err := r.Find(name, 0)
	if !errors.Is(err, unix.ENOENT) {
		return f, err
	}
	dirName, last := path.Split(strings.TrimRight(name, "/"))
	if last == "" { // the root itself was removed
		return nil, err
	}
	if dirName == "" {
		dirName = "/"
	}
	dir, err := r.open(dirName, links-1, func(dir int, last string) error { return unix.Mkdirat(dir, last, 0o755) })
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	if last == "." || last == ".." {
		return r.Find(name, 0) // its folder is there now
	}
	fd := int(dir.Fd())
	switch err := create(fd, last); {
	case err == nil:
		return r.Find(name, 0)
	case !errors.Is(err, unix.EEXIST):
		return nil, &os.PathError{Op: "make", Path: name, Err: err}
	}
	// A link that leads to what is not there: that is made.
	target := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, last, target)
	if err != nil {
		return nil, &os.PathError{Op: "readlink", Path: name, Err: err}
	}
	next := string(target[:n])
	if !path.IsAbs(next) {
		next = dirName + "/" + next // not cleaned: ".." is for the kernel, who knows the links before it
	}
	if len(next) >= unix.PathMax {
		return nil, &os.PathError{Op: "open", Path: name, Err: unix.ENAMETOOLONG}
	}
	return r.open(next, links-1, create)
}

// Path is a way to what an O_PATH file is, for system calls that want a path. It is of
// use while the file is open and /proc is there.
func Path(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }
