// Package imagefs shows a folder of a file system that nobody has mounted as an
// fs.FS, read-only.
package imagefs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"
)

// Files is a file system in an image. Paths are from its root; what is not there is
// fs.ErrNotExist.
type Files interface {
	// Open opens a regular file. Symbolic links are followed.
	Open(name string) (*io.SectionReader, error)
	// Stat tells what a path leads to. Symbolic links are followed.
	Stat(name string) (fs.FileInfo, error)
	// Lstat and ReadLink do not follow the link that a path may end with.
	Lstat(name string) (fs.FileInfo, error)
	ReadLink(name string) (string, error)
	// ReadDir tells what is in a folder, in any order. Symbolic links are not followed.
	ReadDir(folder string) ([]fs.FileInfo, error)
}

// An FS is a folder of Files. Its symbolic links may lead out of the folder, as
// those below os.DirFS do, but not out of the file system. It may be used by
// several goroutines if Files may.
type FS struct {
	files      Files
	root, name string
}

// New gives the folder of files that is called root, a path there. name is what
// people should call it.
func New(files Files, root, name string) *FS { return &FS{files, root, name} }

// String is the folder's name, for people.
func (f *FS) String() string { return f.name }

// in gives the path in Files of a path in f.
func (f *FS) in(name string) (string, error) {
	if !fs.ValidPath(name) {
		return "", fs.ErrInvalid
	}
	return path.Join(f.root, name), nil
}

// Open implements fs.FS. Regular files are also an io.ReaderAt and an io.Seeker.
func (f *FS) Open(name string) (fs.File, error) {
	file, err := f.open(name)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return file, nil
}

func (f *FS) open(name string) (fs.File, error) {
	full, err := f.in(name)
	if err != nil {
		return nil, err
	}
	info, err := f.stat(name, f.files.Stat)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return &folder{fsys: f, path: name, info: info}, nil
	}
	r, err := f.files.Open(full)
	if err != nil {
		return nil, err
	}
	return file{r, info}, nil
}

// Stat implements fs.StatFS.
func (f *FS) Stat(name string) (fs.FileInfo, error) {
	info, err := f.stat(name, f.files.Stat)
	if err != nil {
		return nil, &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	return info, nil
}

// Lstat implements fs.ReadLinkFS.
func (f *FS) Lstat(name string) (fs.FileInfo, error) {
	info, err := f.stat(name, f.files.Lstat)
	if err != nil {
		return nil, &fs.PathError{Op: "lstat", Path: name, Err: err}
	}
	return info, nil
}

// stat has the result called like the path, not like what a link leads to.
func (f *FS) stat(name string, how func(string) (fs.FileInfo, error)) (fs.FileInfo, error) {
	full, err := f.in(name)
	if err != nil {
		return nil, err
	}
	info, err := how(full)
	if err != nil {
		return nil, err
	}
	return Info(path.Base(name), info.Mode(), info.Size()), nil
}

// ReadLink implements fs.ReadLinkFS.
func (f *FS) ReadLink(name string) (string, error) {
	full, err := f.in(name)
	var target string
	if err == nil {
		target, err = f.files.ReadLink(full)
	}
	if err != nil {
		return "", &fs.PathError{Op: "readlink", Path: name, Err: err}
	}
	return target, nil
}

// ReadDir implements fs.ReadDirFS. Names that no path can have are left out:
// the kernel, too, does not show them.
func (f *FS) ReadDir(name string) ([]fs.DirEntry, error) {
	full, err := f.in(name)
	var infos []fs.FileInfo
	if err == nil {
		infos, err = f.files.ReadDir(full)
	}
	if err != nil {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: err}
	}
	slices.SortStableFunc(infos, func(a, b fs.FileInfo) int { return strings.Compare(a.Name(), b.Name()) })
	entries := make([]fs.DirEntry, 0, len(infos))
	last := ""
	for _, i := range infos {
		n := i.Name()
		if n == last || n == "." || strings.Contains(n, "/") || !fs.ValidPath(n) {
			continue
		}
		last, entries = n, append(entries, fs.FileInfoToDirEntry(i))
	}
	return entries, nil
}

// maxWhole is the size of the largest file that is read at once, in bytes. One that
// is mostly a hole may have any size.
const maxWhole = 256 << 20

// ReadFile implements fs.ReadFileFS. Files of more than 256 MiB are refused: open them.
func (f *FS) ReadFile(name string) ([]byte, error) {
	full, err := f.in(name)
	var r *io.SectionReader
	if err == nil {
		r, err = f.files.Open(full)
	}
	if err == nil && r.Size() > maxWhole {
		err = fmt.Errorf("it has %d bytes, at most %d are read at once", r.Size(), maxWhole)
	}
	var b []byte
	if err == nil {
		b = make([]byte, r.Size())
		_, err = io.ReadFull(r, b)
	}
	if err != nil {
		return nil, &fs.PathError{Op: "read", Path: name, Err: err}
	}
	return b, nil
}

// A file is a regular one.
type file struct {
	*io.SectionReader
	info fs.FileInfo
}

func (f file) Stat() (fs.FileInfo, error) { return f.info, nil }
func (f file) Close() error               { return nil }

// A folder is read when its first entries are.
type folder struct {
	fsys *FS
	path string
	info fs.FileInfo
	read bool
	rest []fs.DirEntry
}

func (d *folder) Stat() (fs.FileInfo, error) { return d.info, nil }
func (d *folder) Close() error               { return nil }

func (d *folder) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: d.path, Err: errors.New("it is a folder")}
}

// ReadDir implements fs.ReadDirFile.
func (d *folder) ReadDir(n int) ([]fs.DirEntry, error) {
	if !d.read {
		rest, err := d.fsys.ReadDir(d.path)
		if err != nil {
			return nil, err
		}
		d.read, d.rest = true, rest
	}
	if n <= 0 {
		n = len(d.rest)
	} else if len(d.rest) == 0 {
		return nil, io.EOF
	}
	n = min(n, len(d.rest))
	entries := d.rest[:n:n]
	d.rest = d.rest[n:]
	return entries, nil
}

// Info is what is told of a file or folder: size is in bytes. Times are not read.
func Info(name string, mode fs.FileMode, size int64) fs.FileInfo { return info{name, mode, size} }

type info struct {
	name string
	mode fs.FileMode
	size int64
}

func (i info) Name() string       { return i.name }
func (i info) Size() int64        { return i.size }
func (i info) Mode() fs.FileMode  { return i.mode }
func (i info) ModTime() time.Time { return time.Time{} }
func (i info) IsDir() bool        { return i.mode.IsDir() }
func (i info) Sys() any           { return nil }
