package rootfs

import (
	"archive/tar"
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/erofs/go-erofs"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// mount has this host's kernel mount an image, where it can: for root, with EROFS and loop
// devices. The mount is for this test's thread alone, and ends with it.
func mount(t *testing.T, image string) string {
	t.Helper()
	known, err := os.ReadFile("/proc/filesystems")
	if os.Getuid() != 0 || err != nil || !strings.Contains(string(known), "\terofs\n") {
		t.Skip("only root mounts file systems, and only a kernel with EROFS this one")
	}
	runtime.LockOSThread() // and never unlocked: the thread is of no use to others
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		t.Skip("no mount namespace: ", err)
	}
	require.NoError(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	point := t.TempDir()
	require.NoError(t, unix.Mount(loop(t, image, unix.LO_FLAGS_READ_ONLY), point, FileSystem, unix.MS_RDONLY, ""))
	t.Cleanup(func() { require.NoError(t, unix.Unmount(point, 0)) })
	return point
}

// loop makes a block device of a file, which is gone when nothing uses it any more.
func loop(t *testing.T, image string, flags uint32) string {
	t.Helper()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		t.Skip("no loop devices: ", err)
	}
	defer control.Close()
	file, err := os.OpenFile(image, os.O_RDWR, 0)
	require.NoError(t, err)
	defer file.Close()
	for range 100 { // others may take the same one
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		require.NoError(t, err)
		name := "/dev/loop" + strconv.Itoa(n)
		device, err := os.OpenFile(name, os.O_RDWR, 0)
		require.NoError(t, err)
		t.Cleanup(func() { device.Close() })
		err = unix.IoctlLoopConfigure(int(device.Fd()), &unix.LoopConfig{
			Fd: uint32(file.Fd()), Info: unix.LoopInfo64{Flags: flags | unix.LO_FLAGS_AUTOCLEAR},
		})
		if err == nil {
			return name
		}
		require.ErrorIs(t, err, unix.EBUSY)
	}
	t.Fatal("no loop device to be had")
	return ""
}

// readFolder reads what is in a folder of the host's, as read does with an image.
func readFolder(t *testing.T, folder string) map[string]node {
	t.Helper()
	nodes := map[string]node{}
	require.NoError(t, filepath.WalkDir(folder, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		rdev, _ := deviceNumber(int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev)))
		n := node{Stat: &erofs.Stat{
			Mode: info.Mode(), Size: st.Size, Rdev: rdev, Ino: int64(st.Ino), UID: st.Uid, GID: st.Gid,
			Mtime: uint64(st.Mtim.Sec), MtimeNs: uint32(st.Mtim.Nsec), Nlink: int(st.Nlink), Xattrs: xattrsOf(t, name),
		}}
		if n.path, err = filepath.Rel(folder, name); err != nil {
			return err
		}
		switch {
		case info.Mode()&fs.ModeSymlink != 0:
			n.link, err = os.Readlink(name)
		case info.Mode().IsRegular() && info.Size() < 1<<24:
			n.content, err = os.ReadFile(name)
		}
		nodes[n.path] = n
		return err
	}))
	return nodes
}

func xattrsOf(t *testing.T, name string) map[string]string {
	t.Helper()
	names := make([]byte, 1<<16)
	n, err := unix.Llistxattr(name, names)
	require.NoError(t, err, name)
	all := map[string]string{}
	for _, x := range strings.Split(string(names[:n]), "\x00") {
		if x == "" {
			continue
		}
		value := make([]byte, 1<<16)
		n, err := unix.Lgetxattr(name, x, value)
		require.NoError(t, err, "%s: %s", name, x)
		all[x] = string(value[:n])
	}
	return all
}

