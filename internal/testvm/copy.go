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
	from, err = filepath.Abs(from)
	if err != nil {
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
			func(w io.Writer) error { return agent.Pack(w, root, base) },
			func(w io.Writer, r io.Reader) error { return rename(w, r, base, strings.TrimPrefix(to, "/")) },
			func(r io.Reader) error { return client.Upload(ctx, "/", r) },
		)
	})
}

// CopyOut copies a file or folder of the guest to a path of this host, as CopyIn does.
// The guest's links lead where the guest says.
func (g *Guest) CopyOut(ctx context.Context, from, to string) error {
	from, err := guestPath(from)
	if err != nil {
		return err
	}
	to, err = filepath.Abs(to)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(filepath.Dir(to))
	if err != nil {
		return err
	}
	defer root.Close()
	return g.With(ctx, func(ctx context.Context, client *agent.Client) error {
		return piped(
			func(w io.Writer) error { return client.Download(ctx, from, w) },
			func(w io.Writer, r io.Reader) error { return rename(w, r, path.Base(from), filepath.Base(to)) },
			func(r io.Reader) error { return agent.Unpack(root, r) },
		)
	})
}

// guestPath checks a path of the guest.
func guestPath(name string) (string, error) {
	if clean := path.Clean(name); path.IsAbs(name) && clean != "/" {
		return clean, nil
	}
	return "", fmt.Errorf("path %q in the guest: it must be absolute, and not the root", name)
}

// piped runs what makes a tar, what changes it and what takes it, side by side. The
// error is that of the first that failed by itself.
func piped(makes func(io.Writer) error, changes func(io.Writer, io.Reader) error, takes func(io.Reader) error) error {
	made, w := io.Pipe()
	taken, w2 := io.Pipe()
	errs := make(chan error, 2)
	go func() {
		err := makes(w)
		_ = w.CloseWithError(err)
		errs <- err
	}()
	go func() {
		err := changes(w2, made)
		_ = made.CloseWithError(errPassedOn)
		_ = w2.CloseWithError(err)
		errs <- nil // makes failed, or takes has the error
	}()
	err := takes(taken)
	_ = taken.CloseWithError(errPassedOn)
	for range 2 {
		if e := <-errs; e != nil && !errors.Is(e, errPassedOn) {
			return e
		}
	}
	return err
}

// errPassedOn is what a part of a pipe gets when another has failed.
var errPassedOn = errors.New("the copy was given up")

// rename copies a tar, whose names are from and below it, with to in its place.
func rename(w io.Writer, r io.Reader, from, to string) error {
	in, out := tar.NewReader(r), tar.NewWriter(w)
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		h.Name = renamed(h.Name, from, to)
		if h.Typeflag == tar.TypeLink {
			h.Linkname = renamed(h.Linkname, from, to)
		}
		if err := out.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.Copy(out, in); err != nil {
			return err
		}
	}
	if err := out.Close(); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, r) // what fills the last block
	return err
}

func renamed(name, from, to string) string {
	rest, ok := strings.CutPrefix(path.Clean(name), from)
	if !ok || rest != "" && rest[0] != '/' {
		return name
	}
	return to + rest
}
