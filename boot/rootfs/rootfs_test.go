package rootfs

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/erofs/go-erofs"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// A tester is a *testing.T or one of rapid's.
type tester interface {
	require.TestingT
	Helper()
	Cleanup(func())
}

// An entry is one of an archive.
type entry struct {
	tar.Header
	content string
}

func file(name, content string) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644}, content}
}

func dir(name string, mode int64) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: mode}, ""}
}

func link(name, target string) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: target, Mode: 0o777}, ""}
}

func hard(name, target string) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeLink, Linkname: target}, ""}
}

// with changes an entry's header.
func (e entry) with(change func(*tar.Header)) entry {
	change(&e.Header)
	return e
}

// pack makes an archive of entries.
func pack(t tester, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := e.Header
		h.Size = int64(len(e.content))
		require.NoError(t, w.WriteHeader(&h))
		_, err := io.WriteString(w, e.content)
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return b.Bytes()
}

// layerOf makes a layer of an archive's bytes.
func layerOf(archive []byte) Layer {
	return func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(archive)), nil }
}

func layersOf(t tester, layers ...[]entry) []Layer {
	var all []Layer
	for _, l := range layers {
		all = append(all, layerOf(pack(t, l...)))
	}
	return all
}

// build makes an image and gives its file. If it becomes one, fsck.erofs must like it.
func build(t testing.TB, layers ...Layer) (string, Stats, error) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "image")
	f, err := os.Create(name)
	require.NoError(t, err)
	defer f.Close()
	stats, err := Build(context.Background(), f, layers)
	if err == nil {
		check(t, name)
	}
	return name, stats, err
}

// buildInMemory is build without a disk, and without fsck.erofs.
func buildInMemory(t tester, layers ...Layer) (string, Stats, error) {
	t.Helper()
	fd, err := unix.MemfdCreate("image", unix.MFD_CLOEXEC)
	require.NoError(t, err)
	name := fmt.Sprintf("/proc/self/fd/%d", fd)
	f := os.NewFile(uintptr(fd), name)
	t.Cleanup(func() { f.Close() })
	stats, err := Build(context.Background(), f, layers)
	return name, stats, err
}

// check has fsck.erofs look at an image, where it is installed.
func check(t testing.TB, image string) {
	t.Helper()
	if _, err := exec.LookPath("fsck.erofs"); err != nil {
		return
	}
	info, err := os.Stat(image)
	require.NoError(t, err)
	contents := "--extract" // checks the contents, too
	if info.Size() > 1<<30 {
		contents = "" // it cannot read a file of 4 GiB
	}
	// It needs some 5 KiB of stack for each directory on a path.
	out, err := exec.Command("sh", "-c", "ulimit -s 65536; exec fsck.erofs "+contents+" \"$1\"", "fsck", image).CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// A node is what go-erofs, which has not written it, finds in an image.
type node struct {
	*erofs.Stat
	path    string
	link    string
	content []byte // nil if there is a lot of it
}

// read reads a whole image.
func read(t tester, image string) map[string]node {
	t.Helper()
	f, err := os.Open(image)
	require.NoError(t, err)
	t.Cleanup(func() { f.Close() })
	fsys, err := erofs.Open(f)
	require.NoError(t, err)
	nodes := map[string]node{}
	require.NoError(t, fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		n := node{Stat: info.Sys().(*erofs.Stat), path: name}
		switch {
		case info.Mode()&fs.ModeSymlink != 0:
			n.link, err = fs.ReadLink(fsys, name)
		case info.Mode().IsRegular() && info.Size() < 1<<24:
			n.content, err = fs.ReadFile(fsys, name)
		}
		for _, acl := range []string{"system.posix_acl_access", "system.posix_acl_default"} {
			if v, ok := n.Xattrs[acl+"."]; ok { // go-erofs takes the whole name for a prefix
				delete(n.Xattrs, acl+".")
				n.Xattrs[acl] = v
			}
		}
		nodes[name] = n
		return err
	}))
	return nodes
}

// readFile reads one file of an image.
func readFile(t testing.TB, image, name string) []byte {
	t.Helper()
	f, err := os.Open(image)
	require.NoError(t, err)
	defer f.Close()
	fsys, err := erofs.Open(f)
	require.NoError(t, err)
	content, err := fs.ReadFile(fsys, name)
	require.NoError(t, err)
	return content
}

