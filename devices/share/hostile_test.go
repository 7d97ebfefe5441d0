package share

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/devices/iovec"
)

// TestNothingWithoutInit and after what is no INIT.
func TestNothingWithoutInit(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(Config{Path: dir})
	require.NoError(t, err)
	c := &client{Share: s, t: t}
	_, errno := c.lookup(rootNode, "x")
	require.Equal(t, unix.EIO, errno)
	for _, in := range []fuse.InitIn{{Major: 8, Minor: 1}, {Major: 7, Minor: 12}, {Major: 6, Minor: 40}} {
		_, errno = call[fuse.InitOut](c, opInit, 0, &in)
		require.Equal(t, unix.EPROTO, errno)
	}
	_, errno = c.lookup(rootNode, "x")
	require.Equal(t, unix.EIO, errno)
	out := c.init()
	require.EqualValues(t, MaxTransfer, out.MaxWrite)
	for name, bit := range map[string]uint64{
		"locks": fuse.CAP_POSIX_LOCKS | fuse.CAP_FLOCK_LOCKS, "write-back": fuse.CAP_WRITEBACK_CACHE, "ACLs": fuse.CAP_POSIX_ACL,
		"no open": fuse.CAP_NO_OPEN_SUPPORT, "passthrough": fuse.CAP_PASSTHROUGH, "export": fuse.CAP_EXPORT_SUPPORT,
	} {
		require.Zero(t, out.Flags64()&bit, name)
	}
	require.NotZero(t, out.Flags64()&fuse.CAP_HANDLE_KILLPRIV_V2)
	_, errno = c.lookup(rootNode, "x")
	require.Equal(t, unix.ENOENT, errno)
	require.NoError(t, s.Close())
	require.NoError(t, s.Close(), "twice is harmless")
	_, errno = c.lookup(rootNode, "x")
	require.Equal(t, unix.EIO, errno)
	_, errno = call[fuse.InitOut](c, opInit, 0, &fuse.InitIn{Major: 7, Minor: 31})
	require.Equal(t, unix.ENODEV, errno)
}

// TestRequestsOfWrongSizes are refused before anybody looks at what is in them.
func TestRequestsOfWrongSizes(t *testing.T) {
	c := share(t, Config{Path: t.TempDir()})
	reply := make([]byte, 1<<16)
	for op := range opcode(120) {
		for _, n := range []int{0, 1, 39, 40, 41, 48, 56, 80, 127, 129, 5000, 200_000, 2 << 20} {
			m := make([]byte, n)
			for _, said := range []int{n, n - 1, n + 1, 0} {
				if n >= headerSize {
					binary.LittleEndian.PutUint32(m, uint32(said))
					binary.LittleEndian.PutUint32(m[4:], uint32(op))
					binary.LittleEndian.PutUint64(m[16:], rootNode)
				}
				for _, room := range []int{0, 15, 16, 17, 1 << 16} {
					got := c.Do([][]byte{m}, [][]byte{reply[:room]})
					require.LessOrEqual(t, int(got), room)
				}
			}
		}
	}
	c.init()
	for _, size := range []uint32{MaxTransfer + 1, 1 << 31, ^uint32(0)} {
		for _, op := range []opcode{opRead, opReaddir, opReaddirplus} {
			_, errno := c.send(c.with(op, rootNode, bytesOf(&fuse.ReadIn{Size: size}), nil), 4096)
			require.Equal(t, unix.EINVAL, errno)
		}
		for _, op := range []opcode{opGetxattr, opListxattr} {
			_, errno := c.send(c.with(op, rootNode, bytesOf(&fuse.GetXAttrIn{Size: size}), []byte("user.x\x00")), 4096)
			require.Equal(t, unix.EINVAL, errno)
		}
	}
}

