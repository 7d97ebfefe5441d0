package share

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const rootNode = fuse.FUSE_ROOT_ID

func write(t testing.TB, text string, path ...string) string {
	t.Helper()
	p := filepath.Join(path...)
	require.NoError(t, os.MkdirAll(filepath.Dir(p), 0o755))
	require.NoError(t, os.WriteFile(p, []byte(text), 0o644))
	return p
}

func read(t testing.TB, path ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(path...))
	require.NoError(t, err)
	return string(b)
}

func TestFilesAreReadAndWritten(t *testing.T) {
	dir := t.TempDir()
	write(t, "hello, guest", dir, "a", "b", "file")
	c := share(t, Config{Path: dir})

	node := c.walk("a", "b", "file")
	fh := c.opened(node, unix.O_RDWR)
	got, errno := c.read(fh, 7, 4096)
	require.Zero(t, errno)
	require.Equal(t, "guest", got)

	n, errno := c.write(fuse.WriteIn{Fh: fh, Offset: 7}, "host!")
	require.Zero(t, errno)
	require.EqualValues(t, 5, n)
	require.Equal(t, "hello, host!", read(t, dir, "a", "b", "file"))
	c.release(node, fh)
	_, errno = c.read(fh, 0, 10)
	require.Equal(t, unix.EBADF, errno)

	made := c.created(c.walk("a"), "new")
	_, errno = c.write(fuse.WriteIn{Fh: made.Fh}, "by the guest")
	require.Zero(t, errno)
	require.Equal(t, "by the guest", read(t, dir, "a", "new"))
	require.EqualValues(t, 12, c.attr(made.NodeId).Size)

	write(t, "by the host, later", dir, "a", "new")
	got, errno = c.read(made.Fh, 0, 4096)
	require.Zero(t, errno)
	require.Equal(t, "by the host, later", got)
	require.EqualValues(t, 18, c.attr(made.NodeId).Size)
}

// TestAppendingIsTheHosts: the host may have appended meanwhile. Mapped pages are written
// to where they belong.
func TestAppendingIsTheHosts(t *testing.T) {
	dir := t.TempDir()
	path := write(t, "one ", dir, "log")
	c := share(t, Config{Path: dir})
	node := c.walk("log")
	fh := c.opened(node, unix.O_WRONLY|unix.O_APPEND)
	_, errno := c.write(fuse.WriteIn{Fh: fh, Offset: 0, Flags: unix.O_APPEND}, "two ")
	require.Zero(t, errno)
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = f.WriteString("three ")
	require.NoError(t, err)
	require.NoError(t, f.Close())
	_, errno = c.write(fuse.WriteIn{Fh: fh, Offset: 8, Flags: unix.O_APPEND}, "four")
	require.Zero(t, errno)
	_, errno = c.write(fuse.WriteIn{Fh: fh, Offset: 0, Flags: unix.O_APPEND, WriteFlags: fuse.WRITE_CACHE}, "ONE")
	require.Zero(t, errno)
	_, errno = c.write(fuse.WriteIn{Fh: fh, Offset: 4}, "TWO")
	require.Zero(t, errno)
	require.Equal(t, "ONE TWO three four", read(t, path))
}

