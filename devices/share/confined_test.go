package share

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// outside is a folder with a shared one in it, and a file beside that that nobody may
// reach.
func outside(t *testing.T) (shared, secret string) {
	dir := t.TempDir()
	write(t, "", dir, "shared", "sub", "file")
	return filepath.Join(dir, "shared"), write(t, "the host's own", dir, "secret")
}

// TestNamesThatAreNone are refused by every request that takes names.
func TestNamesThatAreNone(t *testing.T) {
	shared, secret := outside(t)
	c := share(t, Config{Path: shared})
	sub := c.walk("sub")
	file := c.walk("sub", "file")
	for _, name := range []string{
		"", ".", "..", "../secret", "../../secret", "/", "/etc/passwd", "sub/file", "file/", "./file",
		"..\x00/secret", "x/../../../secret", strings.Repeat("n", 256), strings.Repeat("../", 1000) + "etc/passwd",
	} {
		refused := func(op opcode, errno unix.Errno) {
			t.Helper()
			require.Contains(t, []unix.Errno{unix.EINVAL, unix.ENAMETOOLONG}, errno, "opcode %d %q: %v", op, name, errno)
		}
		for _, node := range []uint64{rootNode, sub} {
			for _, op := range []opcode{opLookup, opUnlink, opRmdir} {
				_, errno := call[fuse.EntryOut](c, op, node, &fuse.InHeader{}, name)
				refused(op, errno)
			}
			_, errno := call[fuse.EntryOut](c, opMkdir, node, &fuse.MkdirIn{Mode: 0o755}, name)
			refused(opMkdir, errno)
			_, errno = call[fuse.EntryOut](c, opMknod, node, &fuse.MknodIn{Mode: unix.S_IFREG | 0o755}, name)
			refused(opMknod, errno)
			_, errno = call[fuse.EntryOut](c, opLink, node, &fuse.LinkIn{Oldnodeid: file}, name)
			refused(opLink, errno)
			_, errno = c.create(node, name, unix.O_RDWR, 0o644)
			refused(opCreate, errno)
			if !strings.Contains(name, "\x00") { // else it is two names, and a third
				_, errno = call[none](c, opRename, node, &fuse.RenameIn{Newdir: node}, name, "x")
				refused(opRename, errno)
				_, errno = call[none](c, opRename2, node, &fuse.RenameIn{Newdir: node}, "file", name)
				refused(opRename2, errno)
				_, errno = call[fuse.EntryOut](c, opSymlink, node, &fuse.InHeader{}, name, "anywhere")
				refused(opSymlink, errno)
			}
		}
	}
	require.Equal(t, "the host's own", read(t, secret))
	require.NoError(t, os.Remove(secret))
	above, err := os.ReadDir(filepath.Dir(shared))
	require.NoError(t, err)
	require.Len(t, above, 1, "nothing was made beside the folder")
}

// TestLinksAreNotFollowed by us: they are what the guest sees, and it is the guest that
// goes where they lead.
func TestLinksAreNotFollowed(t *testing.T) {
	shared, secret := outside(t)
	link := func(name, to string) { require.NoError(t, os.Symlink(to, filepath.Join(shared, name))) }
	link("absolute", secret)
	link("upward", "../secret")
	link("folder", "..")
	link("root", "/")
	link("magic", "/proc/self/root")
	link("descriptor", fmt.Sprintf("/proc/self/fd/%d", 0))
	c := share(t, Config{Path: shared})
	for _, name := range []string{"absolute", "upward", "folder", "root", "magic", "descriptor"} {
		node := c.walk(name)
		require.EqualValues(t, unix.S_IFLNK, c.attr(node).Mode&unix.S_IFMT)
		_, errno := c.lookup(node, "secret")
		require.NotZero(t, errno)
		for _, flags := range []int{unix.O_RDONLY, unix.O_RDWR, unix.O_WRONLY | unix.O_TRUNC} {
			_, errno = c.open(node, flags)
			require.Equal(t, unix.EACCES, errno)
			_, errno = c.create(rootNode, name, flags, 0o666)
			require.Equal(t, unix.EACCES, errno)
		}
		_, errno = call[fuse.OpenOut](c, opOpendir, node, &fuse.OpenIn{})
		require.Equal(t, unix.ENOTDIR, errno)
		_, errno = call[fuse.AttrOut](c, opSetattr, node, &fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{Valid: fuse.FATTR_SIZE}})
		require.Equal(t, unix.EINVAL, errno)
		_, errno = call[fuse.AttrOut](c, opSetattr, node, &fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{Valid: fuse.FATTR_MODE, Mode: 0o777}})
		require.Equal(t, unix.EOPNOTSUPP, errno)
		get[fuse.EntryOut](c, opLink, rootNode, &fuse.LinkIn{Oldnodeid: node}, name+"-again")
		to, err := os.Readlink(filepath.Join(shared, name+"-again"))
		require.NoError(t, err)
		require.NotEmpty(t, to, "the link was linked, and not what it leads to")
	}
	require.Equal(t, "the host's own", read(t, secret))
}