// TestNumbersThatNobodyWasTold of inodes and handles, those that the library has a use for
// among them.
func TestNumbersThatNobodyWasTold(t *testing.T) {
	dir := t.TempDir()
	write(t, "", dir, "file")
	c := share(t, Config{Path: dir})
	node := c.walk("file")
	for _, id := range []uint64{0, 2 << 40, rootAlias, ^uint64(0), ^uint64(0) - 1} {
		_, errno := call[fuse.AttrOut](c, opGetattr, id, &fuse.GetAttrIn{})
		require.Equal(t, unix.ESTALE, errno)
		_, errno = c.open(id, 0)
		require.Equal(t, unix.ESTALE, errno)
		_, errno = c.read(id, 0, 10)
		require.Equal(t, unix.EBADF, errno)
		_, errno = call[fuse.EntryOut](c, opLink, rootNode, &fuse.LinkIn{Oldnodeid: id}, "x")
		require.Contains(t, []unix.Errno{unix.ESTALE, unix.EXDEV, unix.EPERM}, errno)
		_, errno = call[none](c, opRename, rootNode, &fuse.RenameIn{Newdir: id}, "file", "new")
		require.Contains(t, []unix.Errno{unix.ESTALE, 0}, errno)
		_, errno = call[none](c, opRename, rootNode, &fuse.RenameIn{Newdir: rootNode}, "new", "file")
		require.Contains(t, []unix.Errno{unix.ENOENT, 0}, errno)
		c.send(c.with(opRelease, id, bytesOf(&fuse.ReleaseIn{Fh: id}), nil), 0)
		c.forget(id, 1)
	}
	_, errno := c.lookup(rootNode, ".go-fuse-epoll-hack")
	require.Equal(t, unix.ENOENT, errno, "a name as any other")
	made := c.created(rootNode, ".go-fuse-epoll-hack")
	_, errno = c.write(fuse.WriteIn{Fh: made.Fh}, "x")
	require.Zero(t, errno)

	folder := get[fuse.OpenOut](c, opOpendir, rootNode, &fuse.OpenIn{}).Fh
	_, errno = c.read(folder, 0, 10)
	require.Equal(t, unix.EBADF, errno, "the handle of a folder")
	in := fuse.ReadIn{Fh: made.Fh, Size: 100}
	_, errno = c.send(c.with(opReaddir, rootNode, bytesOf(&in), nil), 100)
	require.Equal(t, unix.EBADF, errno, "the handle of a file")
	c.forget(node, 1)
	_, errno = call[fuse.AttrOut](c, opGetattr, node, &fuse.GetAttrIn{})
	require.Equal(t, unix.ESTALE, errno)
}

// TestAFolderIsForgottenWhileOpen and listed then: what its descriptor was may be another
// folder by now, of another share.
func TestAFolderIsForgottenWhileOpen(t *testing.T) {
	dir, secret := t.TempDir(), t.TempDir()
	write(t, "mine", dir, "sub", "file")
	write(t, "not to be had", secret, "file")
	c := share(t, Config{Path: dir})
	node := c.walk("sub")
	want := c.attr(c.walk("sub", "file")).Ino
	c.forget(node, 1)
	fh := get[fuse.OpenOut](c, opOpendir, node, &fuse.OpenIn{}).Fh
	c.forget(node, 1)
	_, errno := call[fuse.AttrOut](c, opGetattr, node, &fuse.GetAttrIn{})
	require.Equal(t, unix.ESTALE, errno)

	other := share(t, Config{Path: secret, ReadOnly: true}) // its descriptor is the next one that is free
	other.walk("file")
	in := fuse.ReadIn{Fh: fh, Size: 4096}
	b, errno := c.send(c.with(opReaddirplus, node, bytesOf(&in), nil), 4096)
	require.Zero(t, errno)
	entries, outs, err := fuse.ParseDirLookupEntries(b)
	require.NoError(t, err)
	for i, e := range entries {
		if e.Name == "file" {
			require.Equal(t, want, outs[i].Ino)
		}
	}
	require.Len(t, entries, 3)

	get[none](c, opReleasedir, node, &fuse.ReleaseIn{Fh: fh})
	c.Reset()
	require.EqualValues(t, 1, c.nodes.table.open.Load(), "nothing is left open but the share itself")
}

// TestNoReaderWaits for what a file of /proc or /sys may have to say some day, also where a
// program of the host has had to give up a lease first.
func TestNoReaderWaits(t *testing.T) {
	dir := quickDir(t)
	path := write(t, "text", dir, "file")
	c := share(t, Config{Path: dir})
	node := c.walk("file")
	check := func(fh uint64) {
		t.Helper()
		flags, err := unix.FcntlInt(uintptr(c.nodes.table.handles[fh].fd), unix.F_GETFL, 0)
		require.NoError(t, err)
		require.NotZero(t, flags&unix.O_NONBLOCK)
		c.release(node, fh)
	}
	check(c.opened(node, unix.O_RDONLY))

	holder, err := os.Open(path)
	require.NoError(t, err)
	defer holder.Close()
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, unix.SIGIO)
	defer signal.Stop(asked)
	_, err = unix.FcntlInt(holder.Fd(), unix.F_SETLEASE, unix.F_RDLCK)
	require.NoError(t, err)
	given := make(chan error)
	go func() {
		<-asked
		_, err := unix.FcntlInt(holder.Fd(), unix.F_SETLEASE, unix.F_UNLCK)
		given <- err
	}()
	check(c.opened(node, unix.O_WRONLY))
	require.NoError(t, <-given)
}

