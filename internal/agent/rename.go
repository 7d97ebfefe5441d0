package agent

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// PackAs packs a file or folder in root, called base, as to.
func PackAs(w io.Writer, root *os.Root, base, to string) error {
	return Piped(
		func(w io.Writer) error { return Pack(w, root, base) },
		func(r io.Reader) error {
			in := tar.NewReader(r)
			first, err := in.Next()
			if err != nil {
				return err
			}
			return rename(w, in, first, base, to)
		},
	)
}

// ErrCopy is a guest that sends something else than it was asked for.
var ErrCopy = errors.New("the guest has sent what was not asked for")

// UnpackAs unpacks a tar that has one file or folder, called base, as to; with links, it may be
// a symbolic link. unpack is Unpack, or UnpackOwned. Whatever the guest sends, nothing but that is written.
func UnpackAs(to, base string, r io.Reader, links bool, unpack func(*os.Root, io.Reader) error) error {
	in := tar.NewReader(r)
	first, err := in.Next()
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%s is neither a file nor a folder in the guest", base)
	}
	if err != nil {
		return err
	}
	dir, name := to, "." // what stands for base, and where
	switch {
	case path.Clean(first.Name) != base:
		return fmt.Errorf("%w: %q", ErrCopy, first.Name)
	case first.Typeflag == tar.TypeReg, links && first.Typeflag == tar.TypeSymlink:
		dir, name = filepath.Dir(to), filepath.Base(to)
	case first.Typeflag != tar.TypeDir:
		return fmt.Errorf("%s is neither a file nor a folder in the guest", base)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	return Piped(
		func(w io.Writer) error { return rename(w, in, first, base, name) },
		func(r io.Reader) error { return unpack(root, r) },
	)
}

// Piped runs what makes a tar and what takes it, side by side. The error is that of the
// one that failed by itself.
func Piped(makes func(io.Writer) error, takes func(io.Reader) error) error {
	r, w := io.Pipe()
	made := make(chan error, 1)
	go func() {
		err := makes(w)
		_ = w.CloseWithError(err)
		made <- err
	}()
	err := takes(r)
	_ = r.CloseWithError(ErrGivenUp)
	if e := <-made; e != nil && !errors.Is(e, ErrGivenUp) {
		return e
	}
	return err
}

// ErrGivenUp is what one side of a pipe gets when the other has ended.
var ErrGivenUp = errors.New("the copy was given up")

// rename copies a tar from the entry h on. Its names are from, and what is below it if
// that is a folder; to is in its place. Others are refused.
func rename(w io.Writer, in *tar.Reader, h *tar.Header, from, to string) error {
	out := tar.NewWriter(w)
	folder := h.Typeflag == tar.TypeDir
	for first := true; ; first = false {
		if !first {
			var err error
			if h, err = in.Next(); errors.Is(err, io.EOF) {
				return out.Close()
			} else if err != nil {
				return err
			}
		}
		if Sparse(h) {
			return fmt.Errorf("%w: %q has holes", ErrCopy, h.Name)
		}
		var ok, linkOK bool
		h.Name, ok = renamed(h.Name, from, to, folder)
		linkOK = true
		if h.Typeflag == tar.TypeLink {
			h.Linkname, linkOK = renamed(h.Linkname, from, to, folder)
		}
		if !ok || !linkOK || !folder && !first {
			return fmt.Errorf("%w: %q", ErrCopy, h.Name)
		}
		if err := out.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.Copy(out, in); err != nil {
			return err
		}
	}
}

// renamed is a name with to in from's place; the other result is whether it is from, or
// below it.
func renamed(name, from, to string, folder bool) (string, bool) {
	rest, ok := strings.CutPrefix(path.Clean(name), from)
	if !ok || rest != "" && (!folder || rest[0] != '/') {
		return name, false
	}
	return path.Clean(to + rest), true
}
