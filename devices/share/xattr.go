package share

import (
	"bytes"
	"errors"
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// served tells whether the guest has to do with an extended attribute. Labels of
// security modules are between the host's files and the host's modules. Access control
// lists would not be obeyed: it is the guest's kernel that checks permissions, and it
// looks at modes.
func served(name string) bool {
	return strings.HasPrefix(name, "user.") || strings.HasPrefix(name, "trusted.") || name == "security.capability"
}

// withXattr calls f with a path to an inode whose attribute name is served.
func (n *nodes) withXattr(id uint64, name string, f func(path string) error) fuse.Status {
	if !served(name) || len(name) > unix.NAME_MAX || strings.ContainsRune(name, 0) {
		return fuse.Status(unix.EOPNOTSUPP)
	}
	i, err := n.table.inode(id)
	if err != nil {
		return n.table.status(err)
	}
	defer n.table.release(i)
	if i.fd < 0 {
		return fuse.Status(unix.EOPNOTSUPP)
	}
	return n.table.status(f(pathOf(i.fd)))
}

// GetXAttr implements fuse.RawFileSystem.
func (n *nodes) GetXAttr(_ <-chan struct{}, h *fuse.InHeader, name string, dest []byte) (size uint32, st fuse.Status) {
	st = n.withXattr(h.NodeId, name, func(path string) error {
		m, err := unix.Getxattr(path, name, dest)
		size = uint32(max(m, 0))
		return err
	})
	return size, st
}

// ListXAttr implements fuse.RawFileSystem.
func (n *nodes) ListXAttr(_ <-chan struct{}, h *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	i, err := n.table.inode(h.NodeId)
	if err != nil {
		return 0, n.table.status(err)
	}
	defer n.table.release(i)
	if i.fd < 0 {
		return 0, fuse.OK
	}
	list, err := listXattr(pathOf(i.fd))
	if err != nil {
		return 0, n.table.status(err)
	}
	if len(dest) > 0 && len(list) > len(dest) {
		return 0, fuse.ERANGE
	}
	copy(dest, list)
	return uint32(len(list)), fuse.OK
}

// listXattr returns the names that are served, a NUL behind each.
func listXattr(path string) ([]byte, error) {
	for size := 1 << 10; ; size *= 2 {
		b := make([]byte, size)
		m, err := unix.Listxattr(path, b)
		if errors.Is(err, unix.ERANGE) && size < mostXattr {
			continue
		}
		if err != nil {
			return nil, err
		}
		var list []byte
		for name := range bytes.SplitSeq(b[:m], []byte{0}) {
			if len(name) > 0 && served(string(name)) {
				list = append(append(list, name...), 0)
			}
		}
		return list, nil
	}
}

// SetXAttr implements fuse.RawFileSystem.
func (n *nodes) SetXAttr(_ <-chan struct{}, in *fuse.SetXAttrIn, name string, data []byte) fuse.Status {
	if uint64(in.Size) > uint64(len(data)) || in.Flags&^(unix.XATTR_CREATE|unix.XATTR_REPLACE) != 0 {
		return fuse.EINVAL
	}
	return n.withXattr(in.NodeId, name, func(path string) error {
		return unix.Setxattr(path, name, data[:in.Size], int(in.Flags))
	})
}

// RemoveXAttr implements fuse.RawFileSystem.
func (n *nodes) RemoveXAttr(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return n.withXattr(h.NodeId, name, func(path string) error { return unix.Removexattr(path, name) })
}