// TestRequestsAtTheSameTime of one guest that opens, closes and forgets what it uses, and
// mounts and unmounts meanwhile. No descriptor is used for a file that it is not of, and
// none is left.
func TestRequestsAtTheSameTime(t *testing.T) {
	dir := t.TempDir()
	for i := range 8 {
		write(t, fmt.Sprint("content ", i), dir, fmt.Sprint(i))
	}
	before := descriptors(t)
	s, err := Open(Config{Path: dir})
	require.NoError(t, err)
	(&client{Share: s, t: t}).init()
	var wg sync.WaitGroup
	var reads atomic.Int64
	for g := range 6 {
		wg.Go(func() {
			c := &client{Share: s, t: t}
			for i := 0; i < 1500; i++ {
				name := (g + i) % 8
				e, errno := c.lookup(rootNode, fmt.Sprint(name))
				if errno != 0 {
					continue // unmounted
				}
				fh, errno := c.open(e.NodeId, unix.O_RDONLY)
				if errno == 0 {
					if got, errno := c.read(fh, 0, 100); errno == 0 {
						if got != fmt.Sprint("content ", name) {
							t.Errorf("file %d has %q", name, got)
						}
						reads.Add(1)
					}
				}
				if m := c.message(opRelease, e.NodeId, bytesOf(&fuse.ReleaseIn{Fh: fh - uint64(i%2)})); i%3 > 0 {
					s.Do([][]byte{m}, [][]byte{make([]byte, 100)})
				}
				s.Do([][]byte{c.with(opForget, e.NodeId, bytesOf(&fuse.ForgetIn{Nlookup: uint64(i % 3)}), nil)}, nil)
				switch {
				case g == 0 && i%300 == 299:
					s.Reset()
				case g == 0 && i%300 == 0 && i > 0:
					c.init()
				}
			}
		})
	}
	wg.Wait()
	require.Greater(t, reads.Load(), int64(100))
	s.Reset()
	require.EqualValues(t, 1, s.nodes.table.open.Load())
	require.NoError(t, s.Close())
	require.Equal(t, before, descriptors(t))
}