func TestSetAttr(t *testing.T) {
	dir := t.TempDir()
	path := write(t, "0123456789", dir, "file")
	require.NoError(t, os.Symlink("nowhere", filepath.Join(dir, "link")))
	c := share(t, Config{Path: dir})
	node := c.walk("file")
	set := func(node uint64, in fuse.SetAttrInCommon) fuse.Attr {
		return get[fuse.AttrOut](c, opSetattr, node, &fuse.SetAttrIn{SetAttrInCommon: in}).Attr
	}
	require.EqualValues(t, unix.S_IFREG|0o600, set(node, fuse.SetAttrInCommon{Valid: fuse.FATTR_MODE, Mode: 0o600}).Mode)
	require.EqualValues(t, 4, set(node, fuse.SetAttrInCommon{Valid: fuse.FATTR_SIZE, Size: 4}).Size)
	require.Equal(t, "0123", read(t, path))
	fh := c.opened(node, unix.O_RDWR)
	require.EqualValues(t, 2, set(node, fuse.SetAttrInCommon{Valid: fuse.FATTR_SIZE | fuse.FATTR_FH, Fh: fh, Size: 2}).Size)
	other := c.created(rootNode, "other")
	_, errno := call[fuse.AttrOut](c, opSetattr, node, &fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{Valid: fuse.FATTR_SIZE | fuse.FATTR_FH, Fh: other.Fh}})
	require.Equal(t, unix.EBADF, errno, "a handle of another file")

	a := set(node, fuse.SetAttrInCommon{Valid: fuse.FATTR_MTIME, Mtime: 1234567890, Mtimensec: 987654321})
	require.EqualValues(t, 1234567890, a.Mtime)
	require.EqualValues(t, 987654321, a.Mtimensec)
	a = set(node, fuse.SetAttrInCommon{Valid: fuse.FATTR_ATIME, Atime: ^uint64(41), Atimensec: 5}) // 1969
	require.EqualValues(t, -42, int64(a.Atime))
	require.EqualValues(t, 1234567890, a.Mtime, "untouched")
	_, errno = call[fuse.AttrOut](c, opSetattr, node, &fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{Valid: fuse.FATTR_ATIME, Atimensec: unix.UTIME_NOW}})
	require.Equal(t, unix.EINVAL, errno)
	before := time.Now().Add(-time.Minute).Unix()
	a = set(node, fuse.SetAttrInCommon{Valid: fuse.FATTR_MTIME | fuse.FATTR_MTIME_NOW})
	require.Greater(t, int64(a.Mtime), before)

	link := c.walk("link")
	a = set(link, fuse.SetAttrInCommon{Valid: fuse.FATTR_MTIME, Mtime: 77})
	require.EqualValues(t, unix.S_IFLNK, a.Mode&unix.S_IFMT)
	require.EqualValues(t, 77, a.Mtime, "the link's own")
	_, errno = call[fuse.AttrOut](c, opSetattr, link, &fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{Valid: fuse.FATTR_MODE, Mode: 0}})
	require.Equal(t, unix.EOPNOTSUPP, errno)
	_, errno = call[fuse.AttrOut](c, opSetattr, link, &fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{Valid: fuse.FATTR_SIZE}})
	require.Equal(t, unix.EINVAL, errno)
}

