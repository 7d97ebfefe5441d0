package machine

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/huskvm/husk/internal/agent"
	"github.com/huskvm/husk/internal/machine/control"
)

// Upload unpacks a tar into a folder of the guest, which must be there.
func (m *Machine) Upload(ctx context.Context, dir string, tar io.Reader, o CopyOptions) error {
	return m.transfer(ctx, control.Request{Op: control.Upload, Path: absolute(dir), Owners: o.Owners}, tar, nil)
}

// Download writes a file or folder of the guest as a tar, named by its last element. A path
// that ends in "/." is the folder's content alone.
func (m *Machine) Download(ctx context.Context, name string, tar io.Writer) error {
	return m.transfer(ctx, control.Request{Op: control.Download, Path: absolute(name)}, nil, tar)
}

// transfer moves a tar.
func (m *Machine) transfer(ctx context.Context, r control.Request, in io.Reader, out io.Writer) error {
	conn, err := m.dial(ctx)
	if errors.Is(err, ErrNotRunning) {
		return fmt.Errorf("%w; what its guest has written is only there while it runs", err)
	}
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// A tar that breaks off must not look like one that has ended.
	if in != nil {
		in = failing{in, cancel}
	}
	// And what is not taken any more need not be sent.
	if out != nil {
		out = refusing{out, cancel}
	}
	_, _, err = m.converse(ctx, conn, r, Streams{Stdin: in, Stdout: out})
	return err
}

// failing ends a context when its reader fails.
type failing struct {
	io.Reader
	fail context.CancelCauseFunc
}

func (f failing) Read(p []byte) (int, error) {
	n, err := f.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		f.fail(err)
	}
	return n, err
}

// refusing ends a context when its writer fails.
type refusing struct {
	io.Writer
	fail context.CancelCauseFunc
}

func (f refusing) Write(p []byte) (int, error) {
	n, err := f.Writer.Write(p)
	if err != nil {
		f.fail(err)
	}
	return n, err
}

// CopyOptions are husk cp's.
type CopyOptions struct {
	Follow bool // a source that is a symbolic link is what that leads to
	Owners bool // the files' owners are kept, by their numbers
}

// contents tells whether a path asks for what is in a folder, and not for the folder.
func contents(name string) bool {
	return name == "." || name == "/" || strings.HasSuffix(name, "/.")
}

// absolute is a path of the guest's from the root, with what its end says kept.
func absolute(name string) string {
	clean := path.Clean("/" + name)
	switch {
	case clean == "/":
		return clean
	case strings.HasSuffix(name, "/."):
		return clean + "/."
	}
	return clean
}

// CopyTo copies a file or folder of this host to a path of the guest, by Docker's rules: into
// a folder that is there, or as what the path names. "FOLDER/." is what is in it.
func (m *Machine) CopyTo(ctx context.Context, from, to string, o CopyOptions) error {
	whole := contents(from)
	name, err := filepath.Abs(from)
	if err != nil {
		return err
	}
	base := filepath.Base(name)
	if o.Follow || strings.HasSuffix(from, "/") {
		if name, err = filepath.EvalSymlinks(name); err != nil {
			return err
		}
	}
	info, err := os.Lstat(name)
	if err != nil {
		return err
	}
	if !info.IsDir() && (whole || strings.HasSuffix(from, "/")) {
		return &fs.PathError{Op: "copy", Path: from, Err: errors.New("not a directory")}
	}
	there, err := m.look(ctx, to)
	if err != nil {
		return err
	}
	target := absolute(to)
	switch {
	case there == isFile && info.IsDir():
		return fmt.Errorf("cannot copy a folder to the file %s", to)
	case there != isFolder && strings.HasSuffix(to, "/"):
		return fmt.Errorf("the folder %s is not there in the guest", to)
	case there == isFolder && whole:
		return m.pack(ctx, name, ".", "", target, o)
	case there == isFolder:
		return m.pack(ctx, filepath.Dir(name), filepath.Base(name), base, target, o)
	}
	return m.pack(ctx, filepath.Dir(name), filepath.Base(name), path.Base(target), path.Dir(target), o)
}

