package agent

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// splitSource takes the path of a source apart: the folder that is opened, and what in
// it is packed. A path that ends in "/." is a folder's content.
func splitSource(name string) (dir, base string) {
	clean := path.Clean(name)
	if clean == "/" || strings.HasSuffix(name, "/.") {
		return clean, "."
	}
	return path.Dir(clean), path.Base(clean)
}

// Pack writes a file or folder below root, with what is below it, to w as a tar.
// Names in it are relative to root, and "." is root's content. What is neither a file, a
// folder nor a symbolic link is left out, and so are the kernel's file systems (proc,
// sysfs and their like) that are mounted below.
func Pack(w io.Writer, root *os.Root, name string) error {
	p := packer{root, tar.NewWriter(w)}
	name = path.Clean(name)
	info, err := root.Lstat(name)
	if err != nil {
		return err
	}
	if err := p.entry(name, info, true); err != nil {
		return err
	}
	return p.tar.Close()
}

type packer struct {
	root *os.Root
	tar  *tar.Writer
}

// entry adds a file, folder or symbolic link. One that was asked for is taken
// whatever file system it is on.
func (p packer) entry(name string, info fs.FileInfo, asked bool) error {
	switch info.Mode().Type() {
	case 0:
		return p.file(name)
	case fs.ModeDir:
		return p.folder(name, info, asked)
	case fs.ModeSymlink:
		target, err := p.root.Readlink(name)
		if err != nil {
			return err
		}
		h, err := header(info, name, target)
		if err != nil {
			return err
		}
		return p.tar.WriteHeader(h)
	}
	return nil
}

// folder adds a folder with what is in it.
func (p packer) folder(name string, info fs.FileInfo, asked bool) error {
	f, err := p.root.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if kernels, err := isKernels(f); err != nil || kernels && !asked {
		return err
	}
	if name != "." { // whoever unpacks that has it
		h, err := header(info, name, "")
		if err != nil {
			return err
		}
		if err := p.tar.WriteHeader(h); err != nil {
			return err
		}
	}
	names, err := f.Readdirnames(-1)
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, n := range names {
		n = path.Join(name, n)
		info, err := p.root.Lstat(n)
		if err == nil {
			err = p.entry(n, info, false)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // it may be gone by now
			return err
		}
	}
	return nil
}

// kernels are file systems that show the kernel: without end, or with files that wait
// for something to happen (statfs(2)).
var kernels = []int64{
	unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.DEBUGFS_MAGIC, unix.TRACEFS_MAGIC, unix.SECURITYFS_MAGIC,
	unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC, unix.BPF_FS_MAGIC, unix.DEVPTS_SUPER_MAGIC, unix.EFIVARFS_MAGIC,
}

// isKernels tells whether a folder is on one of them.
func isKernels(f *os.File) (bool, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return false, err
	}
	var st unix.Statfs_t
	if cerr := raw.Control(func(fd uintptr) { err = unix.Fstatfs(int(fd), &st) }); cerr != nil {
		return false, cerr
	}
	return slices.Contains(kernels, st.Type), os.NewSyscallError("statfs", err)
}

// header describes an entry. Owners are numbers: names are another system's.
func header(info fs.FileInfo, name, target string) (*tar.Header, error) {
	h, err := tar.FileInfoHeader(info, target)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	h.Name, h.Uname, h.Gname = name, "", ""
	if info.IsDir() {
		h.Name += "/"
	}
	return h, nil
}

// wholeSize is up to which size in bytes a file is read before its header is written:
// those of proc and sysfs have another size than they say.
const wholeSize = 64 << 10

// file adds a file.
func (p packer) file(name string) error {
	f, err := p.root.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() { // it was another a moment ago
		return nil
	}
	h, err := header(info, name, "")
	if err != nil {
		return err
	}
	var content io.Reader = f
	if h.Size <= wholeSize {
		b, err := io.ReadAll(io.LimitReader(f, maxFrame+4096))
		if err == nil && len(b) > maxFrame {
			err = fmt.Errorf("%s: a file of the kernel's with more than %d bytes; copy it to a file in the guest first", name, maxFrame)
		}
		if err != nil {
			return err
		}
		h.Size, content = int64(len(b)), bytes.NewReader(b)
	}
	if err := p.tar.WriteHeader(h); err != nil {
		return err
	}
	n, err := io.Copy(p.tar, io.LimitReader(content, h.Size))
	if err == nil && n < h.Size {
		err = fmt.Errorf("%s: it became shorter while it was read", name)
	}
	return err
}