func TestMounted(t *testing.T) {
	for name, c := range allLayered() {
		t.Run(name, func(t *testing.T) {
			image, _, err := build(t, layersOf(t, c.layers...)...)
			require.NoError(t, err)
			require.Equal(t, c.want, tell(t, readFolder(t, mount(t, image))))
		})
	}
	t.Run("names that are not UTF-8", func(t *testing.T) {
		image, _, err := build(t, layersOf(t, []entry{file("\xff\xfe/\x80", "1").with(func(h *tar.Header) { h.Format = tar.FormatGNU }), link("l", "\xff")})...)
		require.NoError(t, err)
		require.Equal(t, tree{"\xff\xfe/\x80": `file "1"`, "l": "-> \xff"}, tell(t, readFolder(t, mount(t, image))))
	})
	t.Run("a path of 1900 directories", func(t *testing.T) {
		name := strings.Repeat("d/", 1900) + "x"
		image, _, err := buildInMemory(t, layersOf(t, []entry{file(name, "1")})...)
		require.NoError(t, err)
		content, err := os.ReadFile(filepath.Join(mount(t, image), name))
		require.NoError(t, err)
		require.Equal(t, "1", string(content))
	})
	t.Run("a directory of many blocks", func(t *testing.T) {
		var entries []entry
		want := tree{}
		for i := range 3000 {
			name := "d/" + strings.Repeat(string(rune('a'+i%26)), 1+i*7%240) + strconv.Itoa(i)
			entries = append(entries, file(name, strconv.Itoa(i)))
			want[name] = `file "` + strconv.Itoa(i) + `"`
		}
		image, _, err := build(t, layersOf(t, entries)...)
		require.NoError(t, err)
		require.Equal(t, want, tell(t, readFolder(t, mount(t, image))))
	})
	t.Run("lengths", func(t *testing.T) {
		// The kernel refuses content behind an inode that reaches into the next block.
		var entries []entry
		want := tree{}
		for i := range 800 {
			name, value := "f"+strconv.Itoa(i), strings.Repeat("v", i*13%2000)
			content := strings.Repeat(strconv.Itoa(i%10), 20+i*37%600)
			entries = append(entries, file(name, content).with(xattr("trusted.a", value)))
			want[name] = `file "` + content[:20] + `" trusted.a="` + value + `"`
			entries = append(entries, link("l"+name, strings.Repeat("t", 1+i*41%4000)))
			want["l"+name] = "-> " + strings.Repeat("t", 1+i*41%4000)
		}
		image, _, err := build(t, layersOf(t, entries)...)
		require.NoError(t, err)
		require.Equal(t, want, tell(t, readFolder(t, mount(t, image))))
	})
	t.Run("a file of a tebibyte", func(t *testing.T) {
		const size = 1 << 40
		image, _, err := build(t, layerOf(sparseArchive(t, "1.0", size, []fragment{{5, 3}, {size - 3, 3}}, "abcxyz")))
		require.NoError(t, err)
		f, err := os.Open(filepath.Join(mount(t, image), "s"))
		require.NoError(t, err)
		defer f.Close()
		p := make([]byte, 10)
		_, err = f.ReadAt(p, 0)
		require.NoError(t, err)
		require.Equal(t, "\x00\x00\x00\x00\x00abc\x00\x00", string(p))
		_, err = f.ReadAt(p, size-10)
		require.NoError(t, err)
		require.Equal(t, "\x00\x00\x00\x00\x00\x00\x00xyz", string(p))
	})
}

// TestAsTarUnpacks compares an image of a part of this machine's own files with what GNU
// tar makes of the same archive.
func TestAsTarUnpacks(t *testing.T) {
	if _, err := exec.LookPath("tar"); err != nil {
		t.Skip("no tar")
	}
	source := t.TempDir()
	makeFiles(t, source)
	args := []string{"--xattrs", "--xattrs-include=*", "--format=pax", "-cf", "-", "-C", source, "."}
	if _, err := os.Stat("/etc/alternatives"); err == nil {
		args = append(args, "-C", "/", "etc")
	}
	var complaint bytes.Buffer
	c := exec.Command("tar", args...)
	c.Stderr = &complaint
	archive, err := c.Output()
	require.NoError(t, err, "%s", &complaint)

	image, _, err := build(t, layerOf(archive))
	require.NoError(t, err)
	point := mount(t, image)
	unpacked := t.TempDir()
	c = exec.Command("tar", "--xattrs", "--xattrs-include=*", "--same-owner", "-xpf", "-", "-C", unpacked)
	c.Stdin = bytes.NewReader(archive)
	out, err := c.CombinedOutput()
	require.NoError(t, err, "%s", out)

	want, got := readFolder(t, unpacked), readFolder(t, point)
	require.Greater(t, len(want), 50)
	for name, w := range want {
		g, ok := got[name]
		require.True(t, ok, name)
		require.Equal(t, w.String(), g.String(), name)
		require.True(t, bytes.Equal(w.content, g.content), name)
		require.Equal(t, w.link, g.link, name)
	}
	require.Len(t, got, len(want))
}

// makeFiles makes one of each kind of file.
func makeFiles(t *testing.T, folder string) {
	t.Helper()
	in := func(name string) string { return filepath.Join(folder, name) }
	content := []byte(strings.Repeat("content ", 2000))
	for i, size := range []int{0, 1, 511, inlineTail, 513, 4095, 4096, 4097, 8192 + inlineTail, 12345} {
		require.NoError(t, os.WriteFile(in("size"+strconv.Itoa(i)), content[:size], 0o600))
	}
	require.NoError(t, os.MkdirAll(in("d/e"), 0o711))
	require.NoError(t, os.Link(in("size3"), in("d/e/again")))
	require.NoError(t, os.Symlink("../size3", in("d/link")))
	require.NoError(t, os.Link(in("d/link"), in("d/link2")))
	require.NoError(t, os.Lchown(in("d/link"), 70000, 80000))
	require.NoError(t, os.Chown(in("size4"), 4000000000, 3))
	require.NoError(t, os.Chmod(in("size4"), 0o755|fs.ModeSetuid))
	require.NoError(t, os.Chmod(in("d"), 0o777|fs.ModeSticky))
	require.NoError(t, os.Chtimes(in("size5"), time.Time{}, time.Unix(-100, 123456789)))
	require.NoError(t, unix.Mknod(in("fifo"), unix.S_IFIFO|0o600, 0))
	for i, name := range []string{"null", "odd"} {
		if err := unix.Mknod(in(name), unix.S_IFCHR|0o666, int(unix.Mkdev(uint32(1+i*300), uint32(3+i*70000)))); err != nil {
			t.Skip("no device nodes: ", err)
		}
	}
	for name, value := range map[string]string{
		"security.capability": "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", "user.note": "n",
		"system.posix_acl_access": acl,
	} {
		if err := unix.Setxattr(in("size6"), name, []byte(value), 0); err != nil {
			t.Skip("no extended attributes: ", name, ": ", err)
		}
	}
}