// TestOpenRefusesWhatIsNoFile, which on /proc and the like would be the way out.
func TestMagicLinksOfProc(t *testing.T) {
	c := share(t, Config{Path: "/proc/self", ReadOnly: true})
	for _, name := range []string{"root", "cwd", "exe"} {
		node := c.walk(name)
		require.EqualValues(t, unix.S_IFLNK, c.attr(node).Mode&unix.S_IFMT)
		_, errno := c.open(node, unix.O_RDONLY)
		require.Equal(t, unix.EACCES, errno)
		_, errno = c.lookup(node, "etc")
		require.Equal(t, unix.ENOTDIR, errno)
	}
	_, errno := c.lookup(c.walk("fd"), "0")
	require.Zero(t, errno)
	_, errno = c.open(c.walk("fd", "0"), unix.O_RDONLY)
	require.Equal(t, unix.EACCES, errno)
}

// TestSwapsByTheHost: while a guest looks up, opens and makes files, a program of the host
// puts links and folders where files and folders were. Nothing beside the shared folder is
// read, made or changed.
func TestSwapsByTheHost(t *testing.T) {
	shared, secret := outside(t)
	above := filepath.Dir(shared)
	write(t, "inside", shared, "victim", "secret")
	require.NoError(t, os.Symlink(above, filepath.Join(shared, "link")))
	require.NoError(t, os.WriteFile(filepath.Join(shared, "plain"), []byte("inside"), 0o644))
	require.NoError(t, os.Symlink(secret, filepath.Join(shared, "plainlink")))
	c := share(t, Config{Path: shared})

	var stop atomic.Bool
	var wg sync.WaitGroup
	swap := func(a, b string) {
		a, b = filepath.Join(shared, a), filepath.Join(shared, b)
		for !stop.Load() {
			if err := unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE); err != nil {
				t.Error(err)
				return
			}
		}
	}
	wg.Go(func() { swap("victim", "link") })
	wg.Go(func() { swap("plain", "plainlink") })
	defer wg.Wait()
	defer stop.Store(true)

	links, folders := 0, 0
	for i := 0; i < 3000 || links == 0 || folders == 0; i++ {
		e, errno := c.lookup(rootNode, "victim")
		require.Zero(t, errno)
		f, errno := c.lookup(e.NodeId, "secret")
		if e.Mode&unix.S_IFMT == unix.S_IFLNK {
			links++
			require.Equal(t, unix.ENOTDIR, errno)
		} else {
			folders++
			require.Zero(t, errno)
			fh := c.opened(f.NodeId, unix.O_RDONLY)
			got, errno := c.read(fh, 0, 100)
			require.Zero(t, errno)
			require.Equal(t, "inside", got)
			c.release(f.NodeId, fh)
			name := fmt.Sprint("new", i)
			made := c.created(e.NodeId, name)
			c.release(made.NodeId, made.Fh)
			get[none](c, opUnlink, e.NodeId, &fuse.InHeader{}, name)
			c.forget(made.NodeId, 1)
			c.forget(f.NodeId, 1)
		}
		if o, errno := c.create(rootNode, "plain", unix.O_RDWR, 0o644); errno == 0 {
			got, _ := c.read(o.Fh, 0, 100)
			require.Equal(t, "inside", got)
			c.release(o.NodeId, o.Fh)
			c.forget(o.NodeId, 1)
		} else {
			require.Equal(t, unix.EACCES, errno)
		}
		c.forget(e.NodeId, 1)
	}
	require.Equal(t, "the host's own", read(t, secret))
	entries, err := os.ReadDir(above)
	require.NoError(t, err)
	require.Len(t, entries, 2)
}

