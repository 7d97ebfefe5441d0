package share

import (
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Lookup implements fuse.RawFileSystem.
func (n *nodes) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	return n.table.status(n.lookup(h.NodeId, name, &out.NodeId, func(in *inode, st *unix.Statx_t, dir *inode) {
		n.entry(out, in, st, dir)
	}))
}

// lookup finds a name in a folder; it tells the guest of what it found, by told.
func (n *nodes) lookup(dir uint64, name string, id *uint64, told func(in *inode, st *unix.Statx_t, dir *inode)) error {
	if err := checkName(name); err != nil {
		return err
	}
	d, err := n.table.inode(dir)
	if err != nil {
		return err
	}
	defer n.table.release(d)
	in, st, err := n.find(d, name)
	if err != nil {
		return err
	}
	defer n.table.release(in)
	*id = in.id
	told(in, &st, d)
	return nil
}

// find opens the entry of a folder, and has the table know it. The inode is held.
func (n *nodes) find(d *inode, name string) (*inode, unix.Statx_t, error) {
	return n.meet(func() (int, error) {
		if d.fd >= 0 {
			return openBelow(d.fd, name, unix.O_PATH, 0)
		}
		if name != n.table.file.name {
			return -1, unix.ENOENT
		}
		return unix.FcntlInt(uintptr(n.table.file.fd), unix.F_DUPFD_CLOEXEC, 0)
	})
}

// meet has the table know the file whose descriptor open returns (O_PATH).
func (n *nodes) meet(open func() (int, error)) (in *inode, st unix.Statx_t, err error) {
	fd, err := n.table.opening(open)
	if err != nil {
		return nil, st, err
	}
	if err := statx(fd, &st); err != nil {
		_ = unix.Close(fd)
		n.table.free()
		return nil, st, err
	}
	return n.table.know(fd, &st), st, nil
}

// opening calls open, which returns a new descriptor, if there is room for one.
func (t *table) opening(open func() (int, error)) (int, error) {
	if err := t.reserve(); err != nil {
		return -1, err
	}
	fd, err := open()
	if err != nil {
		t.free()
		return -1, err
	}
	return fd, nil
}

// Forget implements fuse.RawFileSystem.
func (n *nodes) Forget(id, times uint64) { n.table.forget(id, times) }

// entry says what a name in a folder stands for.
func (n *nodes) entry(out *fuse.EntryOut, in *inode, st *unix.Statx_t, dir *inode) {
	*out = fuse.EntryOut{NodeId: in.id}
	out.SetEntryTimeout(n.nameTime())
	out.SetAttrTimeout(n.attrTime(in.kind))
	attributes(&out.Attr, st)
	// Inode numbers are a file system's own, so the guest is to treat another one below
	// the folder as another one.
	if in.kind == unix.S_IFDIR && dir.fd >= 0 && (in.key.mount != dir.key.mount || in.key.major != dir.key.major || in.key.minor != dir.key.minor) {
		out.Flags |= fuse.ATTR_SUBMOUNT
	}
}

// aMoment is as short as can be: to the guest it is what is left of a tick of its
// clock, 4 ms or so.
const aMoment = 1

// nameTime is how long the guest may believe that a name stands for a file. Never less
// than a moment: with 0, Linux forgets the name as soon as nobody uses it, and looks it
// up, and then asks for its attributes, for each name in a path.
func (n *nodes) nameTime() time.Duration { return max(n.cache, aMoment) }

// attrTime is how long the guest may believe the attributes of a kind of file. The size
// of a regular file says how much can be read, and its mtime whether what was read still
// holds, so by default no time at all.
func (n *nodes) attrTime(kind uint32) time.Duration {
	if kind == unix.S_IFREG {
		return n.cache
	}
	return max(n.cache, aMoment)
}

// GetAttr implements fuse.RawFileSystem.
func (n *nodes) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	i, err := n.table.inode(in.NodeId)
	if err != nil {
		return n.table.status(err)
	}
	defer n.table.release(i)
	return n.table.status(n.attr(i, out))
}

// attr says what a file is like.
func (n *nodes) attr(i *inode, out *fuse.AttrOut) error {
	st, err := n.table.stat(i)
	if err != nil {
		return err
	}
	out.SetTimeout(n.attrTime(i.kind))
	attributes(&out.Attr, &st)
	return nil
}

// stat is statx of an inode. The folder around a lone file is made up.
func (t *table) stat(i *inode) (unix.Statx_t, error) {
	var st unix.Statx_t
	if i.fd >= 0 {
		return st, statx(i.fd, &st)
	}
	st = unix.Statx_t{Mode: unix.S_IFDIR | 0o755, Nlink: 2, Ino: fuse.FUSE_ROOT_ID, Blksize: 4096}
	st.Atime, st.Mtime, st.Ctime = t.file.stat.Mtime, t.file.stat.Mtime, t.file.stat.Mtime
	return st, nil
}

func attributes(a *fuse.Attr, st *unix.Statx_t) {
	*a = fuse.Attr{
		Ino: st.Ino, Size: st.Size, Blocks: st.Blocks, Mode: uint32(st.Mode), Nlink: st.Nlink,
		Owner: fuse.Owner{Uid: st.Uid, Gid: st.Gid}, Blksize: st.Blksize,
		Rdev:  uint32(unix.Mkdev(st.Rdev_major, st.Rdev_minor)),
		Atime: uint64(st.Atime.Sec), Atimensec: st.Atime.Nsec,
		Mtime: uint64(st.Mtime.Sec), Mtimensec: st.Mtime.Nsec,
		Ctime: uint64(st.Ctime.Sec), Ctimensec: st.Ctime.Nsec,
	}
}

