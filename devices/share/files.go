package share

import (
	"errors"
	"math"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/devices/iovec"
)

// openFlags are those of the guest's that mean something here. O_APPEND comes with each
// write, and what O_SYNC asks for as a request of its own; O_DIRECT is about the guest's
// page cache.
const openFlags = unix.O_ACCMODE | unix.O_TRUNC

// Open implements fuse.RawFileSystem. Only regular files are opened: to open a FIFO could
// take for ever, and what a device or a socket is to the guest is not the host's.
func (n *nodes) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	i, err := n.table.inode(in.NodeId)
	if err != nil {
		return n.table.status(err)
	}
	defer n.table.release(i)
	return n.table.status(n.open(i, in.Flags, in.Mode&fuse.OPEN_KILL_SUIDGID != 0, out))
}

func (n *nodes) open(i *inode, flags uint32, kill bool, out *fuse.OpenOut) error {
	if i.kind != unix.S_IFREG {
		return unix.EACCES
	}
	if flags&unix.O_ACCMODE == unix.O_ACCMODE {
		return unix.EINVAL
	}
	fd, err := n.table.opening(func() (int, error) {
		fd, err := reopen(i.fd, int(flags&openFlags))
		if err == nil && kill && flags&unix.O_TRUNC != 0 {
			if err = killPriv(fd); err != nil {
				_ = unix.Close(fd)
			}
		}
		return fd, err
	})
	if err != nil {
		return err
	}
	out.Fh = n.table.opened(i, fd)
	return nil
}

// Release implements fuse.RawFileSystem.
func (n *nodes) Release(_ <-chan struct{}, in *fuse.ReleaseIn) {
	n.table.closed(in.Fh, unix.S_IFREG)
}

// A readResult reads when the library has found out where to.
type readResult struct {
	nodes *nodes
	h     *handle
	off   int64
	size  int
}

// Read implements fuse.RawFileSystem.
func (n *nodes) Read(_ <-chan struct{}, in *fuse.ReadIn, _ []byte) (fuse.ReadResult, fuse.Status) {
	if in.Offset > math.MaxInt64 {
		return nil, fuse.EINVAL
	}
	h, err := n.table.handle(in.Fh, unix.S_IFREG)
	if err != nil {
		return nil, n.table.status(err)
	}
	return &readResult{n, h, int64(in.Offset), int(in.Size)}, fuse.OK
}

// Size implements fuse.ReadResult.
func (r *readResult) Size() int { return r.size }

// Done implements fuse.ReadResult.
func (r *readResult) Done() { r.nodes.table.releaseHandle(r.h) }

// Bytes implements fuse.ReadResult.
func (r *readResult) Bytes(b []byte) ([]byte, fuse.Status) {
	n, st := r.Readv([][]byte{b[:min(len(b), r.size)]})
	return b[:n], st
}

// Readv reads into dst: less only where the file ends.
func (r *readResult) Readv(dst [][]byte) (int, fuse.Status) {
	n, err := whole(dst, func(v [][]byte, done int64) (int, error) { return unix.Preadv(r.h.fd, v, r.off+done) })
	return n, r.nodes.table.status(err)
}

// mostSegments is how many of them the kernel takes at once (IOV_MAX).
const mostSegments = 1024

// whole calls f until all of v is done or f does nothing more. It fails where nothing
// was done.
func whole(v [][]byte, f func(v [][]byte, done int64) (int, error)) (int, error) {
	done, total := int64(0), iovec.Len(v)
	for done < total {
		rest := iovec.Slice(v, done, total-done)
		n, err := f(rest[:min(len(rest), mostSegments)], done)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if n <= 0 {
			if done > 0 { // what was done counts; the guest comes again for the rest
				err = nil
			}
			return int(done), err
		}
		done += int64(n)
	}
	return int(done), nil
}

// Writev implements fuse.RawFileSystem.
func (n *nodes) Writev(_ <-chan struct{}, in *fuse.WriteIn, data [][]byte) (uint32, fuse.Status) {
	if in.Offset > math.MaxInt64 || iovec.Len(data) != int64(in.Size) {
		return 0, fuse.EINVAL
	}
	h, err := n.table.handle(in.Fh, unix.S_IFREG)
	if err != nil {
		return 0, n.table.status(err)
	}
	defer n.table.releaseHandle(h)
	if in.WriteFlags&fuse.WRITE_KILL_SUIDGID != 0 {
		if err := killPriv(h.fd); err != nil {
			return 0, n.table.status(err)
		}
	}
	// To append is to do so where the file ends on the host. A page that was mapped is
	// written to its place, however the file was opened.
	var flags int
	if in.Flags&unix.O_APPEND != 0 && in.WriteFlags&fuse.WRITE_CACHE == 0 {
		flags = unix.RWF_APPEND
	}
	m, err := whole(data, func(v [][]byte, done int64) (int, error) {
		return unix.Pwritev2(h.fd, v, int64(in.Offset)+done, flags)
	})
	return uint32(m), n.table.status(err)
}

