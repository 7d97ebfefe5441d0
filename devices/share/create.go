package share

import (
	"errors"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// folder returns the inode of a folder in which something is to change; it is held.
func (n *nodes) folder(id uint64, names ...string) (*inode, error) {
	for _, name := range names {
		if err := checkName(name); err != nil {
			return nil, err
		}
	}
	d, err := n.table.inode(id)
	if err == nil && d.fd < 0 {
		n.table.release(d)
		return nil, unix.EPERM
	}
	return d, err
}

// make makes an entry of a folder by f, and tells the guest of it.
func (n *nodes) make(h *fuse.InHeader, name string, umask uint32, out *fuse.EntryOut, f func(dir int) error) fuse.Status {
	d, err := n.folder(h.NodeId, name)
	if err != nil {
		return n.table.status(err)
	}
	defer n.table.release(d)
	in, st, err := n.new(d, name, func() error {
		return n.makers.as(h.Owner, umask, func() error { return f(d.fd) })
	})
	if err != nil {
		return n.table.status(err)
	}
	defer n.table.release(in)
	n.entry(out, in, &st, d)
	return fuse.OK
}

// new has f make an entry of a folder if there is room for one more, and the table know it.
func (n *nodes) new(d *inode, name string, f func() error) (*inode, unix.Statx_t, error) {
	return n.meet(func() (int, error) {
		if err := f(); err != nil {
			return -1, err
		}
		return openBelow(d.fd, name, unix.O_PATH, 0)
	})
}

// Mknod implements fuse.RawFileSystem. Devices are for root to make, here too; what they
// are to the guest is the guest's affair.
func (n *nodes) Mknod(_ <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	return n.make(&in.InHeader, name, in.Umask, out, func(dir int) error {
		return unix.Mknodat(dir, name, in.Mode, int(in.Rdev))
	})
}

// Mkdir implements fuse.RawFileSystem.
func (n *nodes) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	return n.make(&in.InHeader, name, in.Umask, out, func(dir int) error {
		return unix.Mkdirat(dir, name, in.Mode&0o7777)
	})
}

// Symlink implements fuse.RawFileSystem. Where a link leads to may be anything.
func (n *nodes) Symlink(_ <-chan struct{}, h *fuse.InHeader, to, name string, out *fuse.EntryOut) fuse.Status {
	return n.make(h, name, 0, out, func(dir int) error { return unix.Symlinkat(to, dir, name) })
}

// Link implements fuse.RawFileSystem.
func (n *nodes) Link(_ <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	i, err := n.table.inode(in.Oldnodeid)
	if err != nil {
		return n.table.status(err)
	}
	defer n.table.release(i)
	d, err := n.folder(in.NodeId, name)
	if err != nil {
		return n.table.status(err)
	}
	defer n.table.release(d)
	if i.fd < 0 {
		return fuse.EPERM
	}
	got, st, err := n.new(d, name, func() error {
		return unix.Linkat(unix.AT_FDCWD, pathOf(i.fd), d.fd, name, unix.AT_SYMLINK_FOLLOW)
	})
	if err != nil {
		return n.table.status(err)
	}
	defer n.table.release(got)
	n.entry(out, got, &st, d)
	return fuse.OK
}

// Unlink implements fuse.RawFileSystem.
func (n *nodes) Unlink(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return n.remove(h.NodeId, name, 0)
}

// Rmdir implements fuse.RawFileSystem.
func (n *nodes) Rmdir(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return n.remove(h.NodeId, name, unix.AT_REMOVEDIR)
}

func (n *nodes) remove(dir uint64, name string, flags int) fuse.Status {
	d, err := n.folder(dir, name)
	if err != nil {
		return n.table.status(err)
	}
	defer n.table.release(d)
	return n.table.status(unix.Unlinkat(d.fd, name, flags))
}

// Rename implements fuse.RawFileSystem.
func (n *nodes) Rename(_ <-chan struct{}, in *fuse.RenameIn, from, to string) fuse.Status {
	if in.Flags&^(unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE|unix.RENAME_WHITEOUT) != 0 {
		return fuse.EINVAL
	}
	d, err := n.folder(in.NodeId, from, to)
	if err != nil {
		return n.table.status(err)
	}
	defer n.table.release(d)
	e, err := n.folder(in.Newdir)
	if err != nil {
		return n.table.status(err)
	}
	defer n.table.release(e)
	return n.table.status(unix.Renameat2(d.fd, from, e.fd, to, uint(in.Flags)))
}

// Create implements fuse.RawFileSystem: it makes a file and opens it. One that the host
// has made first is opened, unless the guest wants to be the first.
func (n *nodes) Create(_ <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	d, err := n.folder(in.NodeId, name)
	if err != nil {
		return n.table.status(err)
	}
	defer n.table.release(d)
	if in.Flags&unix.O_ACCMODE == unix.O_ACCMODE {
		return fuse.EINVAL
	}
	fd, err := n.made(&in.InHeader, in.Umask, func() (int, error) {
		flags := uint64(in.Flags&unix.O_ACCMODE | unix.O_CREAT | unix.O_EXCL)
		return openBelow(d.fd, name, flags, in.Mode&0o7777)
	})
	if errors.Is(err, unix.EEXIST) && in.Flags&unix.O_EXCL == 0 {
		return n.table.status(n.createOld(d, name, in, out))
	}
	if err != nil {
		return n.table.status(err)
	}
	return n.table.status(n.created(d, fd, out))
}

// made opens a new file, in the name of who asks for it.
func (n *nodes) made(h *fuse.InHeader, umask uint32, open func() (int, error)) (int, error) {
	return n.table.opening(func() (fd int, err error) {
		err = n.makers.as(h.Owner, umask, func() error {
			fd, err = open()
			return err
		})
		return fd, err
	})
}

// created tells the guest of a file that it has made and opened.
func (n *nodes) created(d *inode, fd int, out *fuse.CreateOut) error {
	in, st, err := n.meet(func() (int, error) { return reopen(fd, unix.O_PATH) })
	if err != nil {
		_ = unix.Close(fd)
		n.table.free()
		return err
	}
	defer n.table.release(in)
	n.entry(&out.EntryOut, in, &st, d)
	out.OpenOut = fuse.OpenOut{Fh: n.table.opened(in, fd)}
	return nil
}

// createOld opens a file that was there.
func (n *nodes) createOld(d *inode, name string, in *fuse.CreateIn, out *fuse.CreateOut) error {
	i, st, err := n.find(d, name)
	if err != nil {
		return err
	}
	defer n.table.release(i)
	if err := n.open(i, in.Flags, in.OpenFlags&fuse.OPEN_KILL_SUIDGID != 0, &out.OpenOut); err != nil {
		n.table.forget(i.id, 1) // it was not told of it
		return err
	}
	n.entry(&out.EntryOut, i, &st, d)
	return nil
}
