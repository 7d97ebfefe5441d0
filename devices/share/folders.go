package share

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// OpenDir implements fuse.RawFileSystem.
func (n *nodes) OpenDir(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	i, err := n.table.inode(in.NodeId)
	if err != nil {
		return n.table.status(err)
	}
	defer n.table.release(i)
	if i.kind != unix.S_IFDIR {
		return fuse.ENOTDIR
	}
	fd, err := n.table.opening(func() (int, error) {
		if i.fd < 0 {
			return -1, nil
		}
		return openBelow(i.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	})
	if err != nil {
		return n.table.status(err)
	}
	out.Fh = n.table.opened(i, fd)
	return fuse.OK
}

// ReleaseDir implements fuse.RawFileSystem.
func (n *nodes) ReleaseDir(in *fuse.ReleaseIn) { n.table.closed(in.Fh, unix.S_IFDIR) }

// ReadDir implements fuse.RawFileSystem.
func (n *nodes) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return n.list(in, int(in.Size), func(_ *handle, e fuse.DirEntry) bool { return out.AddDirEntry(e) })
}

// plusFactor is how much longer an entry is with its attributes, about: 128 bytes more.
const plusFactor = 4

// ReadDirPlus implements fuse.RawFileSystem.
func (n *nodes) ReadDirPlus(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return n.list(in, int(in.Size)/plusFactor, func(h *handle, e fuse.DirEntry) bool {
		entry := out.AddDirLookupEntry(e)
		if entry == nil {
			return false
		}
		if e.Name == "." || e.Name == ".." {
			return true
		}
		// One that is gone by now, or for which there is no room, is only named: the
		// guest looks it up if it wants it.
		if in, st, err := n.find(h.inode, e.Name); err == nil {
			n.entry(entry, in, &st, h.inode)
			out.FixMode(uint32(st.Mode))
			n.table.release(in)
		}
		return true
	})
}

// The buffer for entries as the host's kernel gives them, in bytes: at least one with the
// longest name.
const (
	leastEntries = 1 << 10
	mostEntries  = 32 << 10
)

// list reads a folder from in.Offset on, and calls add for each entry until that has no
// room. An offset is the host's file system's own word for a place in the folder, as
// telldir(3) has it, and the guest gives it back.
func (n *nodes) list(in *fuse.ReadIn, size int, add func(h *handle, e fuse.DirEntry) bool) fuse.Status {
	h, err := n.table.handle(in.Fh, unix.S_IFDIR)
	if err != nil {
		return n.table.status(err)
	}
	defer n.table.releaseHandle(h)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fd < 0 {
		n.listAlone(h, in.Offset, add)
		return fuse.OK
	}
	if in.Offset > math.MaxInt64 {
		return fuse.EINVAL
	}
	if h.next != int64(in.Offset) {
		if _, err := unix.Seek(h.fd, int64(in.Offset), unix.SEEK_SET); err != nil {
			return n.table.status(err)
		}
		h.next = int64(in.Offset)
	}
	b := make([]byte, max(leastEntries, min(size, mostEntries)))
	added := false
	for {
		got, err := unix.Getdents(h.fd, b)
		if err != nil && !errors.Is(err, unix.EINVAL) || err != nil && !added { // EINVAL: the buffer is too short
			return n.table.status(err)
		}
		if got <= 0 {
			return fuse.OK
		}
		for rest := b[:got]; len(rest) > 0; {
			var e fuse.DirEntry
			if rest, e, err = nextEntry(rest); err != nil {
				return n.table.status(err)
			}
			if e.Name == ".." && h.inode == n.table.root {
				e.Ino = n.table.root.key.ino // nothing above it is the guest's to know
			}
			if !add(h, e) {
				h.next = -1 // the kernel is further: seek
				if !added {
					return fuse.EINVAL
				}
				return fuse.OK
			}
			h.next, added = int64(e.Off), true
		}
	}
}

// listAlone lists the folder around a lone file.
func (n *nodes) listAlone(h *handle, off uint64, add func(h *handle, e fuse.DirEntry) bool) {
	f := n.table.file
	for i, e := range []fuse.DirEntry{
		{Name: ".", Mode: unix.S_IFDIR, Ino: fuse.FUSE_ROOT_ID},
		{Name: "..", Mode: unix.S_IFDIR, Ino: fuse.FUSE_ROOT_ID},
		{Name: f.name, Mode: unix.S_IFREG, Ino: f.stat.Ino},
	} {
		e.Off = uint64(i) + 1
		if e.Off > off && !add(h, e) {
			return
		}
	}
}

// nextEntry takes a struct linux_dirent64 off the front of b.
func nextEntry(b []byte) (rest []byte, e fuse.DirEntry, err error) {
	const name = 19 // inode number, offset, length, type
	if len(b) < name {
		return nil, e, unix.EIO
	}
	n := int(binary.NativeEndian.Uint16(b[16:]))
	if n < name || n > len(b) {
		return nil, e, unix.EIO
	}
	text := b[name:n]
	if end := bytes.IndexByte(text, 0); end >= 0 {
		text = text[:end]
	}
	return b[n:], fuse.DirEntry{
		Ino: binary.NativeEndian.Uint64(b), Off: binary.NativeEndian.Uint64(b[8:]),
		Mode: uint32(b[18]) << 12, Name: string(text),
	}, nil
}