// FuzzRequest gives a share one request after the other, cut into pieces, among them what a
// guest could have changed after it was looked at. All that may happen is an answer.
func FuzzRequest(f *testing.F) {
	c := &client{t: f}
	seed := func(m ...[]byte) {
		var all []byte
		for _, b := range m {
			all = append(all, b...)
		}
		f.Add(all, byte(0))
		f.Add(all, byte(13))
	}
	lookup := func(name string) []byte { return c.message(opLookup, rootNode, header, name) }
	seed(lookup("file"), c.with(opOpen, 2, bytesOf(&fuse.OpenIn{Flags: unix.O_RDWR}), nil),
		c.with(opRead, 2, bytesOf(&fuse.ReadIn{Fh: 3, Size: 100}), nil),
		c.with(opWrite, 2, bytesOf(&fuse.WriteIn{Fh: 3, Size: 4}), []byte("data")),
		c.with(opFallocate, 2, bytesOf(&fuse.FallocateIn{Fh: 3, Length: 10, Mode: 3}), nil),
		c.with(opLseek, 2, bytesOf(&fuse.LseekIn{Fh: 3, Whence: 4}), nil),
		c.with(opCopyFileRange, 2, bytesOf(&fuse.CopyFileRangeIn{FhIn: 3, FhOut: 3, OffOut: 9, Len: 3}), nil),
		c.with(opRelease, 2, bytesOf(&fuse.ReleaseIn{Fh: 3}), nil))
	seed(lookup("file"), c.with(opSetattr, 2, bytesOf(&fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{Valid: 0xff}}), nil),
		c.with(opGetattr, 2, bytesOf(&fuse.GetAttrIn{}), nil), c.with(opForget, 2, bytesOf(&fuse.ForgetIn{Nlookup: 1}), nil))
	seed(c.message(opCreate, rootNode, bytesOf(&fuse.CreateIn{Flags: 2, Mode: 0o644}), "new"),
		c.message(opMkdir, rootNode, bytesOf(&fuse.MkdirIn{Mode: 0o755}), "sub"),
		c.message(opRename2, rootNode, bytesOf(&fuse.RenameIn{Newdir: 1, Flags: 1}), "new", "newer"),
		c.message(opRename, rootNode, bytesOf(&fuse.RenameIn{Newdir: 1})[:48], "newer", "new"),
		c.message(opSymlink, rootNode, header, "link", "../.."), c.message(opLookup, rootNode, header, "link"),
		c.message(opLink, rootNode, bytesOf(&fuse.LinkIn{Oldnodeid: 2}), "hard"),
		c.message(opUnlink, rootNode, header, "new"), c.message(opRmdir, rootNode, header, "sub"))
	seed(c.with(opOpendir, rootNode, bytesOf(&fuse.OpenIn{}), nil),
		c.with(opReaddir, rootNode, bytesOf(&fuse.ReadIn{Fh: 2, Size: 500}), nil),
		c.with(opReaddirplus, rootNode, bytesOf(&fuse.ReadIn{Fh: 2, Size: 500}), nil))
	seed(c.message(opSetxattr, rootNode, bytesOf(&fuse.SetXAttrIn{Size: 2})[:48], "user.x", "v"),
		c.with(opGetxattr, rootNode, bytesOf(&fuse.GetXAttrIn{Size: 90}), []byte("user.x\x00")),
		c.with(opListxattr, rootNode, bytesOf(&fuse.GetXAttrIn{Size: 90}), nil))
	forgets := make([]byte, 8+2*forgetSize)
	forgets[0] = 2
	seed(c.with(opBatchForget, 0, header, forgets), c.with(opStatfs, rootNode, header, nil), c.with(opDestroy, 0, header, nil))
	seed(c.with(opInit, 0, bytesOf(&fuse.InitIn{Major: 7, Minor: 38, Flags: ^uint32(0)}), nil), c.message(opMknod, rootNode, bytesOf(&fuse.MknodIn{Mode: unix.S_IFIFO}), "fifo"))
	signal.Ignore(unix.SIGXFSZ)
	f.Fuzz(func(t *testing.T, in []byte, cut byte) {
		// A guest may well ask for more than the disk has.
		limit(t, 16<<20)
		above := quickDir(t)
		dir := filepath.Join(above, "shared")
		write(t, "a file", dir, "file")
		write(t, "secret", above, "secret")
		c := share(t, Config{Path: dir, MaxOpen: 50})
		reply := make([]byte, 8<<10)
		for len(in) > 0 {
			n := len(in)
			if n >= 4 {
				// The lengths lead from one to the next, as far as they do.
				n = int(min(uint32(n), max(binary.LittleEndian.Uint32(in), 8)))
			}
			m := in[:n]
			in = in[n:]
			var pieces, room [][]byte
			for step := int(cut) + 1; len(m) > 0; m = m[min(step, len(m)):] {
				pieces = append(pieces, m[:min(step, len(m))])
			}
			for rest := reply; len(rest) > 0; {
				k := min(len(rest), int(cut)*7+1)
				room, rest = append(room, rest[:k]), rest[k:]
			}
			got := c.Do(pieces, room)
			require.LessOrEqual(t, int64(got), iovec.Len(room))
			if got > 0 {
				var h [replySize]byte
				iovec.Gather(h[:], room)
				require.GreaterOrEqual(t, int(got), replySize)
				require.GreaterOrEqual(t, int32(0), int32(binary.LittleEndian.Uint32(h[4:])))
			}
		}
		entries, err := os.ReadDir(above)
		require.NoError(t, err)
		require.Len(t, entries, 2)
		require.Equal(t, "secret", read(t, above, "secret"))
	})
}

// limit bounds what this process can write to a file, until t ends.
func limit(t *testing.T, size uint64) {
	t.Helper()
	var before unix.Rlimit
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_FSIZE, &before))
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: size, Max: before.Max}))
	t.Cleanup(func() { require.NoError(t, unix.Setrlimit(unix.RLIMIT_FSIZE, &before)) })
}

// quickDir is a folder in memory, where there is one.
func quickDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "share")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	return dir
}
