package share

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func textLog(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can make files for others")
	}
}

// TestFilesBelongToWhoMakesThem in the guest, where husk is root.
func TestFilesBelongToWhoMakesThem(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o700)) // the guest's kernel has said that they may
	c := share(t, Config{Path: dir})
	c.owner = fuse.Owner{Uid: 1234, Gid: 2345}
	check := func(name string, mode uint32, gid uint32) {
		t.Helper()
		var st unix.Stat_t
		require.NoError(t, unix.Lstat(filepath.Join(dir, name), &st))
		require.Equal(t, []uint32{1234, gid, mode}, []uint32{st.Uid, st.Gid, st.Mode})
	}
	_, errno := call[fuse.CreateOut](c, opCreate, rootNode, &fuse.CreateIn{Flags: unix.O_RDWR, Mode: 0o666, Umask: 0o002}, "file")
	require.Zero(t, errno)
	check("file", unix.S_IFREG|0o664, 2345)
	sub := get[fuse.EntryOut](c, opMkdir, rootNode, &fuse.MkdirIn{Mode: 0o777, Umask: 0o077}, "sub").NodeId
	check("sub", unix.S_IFDIR|0o700, 2345)
	get[fuse.EntryOut](c, opMknod, sub, &fuse.MknodIn{Mode: unix.S_IFIFO | 0o666}, "fifo")
	check("sub/fifo", unix.S_IFIFO|0o666, 2345)
	get[fuse.EntryOut](c, opSymlink, sub, &fuse.InHeader{}, "link", "to")
	check("sub/link", unix.S_IFLNK|0o777, 2345)

	require.NoError(t, os.Chown(filepath.Join(dir, "sub"), 1234, 777))
	require.NoError(t, unix.Chmod(filepath.Join(dir, "sub"), 0o2777))
	get[fuse.EntryOut](c, opMkdir, sub, &fuse.MkdirIn{Mode: 0o777}, "below")
	check("sub/below", unix.S_IFDIR|0o2777, 777)

	// The threads that made them are theirs alone, and the rest of the process is root's.
	require.NoError(t, os.WriteFile(filepath.Join(dir, "own"), nil, 0o644))
	c.owner = fuse.Owner{}
	require.Zero(t, get[fuse.EntryOut](c, opMkdir, rootNode, &fuse.MkdirIn{Mode: 0o777}, "roots").Uid)
	c.owner = fuse.Owner{Uid: nobody, Gid: nobody}
	_, errno = call[fuse.EntryOut](c, opMkdir, rootNode, &fuse.MkdirIn{Mode: 0o777}, "nobodys")
	require.Equal(t, unix.EOVERFLOW, errno)

	a := get[fuse.AttrOut](c, opSetattr, c.walk("own"), &fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{
		Valid: fuse.FATTR_UID | fuse.FATTR_GID, Owner: fuse.Owner{Uid: 5, Gid: 6},
	}})
	require.Equal(t, fuse.Owner{Uid: 5, Gid: 6}, a.Owner)
}

// TestSetUserIDIsLost where a program is changed by who may not keep it so.
func TestSetUserIDIsLost(t *testing.T) {
	dir := t.TempDir()
	path := write(t, "program", dir, "program")
	c := share(t, Config{Path: dir})
	node := c.walk("program")
	for name, f := range map[string]func() unix.Errno{
		"write": func() unix.Errno {
			fh := c.opened(node, unix.O_WRONLY)
			_, errno := c.write(fuse.WriteIn{Fh: fh, WriteFlags: fuse.WRITE_KILL_SUIDGID}, "x")
			return errno
		},
		"open": func() unix.Errno {
			_, errno := call[fuse.OpenOut](c, opOpen, node, &fuse.OpenIn{Flags: unix.O_WRONLY | unix.O_TRUNC, Mode: fuse.OPEN_KILL_SUIDGID})
			return errno
		},
		"truncate": func() unix.Errno {
			_, errno := call[fuse.AttrOut](c, opSetattr, node, &fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{Valid: fuse.FATTR_SIZE | fuse.FATTR_KILL_SUIDGID, Size: 1}})
			return errno
		},
	} {
		require.NoError(t, unix.Chmod(path, 0o6755))
		require.Zero(t, f(), name)
		require.EqualValues(t, unix.S_IFREG|0o755, c.attr(node).Mode, name)
	}
	require.NoError(t, unix.Chmod(path, 0o2644))
	fh := c.opened(node, unix.O_WRONLY)
	_, errno := c.write(fuse.WriteIn{Fh: fh, WriteFlags: fuse.WRITE_KILL_SUIDGID}, "x")
	require.Zero(t, errno)
	if os.Geteuid() == 0 {
		require.EqualValues(t, unix.S_IFREG|0o2644, c.attr(node).Mode, "not a program: the bit means nothing like it")
	}
}

