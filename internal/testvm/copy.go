package testvm

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/huskvm/husk/internal/agent"
)

// CopyIn copies a file or folder of this host to a path of the guest, which is what
// it is called there; folders above it are made. A folder that is there is added to.
func (g *Guest) CopyIn(ctx context.Context, from, to string) error {
	to, err := guestPath(to)
	if err != nil {
		return err
	}
	// A link is what it leads to, under its own name.
	if from, err = filepath.Abs(from); err != nil {
		return err
	}
	if from, err = filepath.EvalSymlinks(from); err != nil {
		return err
	}
	root, err := os.OpenRoot(filepath.Dir(from))
	if err != nil {
		return err
	}
	defer root.Close()
	base := filepath.Base(from)
	return g.With(ctx, func(ctx context.Context, client *agent.Client) error {
		return piped(
			func(w io.Writer) error { return packAs(w, root, base, strings.TrimPrefix(to, "/")) },
			func(r io.Reader) error { return client.Upload(ctx, "/", r) },
		)
	})
}

// packAs packs a file or folder in root, called base, as to.
func packAs(w io.Writer, root *os.Root, base, to string) error {
	return piped(
		func(w io.Writer) error { return agent.Pack(w, root, base) },
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

// CopyOut copies a file or folder of the guest to a path of this host, as CopyIn does.
// Whatever the guest sends, nothing but that is written. In a folder, the guest's links
// lead where the guest says.
func (g *Guest) CopyOut(ctx context.Context, from, to string) error {
	from, err := guestPath(from)
	if err != nil {
		return err
	}
	if to, err = filepath.Abs(to); err != nil {
		return err
	}
	return g.With(ctx, func(ctx context.Context, client *agent.Client) error {
		r, w := io.Pipe()
		downloaded := make(chan error, 1)
		go func() {
			err := client.Download(ctx, from, w)
			_ = w.CloseWithError(err)
			downloaded <- err
		}()
		defer context.AfterFunc(ctx, func() { _ = r.CloseWithError(context.Cause(ctx)) })()
		err := unpackAs(to, path.Base(from), r)
		_ = r.CloseWithError(errPassedOn)
		if e := <-downloaded; e != nil && !errors.Is(e, errPassedOn) {
			return e
		}
		return err
	})
}

// unpackAs unpacks a tar that has one file or folder, called base, as to.
func unpackAs(to, base string, r io.Reader) error {
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
	case first.Typeflag == tar.TypeReg:
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
	return piped(
		func(w io.Writer) error { return rename(w, in, first, base, name) },
		func(r io.Reader) error { return agent.Unpack(root, r) },
	)
}

// guestPath checks a path of the guest.
func guestPath(name string) (string, error) {
	if clean := path.Clean(name); path.IsAbs(name) && clean != "/" {
		return clean, nil
	}
	return "", fmt.Errorf("path %q in the guest: it must be absolute, and not the root", name)
}

// piped runs what makes a tar and what takes it, side by side. The error is that of the
// one that failed by itself.
func piped(makes func(io.Writer) error, takes func(io.Reader) error) error {
	r, w := io.Pipe()
	made := make(chan error, 1)
	go func() {
		err := makes(w)
		_ = w.CloseWithError(err)
		made <- err
	}()
	err := takes(r)
	_ = r.CloseWithError(errPassedOn)
	if e := <-made; e != nil && !errors.Is(e, errPassedOn) {
		return e
	}
	return err
}

// errPassedOn is what one side of a pipe gets when the other has ended.
var errPassedOn = errors.New("the copy was given up")

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
		if agent.Sparse(h) {
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