// killPriv takes the set-user-ID and set-group-ID bits from a file that is about to be
// changed by who may not keep them. The host's kernel does it for all users but root.
func killPriv(fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	mode := st.Mode & 0o7777
	bare := mode &^ unix.S_ISUID
	if mode&unix.S_IXGRP != 0 { // else it once meant mandatory locks
		bare &^= unix.S_ISGID
	}
	if bare == mode {
		return nil
	}
	return unix.Fchmod(fd, bare)
}

// Fsync implements fuse.RawFileSystem.
func (n *nodes) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	return n.sync(in, unix.S_IFREG)
}

// FsyncDir implements fuse.RawFileSystem.
func (n *nodes) FsyncDir(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	return n.sync(in, unix.S_IFDIR)
}

func (n *nodes) sync(in *fuse.FsyncIn, kind uint32) fuse.Status {
	h, err := n.table.handle(in.Fh, kind)
	if err != nil {
		return n.table.status(err)
	}
	defer n.table.releaseHandle(h)
	const dataOnly = 1 // FUSE_FSYNC_FDATASYNC
	switch {
	case h.fd < 0:
	case in.FsyncFlags&dataOnly != 0:
		err = unix.Fdatasync(h.fd)
	default:
		err = unix.Fsync(h.fd)
	}
	return n.table.status(err)
}

// Fallocate implements fuse.RawFileSystem.
func (n *nodes) Fallocate(_ <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	const modes = unix.FALLOC_FL_KEEP_SIZE | unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_ZERO_RANGE
	if in.Mode&^modes != 0 {
		return fuse.Status(unix.EOPNOTSUPP)
	}
	if in.Offset > math.MaxInt64 || in.Length > math.MaxInt64 {
		return fuse.EINVAL
	}
	h, err := n.table.handle(in.Fh, unix.S_IFREG)
	if err != nil {
		return n.table.status(err)
	}
	defer n.table.releaseHandle(h)
	for {
		err = unix.Fallocate(h.fd, in.Mode, int64(in.Offset), int64(in.Length))
		if !errors.Is(err, unix.EINTR) {
			return n.table.status(err)
		}
	}
}

// Lseek implements fuse.RawFileSystem: where data and holes are. The guest asks for
// nothing else.
func (n *nodes) Lseek(_ <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	if in.Whence != unix.SEEK_DATA && in.Whence != unix.SEEK_HOLE || in.Offset > math.MaxInt64 {
		return fuse.EINVAL
	}
	h, err := n.table.handle(in.Fh, unix.S_IFREG)
	if err != nil {
		return n.table.status(err)
	}
	defer n.table.releaseHandle(h)
	off, err := unix.Seek(h.fd, int64(in.Offset), int(in.Whence))
	out.Offset = uint64(off)
	return n.table.status(err)
}

// mostCopied bounds what is copied by one request. A guest asks again for the rest.
const mostCopied = 64 << 20

// CopyFileRange implements fuse.RawFileSystem.
func (n *nodes) CopyFileRange(_ <-chan struct{}, in *fuse.CopyFileRangeIn) (uint32, fuse.Status) {
	if in.OffIn > math.MaxInt64 || in.OffOut > math.MaxInt64 {
		return 0, fuse.EINVAL
	}
	from, err := n.table.handle(in.FhIn, unix.S_IFREG)
	if err != nil {
		return 0, n.table.status(err)
	}
	defer n.table.releaseHandle(from)
	to, err := n.table.handle(in.FhOut, unix.S_IFREG)
	if err != nil {
		return 0, n.table.status(err)
	}
	defer n.table.releaseHandle(to)
	offIn, offOut := int64(in.OffIn), int64(in.OffOut)
	for {
		m, err := unix.CopyFileRange(from.fd, &offIn, to.fd, &offOut, int(min(in.Len, mostCopied)), int(min(in.Flags, math.MaxInt32)))
		if !errors.Is(err, unix.EINTR) {
			return uint32(max(m, 0)), n.table.status(err)
		}
	}
}