func TestExtendedAttributes(t *testing.T) {
	dir := t.TempDir()
	path := write(t, "", dir, "file")
	c := share(t, Config{Path: dir})
	node := c.walk("file")
	if err := unix.Setxattr(path, "user.there", []byte("from the host"), 0); err != nil {
		t.Skip("no extended attributes in ", dir, ": ", err)
	}
	getx := func(name string, size int) (string, unix.Errno) {
		in := fuse.GetXAttrIn{Size: uint32(size)}
		b, errno := c.send(c.with(opGetxattr, node, bytesOf(&in), append([]byte(name), 0)), max(size, 8))
		return string(b), errno
	}
	setx := func(name, value string) unix.Errno {
		in := fuse.SetXAttrIn{Size: uint32(len(value))}
		_, errno := c.send(c.with(opSetxattr, node, bytesOf(&in)[:headerSize+8], append(append([]byte(name), 0), value...)), 0)
		return errno
	}
	got, errno := getx("user.there", 100)
	require.Zero(t, errno)
	require.Equal(t, "from the host", got)
	_, errno = getx("user.there", 5)
	require.Equal(t, unix.ERANGE, errno)
	got, errno = getx("user.there", 0)
	require.Zero(t, errno)
	require.Equal(t, "\x0d\x00\x00\x00\x00\x00\x00\x00", got)
	require.Zero(t, setx("user.here", strings.Repeat("v", 2000)))
	got, errno = getx("user.here", 4000)
	require.Zero(t, errno)
	require.Len(t, got, 2000)

	for _, name := range []string{"system.posix_acl_access", "system.posix_acl_default", "security.selinux", "security.ima", "nonsense", "user.a\x00b"[:6]} {
		if strings.HasPrefix(name, "user.") {
			continue
		}
		require.Equal(t, unix.EOPNOTSUPP, setx(name, "x"), name)
		_, errno = getx(name, 100)
		require.Equal(t, unix.EOPNOTSUPP, errno, name)
	}
	in := fuse.GetXAttrIn{Size: 1000}
	b, errno := c.send(c.with(opListxattr, node, bytesOf(&in), nil), 1000)
	require.Zero(t, errno)
	require.ElementsMatch(t, [][]byte{[]byte("user.there"), []byte("user.here")}, bytes.Split(bytes.TrimSuffix(b, []byte{0}), []byte{0}))
	_, errno = c.send(c.message(opRemovexattr, node, header, "user.here"), 0)
	require.Zero(t, errno)
	_, errno = getx("user.here", 10)
	require.Equal(t, unix.ENODATA, errno)
}

// asUser says that this process is TestWithoutRoot's own copy, as an ordinary user.
const asUser = "HUSK_SHARE_TEST_DIR"

// TestWithoutRoot: all files are husk's user's, and what that user may not do fails as it
// does for them.
func TestWithoutRoot(t *testing.T) {
	dir := os.Getenv(asUser)
	if dir == "" && os.Geteuid() == 0 {
		dir, err := os.MkdirTemp("", "share")
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
		require.NoError(t, os.Chown(dir, 65534, 65534))
		// The binary is where only root gets at it.
		self, err := os.ReadFile("/proc/self/exe")
		require.NoError(t, err)
		binary := filepath.Join(dir, "test")
		require.NoError(t, os.WriteFile(binary, self, 0o755))
		cmd := exec.Command(binary, "-test.run=^TestWithoutRoot$", "-test.v")
		cmd.Dir, cmd.Env = dir, append(os.Environ(), asUser+"="+dir)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.Contains(t, string(out), "--- PASS: TestWithoutRoot")
		return
	}
	if dir == "" {
		dir = t.TempDir()
	}
	c := share(t, Config{Path: dir})
	own := c.owner
	require.NotZero(t, own.Uid)
	for _, guest := range []fuse.Owner{{}, {Uid: 1000, Gid: 1000}, own} {
		c.owner = guest
		name := fmt.Sprint("of ", guest.Uid)
		made := get[fuse.EntryOut](c, opMkdir, rootNode, &fuse.MkdirIn{Mode: 0o777, Umask: 0o007}, name)
		require.Equal(t, own, made.Owner)
		require.EqualValues(t, unix.S_IFDIR|0o770, made.Mode)
		set := func(o fuse.Owner) unix.Errno {
			_, errno := call[fuse.AttrOut](c, opSetattr, made.NodeId, &fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{
				Valid: fuse.FATTR_UID | fuse.FATTR_GID, Owner: o,
			}})
			return errno
		}
		require.Equal(t, unix.EPERM, set(fuse.Owner{Uid: 1, Gid: 1}))
		require.Zero(t, set(own))
		_, errno := call[fuse.EntryOut](c, opMknod, rootNode, &fuse.MknodIn{Mode: unix.S_IFCHR | 0o666, Rdev: 0x103}, name+"'s device")
		require.Equal(t, unix.EPERM, errno)
		_, errno = call[fuse.EntryOut](c, opMknod, rootNode, &fuse.MknodIn{Mode: unix.S_IFIFO | 0o666}, name+"'s FIFO")
		require.Zero(t, errno)
	}
}