// TestAFolderThatMovesAway takes the guest's view of it along, and nothing above it.
func TestAFolderThatMovesAway(t *testing.T) {
	shared, _ := outside(t)
	c := share(t, Config{Path: shared})
	sub := c.walk("sub")
	require.NoError(t, os.Rename(filepath.Join(shared, "sub"), filepath.Join(filepath.Dir(shared), "away")))
	_, errno := c.lookup(rootNode, "sub")
	require.Equal(t, unix.ENOENT, errno)
	_, errno = c.lookup(sub, "file")
	require.Zero(t, errno)
	_, errno = c.lookup(sub, "..")
	require.Equal(t, unix.EINVAL, errno)
}

// TestReadOnly: no request changes anything, a time stamp included.
func TestReadOnly(t *testing.T) {
	dir := t.TempDir()
	path := write(t, "as it is", dir, "file")
	write(t, "", dir, "other")
	require.NoError(t, os.Mkdir(filepath.Join(dir, "sub"), 0o755))
	before := ctimes(t, dir)
	c := share(t, Config{Path: dir, ReadOnly: true})
	node := c.walk("file")
	fh := c.opened(node, unix.O_RDONLY)
	for op := range opcode(64) {
		s, ok := shapeOf(op)
		if !ok || op == opInit || op == opDestroy || op == opForget || op == opBatchForget {
			continue
		}
		body := make([]byte, s.head)
		for i := headerSize; i+8 <= len(body); i += 8 {
			body[i] = byte(fh) // where there is a handle or a node, it is one
		}
		if s.size != 0 {
			copy(body[s.size:], []byte{100, 0, 0, 0})
		}
		for _, id := range []uint64{rootNode, node} {
			names := []string{"other", "new"}
			if s.data == 0 {
				names = nil
			}
			_, errno := c.send(c.message(op, id, body, names...), 5000)
			if s.changes {
				require.Equal(t, unix.EROFS, errno, "opcode %d", op)
			}
		}
	}
	for _, flags := range []int{unix.O_WRONLY, unix.O_RDWR, unix.O_RDONLY | unix.O_TRUNC, unix.O_WRONLY | unix.O_TRUNC | unix.O_APPEND} {
		_, errno := c.open(node, flags)
		require.Equal(t, unix.EROFS, errno, flags)
	}
	require.Equal(t, "as it is", read(t, path))
	require.Equal(t, before, ctimes(t, dir))
}

func ctimes(t *testing.T, dir string) map[string]unix.Timespec {
	t.Helper()
	all := map[string]unix.Timespec{}
	for _, name := range []string{".", "file", "other", "sub"} {
		var st unix.Stat_t
		require.NoError(t, unix.Stat(filepath.Join(dir, name), &st))
		all[name] = st.Ctim
	}
	return all
}

