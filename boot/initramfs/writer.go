// Package initramfs writes the archive that a Linux kernel unpacks as its
// first root file system: cpio in the "newc" format (kernel
// Documentation/driver-api/early-userspace/buffer-format.rst).
//
// The same calls give the same bytes: times are zero and the owner is root.
package initramfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"path"
	"strings"
)

// ErrArchive is what every refusal of this package wraps.
var ErrArchive = errors.New("initramfs")

// The file types of a mode word (stat(2), S_IFMT).
const (
	typeFile  = 0o100000 // S_IFREG
	typeDir   = 0o040000 // S_IFDIR
	typeChar  = 0o020000 // S_IFCHR
	typeBlock = 0o060000 // S_IFBLK
	typeLink  = 0o120000 // S_IFLNK
	sticky    = 0o001000 // S_ISVTX, as /tmp has it
)

// maxName is the kernel's PATH_MAX; longer names it would skip silently.
const maxName = 4096

// A Writer writes one archive. Parent folders are made as they are needed
// (mode 0755). After an error the archive is of no use.
type Writer struct {
	w      io.Writer
	offset int64 // bytes written
	inode  uint32
	dirs   map[string]bool
}

// NewWriter starts an archive on w.
func NewWriter(w io.Writer) *Writer {
	return &Writer{w: w, dirs: map[string]bool{}}
}

// Dir adds a folder; of perm, the sticky bit counts, too. A folder that was added before is left as it is.
func (w *Writer) Dir(name string, perm fs.FileMode) error {
	name = clean(name)
	if name == "" || w.dirs[name] {
		return nil
	}
	mode := typeDir | uint32(perm.Perm())
	if perm&fs.ModeSticky != 0 {
		mode |= sticky
	}
	if err := w.header(name, mode, 2, 0, 0, 0); err != nil {
		return err
	}
	w.dirs[name] = true
	return nil
}

// File adds a file of exactly size bytes, read from r.
func (w *Writer) File(name string, perm fs.FileMode, size int64, r io.Reader) error {
	if err := w.header(clean(name), typeFile|uint32(perm.Perm()), 1, size, 0, 0); err != nil {
		return err
	}
	n, err := io.Copy(w, io.LimitReader(r, size))
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrArchive, name, err)
	}
	if n != size {
		return fmt.Errorf("%w: %s: %w: %d of %d bytes", ErrArchive, name, io.ErrUnexpectedEOF, n, size)
	}
	return w.pad()
}

// Symlink adds a symbolic link to target, which stays as it is.
func (w *Writer) Symlink(name, target string) error {
	if target == "" || len(target) >= maxName {
		return fmt.Errorf("%w: %s: a link's target has 1 to %d bytes, this one %d", ErrArchive, name, maxName-1, len(target))
	}
	if err := w.header(clean(name), typeLink|0o777, 1, int64(len(target)), 0, 0); err != nil {
		return err
	}
	if _, err := io.WriteString(w, target); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrArchive, name, err)
	}
	return w.pad()
}

// Device adds a device node: a character device when mode has
// fs.ModeCharDevice, else a block device.
func (w *Writer) Device(name string, mode fs.FileMode, major, minor uint32) error {
	kind := uint32(typeBlock)
	if mode&fs.ModeCharDevice != 0 {
		kind = typeChar
	}
	return w.header(clean(name), kind|uint32(mode.Perm()), 1, 0, major, minor)
}

// Close ends the archive with its trailer. It does not close what it writes to.
func (w *Writer) Close() error {
	return w.entry("TRAILER!!!", 0, 0, 1, 0, 0, 0)
}

// Write passes bytes through and counts them; it is for io.Copy alone.
func (w *Writer) Write(p []byte) (int, error) {
	n, err := w.w.Write(p)
	w.offset += int64(n)
	return n, err
}

// header checks and writes the entry of one named thing, parents first.
func (w *Writer) header(name string, mode, links uint32, size int64, major, minor uint32) error {
	switch {
	case name == "" || strings.Contains(name, "\x00"):
		return fmt.Errorf("%w: %q is no file name", ErrArchive, name)
	case len(name) >= maxName:
		return fmt.Errorf("%w: a name of %d bytes, at most %d are possible", ErrArchive, len(name), maxName-1)
	case size < 0 || size > math.MaxUint32:
		return fmt.Errorf("%w: %s: %d bytes; a file in an initramfs has less than 4 GiB", ErrArchive, name, size)
	}
	if parent := path.Dir(name); parent != "." {
		if err := w.Dir(parent, 0o755); err != nil {
			return err
		}
	}
	w.inode++
	return w.entry(name, w.inode, mode, links, uint32(size), major, minor)
}

// entry writes the 110-byte header, the name and the padding. Every number is
// eight hexadecimal digits.
func (w *Writer) entry(name string, inode, mode, links, size, major, minor uint32) error {
	fields := [...]uint32{
		inode, mode, 0, 0, // uid, gid
		links, 0, size, // mtime between them
		0, 0, major, minor, // the device of the file system is 0,0
		uint32(len(name) + 1), 0, // the name with its NUL, and no checksum
	}
	var b strings.Builder
	b.WriteString("070701")
	for _, f := range fields {
		fmt.Fprintf(&b, "%08X", f)
	}
	b.WriteString(name)
	b.WriteByte(0)
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrArchive, name, err)
	}
	return w.pad()
}

// pad fills up to the 4-byte boundary that names and contents start at.
func (w *Writer) pad() error {
	if _, err := w.Write(make([]byte, -w.offset&3)); err != nil {
		return fmt.Errorf("%w: %w", ErrArchive, err)
	}
	return nil
}

// clean makes a name relative to the root, without "." and "..".
func clean(name string) string {
	return strings.TrimPrefix(path.Clean("/"+name), "/")
}