// pack copies what is called base in a folder of this host into one of the guest's, where it
// is called as; "." is what is in the folder.
func (m *Machine) pack(ctx context.Context, dir, base, as, to string, o CopyOptions) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	return agent.Piped(func(w io.Writer) error {
		if base == "." || base == as {
			return agent.Pack(w, root, base)
		}
		return agent.PackAs(w, root, base, as)
	}, func(r io.Reader) error { return m.Upload(ctx, to, r, o) })
}

// CopyFrom copies a file or folder of the guest to a path of this host, as CopyTo does.
// Nothing but that is written, whatever the guest sends.
func (m *Machine) CopyFrom(ctx context.Context, from, to string, o CopyOptions) error {
	source := absolute(from)
	whole, base := contents(source), path.Base(path.Clean(source))
	if o.Follow && !whole {
		var err error
		if source, err = m.follow(ctx, source); err != nil {
			return err
		}
	}
	if strings.HasSuffix(from, "/") && !whole {
		there, err := m.look(ctx, from)
		if err != nil {
			return err
		}
		if there == isFile {
			return fmt.Errorf("%s: not a directory in the guest", from)
		}
	}
	target, err := filepath.Abs(to)
	if err != nil {
		return err
	}
	info, err := os.Stat(target)
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	case err == nil && info.IsDir() && !whole:
		target = filepath.Join(target, base)
	case err == nil && !info.IsDir() && (whole || strings.HasSuffix(to, "/")):
		return fmt.Errorf("%s: not a directory", to)
	case err != nil && !whole && strings.HasSuffix(to, "/"):
		return fmt.Errorf("%s: no such directory", to)
	case err != nil:
		if _, err := os.Stat(filepath.Dir(target)); err != nil {
			return err
		}
	}
	unpack := agent.Unpack
	if o.Owners {
		unpack = agent.UnpackOwned
	}
	return agent.Piped(
		func(w io.Writer) error { return m.Download(ctx, source, w) },
		func(r io.Reader) error {
			if !whole {
				return agent.UnpackAs(target, path.Base(source), r, true, unpack)
			}
			return unpackInto(target, r, unpack)
		},
	)
}

// unpackInto unpacks a tar into a folder, which is made if need be.
func unpackInto(dir string, r io.Reader, unpack func(*os.Root, io.Reader) error) error {
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	return unpack(root, r)
}

// A kind is what there is at a path of the guest.
type kind int

const (
	isNothing kind = iota
	isFile
	isFolder
)

// look tells what there is at a path of the guest, where a link is what it leads to.
func (m *Machine) look(ctx context.Context, name string) (kind, error) {
	_, err := m.first(ctx, path.Clean("/"+name)+"/.")
	switch {
	case err == nil:
		return isFolder, nil
	case strings.Contains(err.Error(), "not a directory"):
		return isFile, nil
	case strings.Contains(err.Error(), "no such file or directory"):
		return isNothing, nil
	}
	return isNothing, err
}

// first is the first entry of what the guest has at a path, nil for none.
func (m *Machine) first(ctx context.Context, name string) (*tar.Header, error) {
	var h *tar.Header
	err := agent.Piped(
		func(w io.Writer) error { return m.Download(ctx, name, w) },
		func(r io.Reader) error {
			var err error
			h, err = tar.NewReader(r).Next()
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		},
	)
	return h, err
}

// maxLinks is how many links are followed from one to the next, as Linux does it
// (path_resolution(7)).
const maxLinks = 40

// follow is where a link of the guest's leads to in the end.
func (m *Machine) follow(ctx context.Context, name string) (string, error) {
	for range maxLinks {
		h, err := m.first(ctx, name)
		if err != nil || h == nil || h.Typeflag != tar.TypeSymlink {
			return name, err
		}
		if target := h.Linkname; path.IsAbs(target) {
			name = path.Clean(target)
		} else {
			name = path.Join(path.Dir(name), target)
		}
	}
	return "", fmt.Errorf("%s: too many levels of symbolic links in the guest", name)
}