// String tells what is not as usual about a node.
func (n node) String() string {
	var s strings.Builder
	switch n.Mode.Type() {
	case fs.ModeDir:
		s.WriteString("dir")
	case fs.ModeSymlink:
		return "-> " + n.link + n.rest()
	case fs.ModeDevice:
		fmt.Fprintf(&s, "block %d", n.Rdev)
	case fs.ModeDevice | fs.ModeCharDevice:
		fmt.Fprintf(&s, "char %d", n.Rdev)
	case fs.ModeNamedPipe:
		s.WriteString("fifo")
	default:
		fmt.Fprintf(&s, "file %.20q", n.content)
	}
	mode := uint32(n.Mode.Perm())
	for _, bit := range []struct {
		is fs.FileMode
		n  uint32
	}{{fs.ModeSetuid, 0o4000}, {fs.ModeSetgid, 0o2000}, {fs.ModeSticky, 0o1000}} {
		if n.Mode&bit.is != 0 {
			mode |= bit.n
		}
	}
	if usual := map[bool]uint32{true: 0o755, false: 0o644}[n.Mode.IsDir()]; mode != usual {
		fmt.Fprintf(&s, " %o", mode)
	}
	return s.String() + n.rest()
}

// rest is what all types have.
func (n node) rest() string {
	var s strings.Builder
	if n.UID != 0 || n.GID != 0 {
		fmt.Fprintf(&s, " %d:%d", n.UID, n.GID)
	}
	if n.Mtime != 0 || n.MtimeNs != 0 {
		fmt.Fprintf(&s, " @%d.%09d", int64(n.Mtime), n.MtimeNs)
	}
	if n.Nlink != 1 && !n.Mode.IsDir() {
		fmt.Fprintf(&s, " links=%d", n.Nlink)
	}
	for _, k := range slices.Sorted(maps.Keys(n.Xattrs)) {
		fmt.Fprintf(&s, " %s=%q", k, n.Xattrs[k])
	}
	return s.String()
}

// list tells of an image what Strings tell of its nodes, but for directories as they are
// by default. The link counts of directories and the numbers of names for one inode are
// checked.
func list(t tester, image string) map[string]string {
	t.Helper()
	return tell(t, read(t, image))
}

func tell(t tester, nodes map[string]node) map[string]string {
	t.Helper()
	all, names, subdirs := map[string]string{}, map[int64]int{}, map[string]int{}
	for name, n := range nodes {
		if n.Mode.IsDir() && name != "." {
			subdirs[path.Dir(name)]++
		}
		names[n.Ino]++
		if s := n.String(); s != "dir" {
			all[name] = s
		}
	}
	for name, n := range nodes {
		if n.Mode.IsDir() {
			require.Equal(t, 2+subdirs[name], n.Nlink, name)
			require.Equal(t, 1, names[n.Ino], name)
		} else {
			require.Equal(t, names[n.Ino], n.Nlink, name)
		}
	}
	return all
}

func TestSameLayersGiveTheSameBytes(t *testing.T) {
	entries := []entry{dir("etc", 0o755), link("d", "a"), hard("e", "d"), file("b/c", strings.Repeat("x", 10000))}
	for i := range 300 {
		entries = append(entries, file(fmt.Sprintf("etc/%d", i*7919%300), strings.Repeat("y", i*7919%300)).with(func(h *tar.Header) {
			h.PAXRecords = map[string]string{"SCHILY.xattr.user.b": "1", "SCHILY.xattr.user.a": "2", "SCHILY.xattr.security.x": "3"}
		}))
	}
	layers := layersOf(t, entries, []entry{file("etc/.wh.7", ""), file("etc/8", "8")})
	first, s1, err := build(t, layers...)
	require.NoError(t, err)
	second, s2, err := build(t, layers...)
	require.NoError(t, err)
	a, err := os.ReadFile(first)
	require.NoError(t, err)
	b, err := os.ReadFile(second)
	require.NoError(t, err)
	require.True(t, bytes.Equal(a, b))
	require.Equal(t, s1, s2)
	require.Equal(t, Stats{Entries: 306, Files: 300, Directories: 3, Symlinks: 1, Content: 10000 + 299*300/2 - 7 - 8 + 1, Size: int64(len(a))}, s1)
}