// TestDescriptorsAreBounded: the guest gets ENFILE, the log one line, and what it knows goes
// on working.
func TestDescriptorsAreBounded(t *testing.T) {
	dir := t.TempDir()
	for i := range 100 {
		write(t, "x", dir, fmt.Sprint(i))
	}
	var log bytes.Buffer
	before := descriptors(t)
	c := share(t, Config{Path: dir, MaxOpen: 20, CacheTime: 1e9, Log: textLog(&log)})
	var known []uint64
	for i := range 100 {
		e, errno := c.lookup(rootNode, fmt.Sprint(i))
		if errno != 0 {
			require.Equal(t, unix.ENFILE, errno)
			break
		}
		known = append(known, e.NodeId)
	}
	require.Len(t, known, 19)
	require.Equal(t, before+20, descriptors(t))
	_, errno := c.open(known[0], unix.O_RDONLY)
	require.Equal(t, unix.ENFILE, errno)
	_, errno = c.create(rootNode, "more", unix.O_RDWR, 0o644)
	require.Equal(t, unix.ENFILE, errno)
	_, errno = call[fuse.EntryOut](c, opMkdir, rootNode, &fuse.MkdirIn{Mode: 0o755}, "more")
	require.Equal(t, unix.ENFILE, errno)
	_, errno = call[fuse.EntryOut](c, opLink, rootNode, &fuse.LinkIn{Oldnodeid: known[0]}, "more")
	require.Equal(t, unix.ENFILE, errno)
	_, err := os.Stat(filepath.Join(dir, "more"))
	require.ErrorIs(t, err, os.ErrNotExist, "refused before it was made")
	require.Equal(t, 1, strings.Count(log.String(), "ulimit -n"), log.String())

	c.forget(known[0], 1)
	c.forget(known[1], 1e18)
	c.forget(known[1], 1)
	c.forget(12345, 1)
	c.forget(rootNode, 1e18)
	o := get[fuse.OpenOut](c, opOpendir, rootNode, &fuse.OpenIn{})
	in := fuse.ReadIn{Fh: o.Fh, Size: 32 << 10}
	b, errno := c.send(c.with(opReaddirplus, rootNode, bytesOf(&in), nil), 32<<10)
	require.Zero(t, errno)
	entries, _, err := fuse.ParseDirLookupEntries(b)
	require.NoError(t, err)
	require.NotEmpty(t, entries, "what there is no room for is named")

	c.Reset()
	require.Equal(t, before+1, descriptors(t))
	_, errno = c.lookup(rootNode, "1")
	require.Equal(t, unix.EIO, errno, "INIT comes first")
	c.init()
	c.opened(c.walk("1"), unix.O_RDONLY)
	get[none](c, opDestroy, 0, &fuse.InHeader{})
	require.Equal(t, before+1, descriptors(t))
}

func TestNoLimitIsAMillion(t *testing.T) {
	require.Equal(t, 1024, limitOf(1024))
	require.Equal(t, 1<<20, limitOf(unix.RLIM_INFINITY))
	require.Equal(t, 1<<20, limitOf(1073741816))
}

// descriptors is how many this process has.
func descriptors(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	return len(entries)
}

// TestMountsBelow are file systems of their own to the guest, too: numbers of inodes mean
// something in one only.
func TestMountsBelow(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"mounted", "plain"} {
		write(t, "hidden", dir, name, "file")
	}
	// A thread with mounts of its own, which ends with them.
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
			t.Log("skipped: no mounts of its own for a thread:", err)
			return
		}
		assert.NoError(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
		assert.NoError(t, unix.Mount("tmpfs", filepath.Join(dir, "mounted"), "tmpfs", 0, ""))
		assert.NoError(t, unix.Mount(filepath.Join(dir, "plain"), filepath.Join(dir, "mounted"), "", unix.MS_BIND, ""))
		s, err := Open(Config{Path: dir})
		if !assert.NoError(t, err) {
			return
		}
		c := &client{Share: s, t: t}
		init := c.init()
		assert.NotZero(t, init.Flags64()&fuse.CAP_SUBMOUNTS)
		bound, _ := c.lookup(rootNode, "mounted")
		plain, _ := c.lookup(rootNode, "plain")
		assert.EqualValues(t, fuse.ATTR_SUBMOUNT, bound.Flags)
		assert.Zero(t, plain.Flags)
		assert.Equal(t, plain.Ino, bound.Ino, "the same folder")
		assert.NotEqual(t, plain.NodeId, bound.NodeId, "but a folder has one place only, for Linux")
		file, errno := c.lookup(bound.NodeId, "file")
		assert.Zero(t, errno)
		assert.Zero(t, file.Flags)
		assert.NoError(t, s.Close())
	}()
	<-done
}