// SetAttr implements fuse.RawFileSystem.
func (n *nodes) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	i, err := n.table.inode(in.NodeId)
	if err != nil {
		return n.table.status(err)
	}
	defer n.table.release(i)
	if i.fd < 0 {
		return fuse.EPERM
	}
	if err := n.setAttr(i, &in.SetAttrInCommon); err != nil {
		return n.table.status(err)
	}
	return n.table.status(n.attr(i, out))
}

// setAttr changes what it is asked to. An owner comes before the mode: a new owner
// costs a program its set-user-ID bit.
func (n *nodes) setAttr(i *inode, in *fuse.SetAttrInCommon) error {
	uid, newUID := in.GetUID()
	gid, newGID := in.GetGID()
	if newUID || newGID {
		if err := unix.Fchownat(i.fd, "", id(uid, newUID), id(gid, newGID), unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
	}
	if mode, ok := in.GetMode(); ok {
		if i.kind == unix.S_IFLNK {
			return unix.EOPNOTSUPP
		}
		if err := unix.Fchmodat(unix.AT_FDCWD, pathOf(i.fd), mode, 0); err != nil {
			return err
		}
	}
	if size, ok := in.GetSize(); ok {
		if err := n.truncate(i, in, size); err != nil {
			return err
		}
	}
	if in.Valid&(fuse.FATTR_ATIME|fuse.FATTR_MTIME) == 0 {
		return nil
	}
	times := []unix.Timespec{
		timespec(in.Valid, fuse.FATTR_ATIME, fuse.FATTR_ATIME_NOW, in.Atime, in.Atimensec),
		timespec(in.Valid, fuse.FATTR_MTIME, fuse.FATTR_MTIME_NOW, in.Mtime, in.Mtimensec),
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, pathOf(i.fd), times, 0)
}

// id is an owner for chown(2), which takes -1 for no change.
func id(v uint32, set bool) int {
	if !set {
		return -1
	}
	return int(v)
}

func timespec(valid, set, now uint32, sec uint64, nsec uint32) unix.Timespec {
	switch {
	case valid&set == 0:
		return unix.Timespec{Nsec: unix.UTIME_OMIT}
	case valid&now != 0:
		return unix.Timespec{Nsec: unix.UTIME_NOW}
	case nsec >= uint32(time.Second):
		return unix.Timespec{Nsec: -1} // no such time: EINVAL, and not one of the above
	}
	return unix.Timespec{Sec: int64(sec), Nsec: int64(nsec)}
}

// truncate cuts or extends a file.
func (n *nodes) truncate(i *inode, in *fuse.SetAttrInCommon, size uint64) error {
	if i.kind != unix.S_IFREG || int64(size) < 0 {
		return unix.EINVAL
	}
	cut := func(fd int) error {
		if in.Valid&fuse.FATTR_KILL_SUIDGID != 0 {
			if err := killPriv(fd); err != nil {
				return err
			}
		}
		return unix.Ftruncate(fd, int64(size))
	}
	if fh, ok := in.GetFh(); ok {
		h, err := n.table.handle(fh, unix.S_IFREG)
		if err != nil {
			return err
		}
		defer n.table.releaseHandle(h)
		if h.inode != i {
			return unix.EBADF
		}
		return cut(h.fd)
	}
	return n.withFile(i, unix.O_WRONLY, cut)
}

// withFile calls f with the file opened for a moment.
func (n *nodes) withFile(i *inode, flags int, f func(fd int) error) error {
	fd, err := n.table.opening(func() (int, error) { return reopen(i.fd, flags) })
	if err != nil {
		return err
	}
	defer n.table.free()
	defer unix.Close(fd)
	return f(fd)
}

// StatFs implements fuse.RawFileSystem.
func (n *nodes) StatFs(_ <-chan struct{}, h *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	i, err := n.table.inode(h.NodeId)
	if err != nil {
		return n.table.status(err)
	}
	defer n.table.release(i)
	fd := i.fd
	if fd < 0 {
		fd = n.table.file.fd
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return n.table.status(err)
	}
	*out = fuse.StatfsOut{
		Blocks: st.Blocks, Bfree: st.Bfree, Bavail: st.Bavail, Files: st.Files, Ffree: st.Ffree,
		Bsize: uint32(st.Bsize), NameLen: uint32(st.Namelen), Frsize: uint32(st.Frsize),
	}
	return fuse.OK
}

// Readlink implements fuse.RawFileSystem: where a link leads to, which is for the guest
// to follow.
func (n *nodes) Readlink(_ <-chan struct{}, h *fuse.InHeader) ([]byte, fuse.Status) {
	i, err := n.table.inode(h.NodeId)
	if err != nil {
		return nil, n.table.status(err)
	}
	defer n.table.release(i)
	if i.kind != unix.S_IFLNK {
		return nil, fuse.EINVAL
	}
	b := make([]byte, unix.PathMax)
	m, err := unix.Readlinkat(i.fd, "", b)
	if err != nil {
		return nil, n.table.status(err)
	}
	return b[:m], fuse.OK
}
