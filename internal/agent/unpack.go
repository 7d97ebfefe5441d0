package agent

import (
	"archive/tar"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"
)

// ErrTar says that a tar is not one, or has in it what is not unpacked.
var ErrTar = errors.New("tar")

// The mode bits of a file that are kept.
const (
	plainModes = fs.ModePerm
	allModes   = fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky
)

// Unpack unpacks a tar below root. The tar may be anything, a hostile guest's: nothing
// outside of root is written, or read, whatever names and links it has. Files, folders,
// symbolic and hard links are made; symbolic links lead where the tar says, which
// whoever follows them later should keep in mind. Any other entry is an ErrTar, as is
// a sparse file, whose size nothing in the tar stands for. Permissions and times are
// kept, but a folder's owner may always write to it; the setuid, setgid and sticky bits and owners are not. Folders that are there
// stay, files are replaced.
func Unpack(root *os.Root, tar io.Reader) error { return unpack(root, tar, keep{modes: plainModes}) }

// UnpackOwned is Unpack with all modes and the owners of the tar, for who may give files away.
func UnpackOwned(root *os.Root, tar io.Reader) error { return unpack(root, tar, keep{allModes, true}) }

// keep is what of a tar's entries is kept.
type keep struct {
	modes  fs.FileMode
	owners bool
}

func unpack(root *os.Root, r io.Reader, keep keep) error {
	t := tar.NewReader(r)
	var made []folder
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return finish(root, made, keep)
		}
		if err != nil {
			return fmt.Errorf("%w: %w", ErrTar, err)
		}
		if h.Name, err = entryName(h.Name); err != nil {
			return err
		}
		isNew, err := unpackEntry(root, t, h, keep)
		if err != nil {
			return err
		}
		if isNew {
			made = append(made, folder{h, h.FileInfo().Mode()&keep.modes | 0o700})
		}
	}
}

// A folder was made, and gets its mode and time when it is full. Its owner can
// always remove what is in it.
type folder struct {
	*tar.Header
	mode fs.FileMode
}

// finish sets what was put off, the deepest first.
func finish(root *os.Root, made []folder, keep keep) error {
	for _, f := range slices.Backward(made) {
		if keep.owners {
			if err := root.Lchown(f.Name, f.Uid, f.Gid); err != nil {
				return err
			}
		}
		if err := root.Chmod(f.Name, f.mode); err != nil {
			return err
		}
		setTime(root, f.Name, f.ModTime)
	}
	return nil
}

// setTime sets a time, where the tar has one that a file can have.
func setTime(root *os.Root, name string, t time.Time) { _ = root.Chtimes(name, t, t) }

// maxPath bounds a name in bytes, as Linux does (PATH_MAX).
const maxPath = 4096

// entryName is where an entry goes, relative to the root.
func entryName(name string) (string, error) {
	if len(name) > maxPath {
		return "", fmt.Errorf("%w: a name of %d bytes", ErrTar, len(name))
	}
	for _, element := range strings.Split(name, "/") {
		if element == ".." {
			return "", fmt.Errorf("%w: %q leads out of the folder", ErrTar, name)
		}
	}
	if clean := strings.TrimPrefix(path.Clean("/"+name), "/"); clean != "" {
		return clean, nil
	}
	return ".", nil
}

// unpackEntry makes one entry. isNew says that it is a folder that was not there.
func unpackEntry(root *os.Root, content io.Reader, h *tar.Header, keep keep) (isNew bool, err error) {
	if h.Name == "." {
		if h.Typeflag != tar.TypeDir {
			return false, fmt.Errorf("%w: an entry without a name", ErrTar)
		}
		if keep.owners { // as tar does
			return false, root.Lchown(".", h.Uid, h.Gid)
		}
		return false, nil // the folder is the caller's
	}
	if dir := path.Dir(h.Name); dir != "." {
		if err := root.MkdirAll(dir, 0o755); err != nil {
			return false, err
		}
	}
	switch h.Typeflag {
	case tar.TypeDir:
		if info, err := root.Stat(h.Name); err == nil && info.IsDir() {
			return false, nil
		}
		return true, root.Mkdir(h.Name, 0o700)
	case tar.TypeReg, tar.TypeSymlink, tar.TypeLink:
	default:
		return false, fmt.Errorf("%w: %q is neither a file, a folder nor a link (type %q)", ErrTar, h.Name, h.Typeflag)
	}
	if h.Typeflag == tar.TypeReg {
		return false, unpackFile(root, content, h, keep)
	}
	if err := makeRoom(root, h.Name); err != nil {
		return false, err
	}
	if h.Typeflag == tar.TypeSymlink {
		err := root.Symlink(h.Linkname, h.Name)
		if err == nil && keep.owners {
			err = root.Lchown(h.Name, h.Uid, h.Gid)
		}
		return false, err
	}
	target, err := entryName(h.Linkname)
	if err != nil {
		return false, err
	}
	return false, root.Link(target, h.Name)
}

var errIsDir = errors.New("is a directory")

// makeRoom removes what has the name of a new file or link.
func makeRoom(root *os.Root, name string) error {
	info, err := root.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.IsDir():
		return &fs.PathError{Op: "replace", Path: name, Err: errIsDir}
	}
	return root.Remove(name)
}

// unpackFile makes a file beside the one that it replaces, which is there until the new
// one is whole.
func unpackFile(root *os.Root, content io.Reader, h *tar.Header, keep keep) (err error) {
	if Sparse(h) {
		return fmt.Errorf("%w: %q is a sparse file", ErrTar, h.Name)
	}
	if info, err := root.Lstat(h.Name); err == nil && info.IsDir() {
		return &fs.PathError{Op: "replace", Path: h.Name, Err: errIsDir}
	}
	part := path.Join(path.Dir(h.Name), ".husk-"+rand.Text())
	f, err := root.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("%s: %w", h.Name, err)
	}
	defer func() {
		if err != nil {
			_ = root.Remove(part)
		}
	}()
	_, err = io.Copy(f, content)
	if err == nil && keep.owners {
		err = f.Chown(h.Uid, h.Gid)
	}
	if err == nil {
		err = f.Chmod(h.FileInfo().Mode() & keep.modes)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("%s: %w", h.Name, err)
	}
	setTime(root, part, h.ModTime)
	return root.Rename(part, h.Name)
}

// Sparse tells of a file with holes, of GNU's formats (tar(5), "GNU.sparse"): of a
// kilobyte of tar it would make exabytes on the disk. Who copies such an entry makes it
// whole, so it is to be refused before.
func Sparse(h *tar.Header) bool {
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return h.Typeflag == tar.TypeGNUSparse
}