func TestNamesAreMadeAndMoved(t *testing.T) {
	dir := t.TempDir()
	c := share(t, Config{Path: dir})
	entry := func(op opcode, node uint64, body any, rest ...string) uint64 {
		t.Helper()
		switch b := body.(type) {
		case *fuse.MkdirIn:
			return get[fuse.EntryOut](c, op, node, b, rest...).NodeId
		case *fuse.MknodIn:
			return get[fuse.EntryOut](c, op, node, b, rest...).NodeId
		case *fuse.LinkIn:
			return get[fuse.EntryOut](c, op, node, b, rest...).NodeId
		}
		return get[fuse.EntryOut](c, op, node, &fuse.InHeader{}, rest...).NodeId
	}
	sub := entry(opMkdir, rootNode, &fuse.MkdirIn{Mode: 0o777, Umask: 0o027}, "sub")
	require.EqualValues(t, unix.S_IFDIR|0o750, c.attr(sub).Mode, "the guest's umask, not husk's")
	file := entry(opMknod, sub, &fuse.MknodIn{Mode: unix.S_IFREG | 0o666}, "file")
	require.EqualValues(t, unix.S_IFREG|0o666, c.attr(file).Mode)
	fifo := entry(opMknod, sub, &fuse.MknodIn{Mode: unix.S_IFIFO | 0o600}, "fifo")
	require.EqualValues(t, unix.S_IFIFO, c.attr(fifo).Mode&unix.S_IFMT)
	_, errno := c.open(fifo, unix.O_RDONLY)
	require.Equal(t, unix.EACCES, errno, "the host's end of a FIFO is none of the guest's")

	require.Equal(t, file, entry(opLink, rootNode, &fuse.LinkIn{Oldnodeid: file}, "hard"), "one inode, whatever its name")
	require.EqualValues(t, 2, c.attr(file).Nlink)
	soft := entry(opSymlink, rootNode, nil, "soft", "/etc/passwd")
	answer, errno := c.send(c.message(opReadlink, soft, header), 4096)
	require.Zero(t, errno)
	require.Equal(t, "/etc/passwd", string(answer))

	rename := func(in fuse.RenameIn, from, to string) unix.Errno {
		_, errno := call[none](c, opRename2, sub, &in, from, to)
		return errno
	}
	write(t, "there", dir, "there")
	require.Equal(t, unix.EEXIST, rename(fuse.RenameIn{Newdir: rootNode, Flags: unix.RENAME_NOREPLACE}, "file", "there"))
	require.Zero(t, rename(fuse.RenameIn{Newdir: rootNode, Flags: unix.RENAME_EXCHANGE}, "file", "there"))
	require.Equal(t, "there", read(t, dir, "sub", "file"))
	require.Equal(t, unix.EINVAL, rename(fuse.RenameIn{Newdir: rootNode, Flags: 8}, "file", "there"))
	get[none](c, opRename, sub, &fuse.RenameIn{Newdir: rootNode}, "file", "moved")
	require.Equal(t, "there", read(t, dir, "moved"))

	_, errno = call[none](c, opRmdir, rootNode, &fuse.InHeader{}, "sub")
	require.Equal(t, unix.ENOTEMPTY, errno)
	_, errno = call[none](c, opUnlink, rootNode, &fuse.InHeader{}, "sub")
	require.Equal(t, unix.EISDIR, errno)
	get[none](c, opUnlink, sub, &fuse.InHeader{}, "fifo")
	get[none](c, opRmdir, rootNode, &fuse.InHeader{}, "sub")
	_, err := os.Lstat(filepath.Join(dir, "sub"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

// TestWhatIsRemovedIsThereWhileItIsOpen as in any file system, and its number too.
func TestWhatIsRemovedIsThereWhileItIsOpen(t *testing.T) {
	dir := t.TempDir()
	c := share(t, Config{Path: dir})
	f := c.created(rootNode, "file")
	get[none](c, opUnlink, rootNode, &fuse.InHeader{}, "file")
	_, errno := c.write(fuse.WriteIn{Fh: f.Fh}, "still here")
	require.Zero(t, errno)
	got, _ := c.read(f.Fh, 0, 100)
	require.Equal(t, "still here", got)
	require.Zero(t, c.attr(f.NodeId).Nlink)
	again := c.created(rootNode, "file")
	require.NotEqual(t, f.NodeId, again.NodeId)
	require.NotEqual(t, f.Ino, again.Ino)
	write(t, "renamed over", dir, "other")
	get[none](c, opRename, rootNode, &fuse.RenameIn{Newdir: rootNode}, "other", "file")
	got, _ = c.read(again.Fh, 0, 100)
	require.Empty(t, got, "the one that was opened")
}

func TestCreate(t *testing.T) {
	dir := t.TempDir()
	path := write(t, "the host was first", dir, "there")
	c := share(t, Config{Path: dir})
	_, errno := c.create(rootNode, "there", unix.O_RDWR|unix.O_EXCL, 0o644)
	require.Equal(t, unix.EEXIST, errno)
	f, errno := c.create(rootNode, "there", unix.O_RDWR, 0o644)
	require.Zero(t, errno)
	got, _ := c.read(f.Fh, 0, 100)
	require.Equal(t, "the host was first", got)
	_, errno = c.create(rootNode, "there", unix.O_WRONLY|unix.O_TRUNC, 0o644)
	require.Zero(t, errno)
	require.Empty(t, read(t, path))

	// It can be written to by who made it, though its mode says otherwise.
	f, errno = c.create(rootNode, "locked", unix.O_RDWR, 0)
	require.Zero(t, errno)
	_, errno = c.write(fuse.WriteIn{Fh: f.Fh}, "x")
	require.Zero(t, errno)
	require.EqualValues(t, unix.S_IFREG, f.Mode)

	require.NoError(t, unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600))
	require.NoError(t, os.Symlink("/etc/passwd", filepath.Join(dir, "link")))
	for _, name := range []string{"fifo", "link"} {
		known := len(c.nodes.table.inodes)
		_, errno = c.create(rootNode, name, unix.O_WRONLY, 0o644)
		require.Equal(t, unix.EACCES, errno, name)
		require.Len(t, c.nodes.table.inodes, known, "the guest was not told of it")
	}
}

// TestFoldersAreListed whole, once each, whatever the room; and from any place again.
func TestFoldersAreListed(t *testing.T) {
	dir := t.TempDir()
	want := []string{".", ".."}
	for i := range 3000 {
		name := fmt.Sprintf("%d%s", i, strings.Repeat("x", i%200))
		write(t, "", dir, name)
		want = append(want, name)
	}
	for _, cache := range []time.Duration{0, time.Second} {
		c := share(t, Config{Path: dir, CacheTime: cache})
		for _, size := range []int{300, 4096, 64 << 10, MaxTransfer} {
			var got []string
			entries := c.list(rootNode, size)
			for _, e := range entries {
				got = append(got, e.Name)
				if e.Name == ".." {
					require.Equal(t, c.attr(rootNode).Ino, e.Ino, "there is nothing above the root")
				}
			}
			require.ElementsMatch(t, want, got, size)

			o := get[fuse.OpenOut](c, opOpendir, rootNode, &fuse.OpenIn{})
			for _, i := range []int{2000, 17, 2999, 1} {
				again := c.listFrom(rootNode, o.Fh, entries[i].Off, 1000)
				require.Equal(t, entries[i+1].Name, again[0].Name, "telldir and seekdir")
			}
			get[none](c, opReleasedir, rootNode, &fuse.ReleaseIn{Fh: o.Fh})
		}
	}
}

func TestFoldersAreListedWithAttributes(t *testing.T) {
	dir := t.TempDir()
	for i := range 100 {
		write(t, strings.Repeat("x", i), dir, fmt.Sprint(i))
	}
	c := share(t, Config{Path: dir, CacheTime: time.Second})
	o := get[fuse.OpenOut](c, opOpendir, rootNode, &fuse.OpenIn{})
	seen := 0
	for off := uint64(0); ; {
		in := fuse.ReadIn{Fh: o.Fh, Offset: off, Size: 4096}
		b, errno := c.send(c.with(opReaddirplus, rootNode, bytesOf(&in), nil), 4096)
		require.Zero(t, errno)
		entries, attrs, err := fuse.ParseDirLookupEntries(b)
		require.NoError(t, err)
		if len(entries) == 0 {
			break
		}
		for i, e := range entries {
			off = e.Off
			if e.Name == "." || e.Name == ".." {
				require.Zero(t, attrs[i].NodeId)
				continue
			}
			seen++
			require.Equal(t, e.Name, fmt.Sprint(attrs[i].Size))
			require.Equal(t, attrs[i].Attr, c.attr(attrs[i].NodeId))
			require.Equal(t, time.Second, attrs[i].EntryTimeout())
		}
	}
	require.Equal(t, 100, seen)
	require.Len(t, c.nodes.table.inodes, 100+2)
}

func TestAFileAlone(t *testing.T) {
	dir := t.TempDir()
	path := write(t, "the file", dir, "file.txt")
	write(t, "secret", dir, "neighbour")
	c := share(t, Config{Path: path})
	require.EqualValues(t, unix.S_IFDIR|0o755, c.attr(rootNode).Mode)
	var names []string
	for _, e := range c.list(rootNode, 4096) {
		names = append(names, e.Name)
	}
	require.Equal(t, []string{".", "..", "file.txt"}, names)
	_, errno := c.lookup(rootNode, "neighbour")
	require.Equal(t, unix.ENOENT, errno)
	_, errno = c.create(rootNode, "neighbour", unix.O_RDWR, 0o644)
	require.Equal(t, unix.EPERM, errno)
	_, errno = call[none](c, opUnlink, rootNode, &fuse.InHeader{}, "file.txt")
	require.Equal(t, unix.EPERM, errno)
	_, errno = call[none](c, opRename, rootNode, &fuse.RenameIn{Newdir: rootNode}, "file.txt", "x")
	require.Equal(t, unix.EPERM, errno)
	_, errno = call[fuse.AttrOut](c, opSetattr, rootNode, &fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{Valid: fuse.FATTR_MODE}})
	require.Equal(t, unix.EPERM, errno)
	_, errno = call[fuse.EntryOut](c, opLink, rootNode, &fuse.LinkIn{Oldnodeid: rootNode}, "x")
	require.Equal(t, unix.EPERM, errno)
	_, errno = c.send(c.with(opListxattr, rootNode, bytesOf(&fuse.GetXAttrIn{Size: 100}), nil), 100)
	require.Zero(t, errno)
	require.NotZero(t, get[fuse.StatfsOut](c, opStatfs, rootNode, &fuse.InHeader{}).Blocks)

	node := c.walk("file.txt")
	fh := c.opened(node, unix.O_RDWR)
	_, errno = c.write(fuse.WriteIn{Fh: fh, Offset: 4}, "FILE")
	require.Zero(t, errno)
	require.Equal(t, "the FILE", read(t, path))
	write(t, "changed by the host", path)
	got, _ := c.read(fh, 0, 100)
	require.Equal(t, "changed by the host", got)
	c.forget(node, 1)
	require.Equal(t, "changed by the host", func() string { g, _ := c.read(fh, 0, 100); return g }())
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	require.NoError(t, unix.Mkfifo(fifo, 0o600))
	_, err := Open(Config{Path: fifo})
	require.ErrorContains(t, err, "neither a folder nor a regular file")
	_, err = Open(Config{Path: filepath.Join(dir, "none")})
	require.ErrorIs(t, err, os.ErrNotExist)
	require.ErrorContains(t, err, "check the path")
}
