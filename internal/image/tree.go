package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path"
	"strings"
)

// A tree is a folder with an image in it, or an archive of one.
type tree interface {
	// open opens a regular file and tells its size. The error is fs.ErrNotExist if there
	// is none of that name.
	open(name string) (io.ReadSeekCloser, int64, error)
	close() error
}

// readFile reads a small file of a tree.
func readFile(t tree, name string, most int64) ([]byte, error) {
	f, _, err := t.open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := readAll(f, most)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return text, nil
}

// A folder is a tree that lies open. Names do not lead out of it.
type folder struct{ root *os.Root }

func openFolder(dir string) (tree, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return folder{root}, nil
}

func (f folder) open(name string) (io.ReadSeekCloser, int64, error) {
	info, err := f.root.Stat(name) // before: opening a pipe could wait for ever
	if err != nil {
		return nil, 0, err
	}
	if !info.Mode().IsRegular() {
		return nil, 0, fmt.Errorf("%s: %w: it is no regular file", name, ErrFormat)
	}
	file, err := f.root.Open(name)
	if err != nil {
		return nil, 0, err
	}
	return file, info.Size(), nil
}

func (f folder) close() error { return f.root.Close() }

// maxEntries bounds what is remembered of an archive.
const maxEntries = 1 << 17

// An archive is a tree in a tar.
type archive struct {
	file  *os.File
	files map[string]extent
	links map[string]string
}

// An extent is where a file's bytes are.
type extent struct{ off, size int64 }

// openArchive opens a tar, compressed or not. One that is compressed, or no regular file,
// is unpacked into the store, where it is gone as soon as it is closed.
func (s *Store) openArchive(ctx context.Context, f *os.File) (tree, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Mode().IsRegular() {
		head := make([]byte, 6)
		n, err := f.ReadAt(head, 0)
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		if detect(head[:n]) == plain {
			return indexArchive(ctx, f)
		}
	}
	return s.spool(ctx, waiting{ctx, f})
}

// spool unpacks a stream with a tar into the store. The file has no name there, so that
// nothing is left of it whatever happens.
func (s *Store) spool(ctx context.Context, r io.Reader) (tree, error) {
	packed := &counted{r: reader{ctx, r}}
	unpacked, kind, err := unpack(packed)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	defer unpacked.Close()
	f, err := os.CreateTemp(s.path("partial"), "archive-*")
	if err != nil {
		return nil, err
	}
	err = os.Remove(f.Name())
	if err == nil {
		most := func() int64 { return maxUnpacked(packed.n) }
		if kind == plain { // as much as comes
			most = func() int64 { return math.MaxInt64 }
		}
		_, err = io.Copy(&spooling{store: s, w: f}, bounded{reader{ctx, unpacked}, new(int64), most})
	}
	var t tree
	if err == nil {
		t, err = indexArchive(ctx, f)
	}
	if err != nil {
		return nil, errors.Join(explain(err), f.Close())
	}
	return t, nil
}

// While an archive is unpacked, so much room must stay, and is looked for so often, in
// bytes: a disk that is full disturbs others.
const (
	spoolReserve = 32 << 20
	spoolStep    = 16 << 20
)

// spooling writes into the store as long as there is room.
type spooling struct {
	store *Store
	w     io.Writer
	since int64 // bytes since the room was looked for
}

func (s *spooling) Write(p []byte) (int, error) {
	if s.since += int64(len(p)); s.since >= spoolStep {
		s.since = 0
		if err := s.store.room(spoolReserve); err != nil {
			return 0, err
		}
	}
	return s.w.Write(p)
}

// A reader reads until its context ends.
type reader struct {
	ctx context.Context
	r   io.Reader
}

func (r reader) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.r.Read(p)
}

// indexArchive finds the files in a tar. The file is the tree's from then on, unless there
// is an error.
func indexArchive(ctx context.Context, f *os.File) (tree, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	a := &archive{file: f, files: map[string]extent{}, links: map[string]string{}}
	t := tar.NewReader(f) // reads no further than the header, so the file is where the content begins
	for n := 0; ; n++ {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return a, nil
		}
		if err == nil && n == maxEntries {
			err = fmt.Errorf("more than %d files", maxEntries)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: not a whole tar: %w", ErrFormat, err)
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err := a.add(h); err != nil {
			return nil, err
		}
	}
}

// add remembers an entry of the tar. The file is at its content.
func (a *archive) add(h *tar.Header) error {
	name := path.Clean("/" + h.Name)
	delete(a.files, name)
	delete(a.links, name)
	switch h.Typeflag {
	case tar.TypeReg:
		for key := range h.PAXRecords {
			if strings.HasPrefix(key, "GNU.sparse.") {
				return fmt.Errorf("%s: %w: a sparse file", h.Name, ErrFormat)
			}
		}
		off, err := a.file.Seek(0, io.SeekCurrent)
		if err != nil {
			return err
		}
		a.files[name] = extent{off, h.Size}
	case tar.TypeSymlink: // docker save has them for layers that are there twice
		target := h.Linkname
		if !path.IsAbs(target) {
			target = path.Join(path.Dir(name), target)
		}
		a.links[name] = path.Clean(target)
	case tar.TypeLink:
		a.links[name] = path.Clean("/" + h.Linkname)
	}
	return nil
}

func (a *archive) open(name string) (io.ReadSeekCloser, int64, error) {
	at := path.Clean("/" + name)
	for range 8 { // links to links
		if e, ok := a.files[at]; ok {
			return section{io.NewSectionReader(a.file, e.off, e.size)}, e.size, nil
		}
		next, ok := a.links[at]
		if !ok {
			break
		}
		at = next
	}
	return nil, 0, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

func (a *archive) close() error { return a.file.Close() }

// A section is a file in an archive.
type section struct{ *io.SectionReader }

func (section) Close() error { return nil }
