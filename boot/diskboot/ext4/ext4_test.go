package ext4

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/boot/diskboot/imagefs"
)

// need skips a test where a tool is missing.
func need(t testing.TB, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("no %s here (Debian: e2fsprogs): %v", tool, err)
		}
	}
}

func run(t testing.TB, name string, args ...string) {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	require.NoError(t, err, "%s %v: %s", name, args, out)
}

// mke2fs makes a file system with everything of a tree in it.
func mke2fs(t testing.TB, tree string, size int64, args ...string) string {
	t.Helper()
	image := filepath.Join(t.TempDir(), "image")
	require.NoError(t, os.WriteFile(image, nil, 0o600))
	require.NoError(t, os.Truncate(image, size))
	run(t, "mke2fs", append(append([]string{"-q", "-F", "-E", "no_copy_xattrs"}, args...), "-d", tree, image)...)
	return image
}

// noise is incompressible, and the same every time.
func noise(seed string, n int) []byte {
	var b bytes.Buffer
	for i := 0; b.Len() < n; i++ {
		sum := sha256.Sum256(fmt.Appendf(nil, "%s %d", seed, i))
		b.Write(sum[:])
	}
	return b.Bytes()[:n]
}

const (
	longName = "a-name-as-long-as-can-be-" // padded to 255 bytes
	many     = 300                         // files in one folder, enough for an index
)

// makeTree has every shape of file, folder and link.
func makeTree(t testing.TB) string {
	t.Helper()
	root := t.TempDir()
	write := func(name string, content []byte) {
		path := filepath.Join(root, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, content, 0o644))
	}
	link := func(target, name string) { require.NoError(t, os.Symlink(target, filepath.Join(root, name))) }
	for _, n := range []int{0, 1, 59, 60, 61, 100, 140, 200, 1023, 1024, 1025, 4096, 12 * 1024, 12*1024 + 1, 300_000} {
		write(fmt.Sprintf("sizes/%d", n), noise("size", n))
	}
	write(strings.Repeat("deep/", 40)+"bottom", []byte("here"))
	long := longName + strings.Repeat("x", 255-len(longName))
	write("long/"+long, []byte("long"))
	for i := range many {
		write(fmt.Sprintf("many/a-file-with-some-name-%d", i), []byte(fmt.Sprint(i)))
	}
	require.NoError(t, os.Mkdir(filepath.Join(root, "empty"), 0o755))

	sparse, err := os.Create(filepath.Join(root, "sparse"))
	require.NoError(t, err)
	for i := range int64(700) {
		_, err = sparse.WriteAt(noise("sparse", 100), i*9000)
		require.NoError(t, err)
	}
	require.NoError(t, sparse.Close())

	link("sizes/300000", "fast")
	link("/sizes/../sizes/./300000", "absolute")
	link(strings.Repeat("./", 40)+"sizes/300000", "slow")
	link("slow", "chain")
	link("../../../../../../sizes/300000", "outside")
	link("deep/deep/deep", "folder")
	link("loop", "loop")
	link("loop-b", "loop-a")
	link("loop-a", "loop-b")
	link("nothing", "dangling")
	return root
}

// compare checks every file and folder of the tree, byte by byte.
func compare(t *testing.T, f *FS, root string) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		require.NoError(t, err)
		name := strings.TrimPrefix(path, root)
		switch {
		case d.IsDir():
			got, err := f.List(name)
			require.NoError(t, err)
			entries, err := os.ReadDir(path)
			require.NoError(t, err)
			want := []string{}
			for _, e := range entries {
				want = append(want, e.Name())
			}
			if name == "" {
				got = remove(got, "lost+found")
			}
			require.ElementsMatch(t, want, got, name)
			infos, err := f.ReadDir(name)
			require.NoError(t, err)
			require.Len(t, remove(namesOf(infos), "lost+found"), len(want), name)
			for _, i := range infos {
				if i.Name() != "lost+found" {
					sameInfo(t, filepath.Join(path, i.Name()), i)
				}
			}
		case d.Type().IsRegular():
			want, err := os.ReadFile(path)
			require.NoError(t, err)
			r, err := f.Open(name)
			require.NoError(t, err)
			require.Equal(t, int64(len(want)), r.Size(), name)
			got, err := io.ReadAll(r)
			require.NoError(t, err, name)
			require.True(t, bytes.Equal(want, got), "%s differs", name)
			i, err := f.Stat(name)
			require.NoError(t, err)
			sameInfo(t, path, i)
		}
		return nil
	}))
}

// sameInfo compares what is told of a file with what the host tells of its original.
func sameInfo(t *testing.T, path string, got fs.FileInfo) {
	t.Helper()
	want, err := os.Lstat(path)
	require.NoError(t, err)
	require.Equal(t, want.Name(), got.Name())
	require.Equal(t, want.Mode(), got.Mode(), path)
	if !want.IsDir() {
		require.Equal(t, want.Size(), got.Size(), path)
	}
}

func namesOf(infos []fs.FileInfo) (names []string) {
	for _, i := range infos {
		names = append(names, i.Name())
	}
	return names
}

func remove(names []string, name string) []string {
	var rest []string
	for _, n := range names {
		if n != name {
			rest = append(rest, n)
		}
	}
	return rest
}

// variants are the shapes that mke2fs makes and we must read.
var variants = []struct {
	kind string
	name string
	args []string
}{
	{"ext4", "default", []string{"-t", "ext4"}},
	{"ext4", "1k", []string{"-t", "ext4", "-b", "1024"}},
	{"ext4", "2k", []string{"-t", "ext4", "-b", "2048"}},
	{"ext4", "64bit", []string{"-t", "ext4", "-b", "4096", "-O", "64bit,metadata_csum"}},
	{"ext4", "64k blocks", []string{"-t", "ext4", "-b", "65536", "-N", "1000", "-O", "^has_journal"}},
	{"ext4", "no checksums", []string{"-t", "ext4", "-O", "^metadata_csum,^64bit"}},
	{"ext4", "block maps", []string{"-t", "ext4", "-O", "^extent,^64bit"}},
	{"ext4", "block maps 1k", []string{"-t", "ext4", "-b", "1024", "-O", "^extent,^64bit"}},
	{"ext4", "inline", []string{"-t", "ext4", "-O", "inline_data", "-I", "256"}},
	{"ext4", "inline 1k", []string{"-t", "ext4", "-O", "inline_data", "-I", "1024", "-b", "1024"}},
	{"ext4", "inodes of 128", []string{"-t", "ext4", "-I", "128"}},
	{"ext4", "bigalloc", []string{"-t", "ext4", "-O", "bigalloc"}},
	{"ext4", "meta_bg 1k", []string{"-t", "ext4", "-b", "1024", "-O", "meta_bg,^resize_inode", "-g", "1024"}},
	{"ext4", "meta_bg 64bit", []string{"-t", "ext4", "-b", "1024", "-O", "meta_bg,^resize_inode,64bit", "-g", "256"}},
	{"ext4", "sparse_super2", []string{"-t", "ext4", "-b", "1024", "-O", "sparse_super2,^resize_inode,meta_bg", "-g", "1024"}},
	{"ext4", "no sparse_super", []string{"-t", "ext4", "-b", "1024", "-O", "^sparse_super,meta_bg,^resize_inode", "-g", "1024"}},
	{"ext4", "no flex_bg", []string{"-t", "ext4", "-O", "^flex_bg"}},
	{"ext4", "ea_inode large_dir", []string{"-t", "ext4", "-O", "ea_inode,large_dir"}},
	{"ext4", "encrypt casefold", []string{"-t", "ext4", "-O", "encrypt,casefold"}},
	{"ext4", "csum_seed", []string{"-t", "ext4", "-O", "metadata_csum_seed"}},
	{"ext3", "ext3", []string{"-t", "ext3"}},
	{"ext3", "ext3 1k", []string{"-t", "ext3", "-b", "1024"}},
	{"ext2", "ext2", []string{"-t", "ext2"}},
	{"ext2", "ext2 1k, no dir_index", []string{"-t", "ext2", "-b", "1024", "-O", "^dir_index"}},
	{"ext2", "no filetype", []string{"-t", "ext2", "-O", "^filetype"}},
	{"ext2", "revision 0", []string{"-t", "ext2", "-r", "0", "-O", "none", "-b", "1024"}},
}

func TestEveryFileOfEveryVariant(t *testing.T) {
	need(t, "mke2fs", "debugfs")
	tree := makeTree(t)
	const uuid = "01234567-89ab-4cde-8f01-23456789abcd"
	for i, v := range variants {
		if testing.Short() && i%4 != 0 {
			continue
		}
		t.Run(v.name, func(t *testing.T) {
			image := mke2fs(t, tree, 64<<20, append(v.args, "-U", uuid, "-L", "a-label")...)
			// mke2fs -d makes no index and leaves no journal to replay; e2fsck makes indexes.
			if strings.HasPrefix(v.kind, "ext4") {
				_ = exec.Command("e2fsck", "-fyD", image).Run() // exit code 1: it did something
			}
			file, err := os.Open(image)
			require.NoError(t, err)
			defer file.Close()
			f, err := Open(file)
			require.NoError(t, err)
			require.Equal(t, v.kind, f.Kind())
			require.Equal(t, uuid, f.UUID())
			require.Equal(t, "a-label", f.Label())
			require.False(t, f.NeedsRecovery())
			require.LessOrEqual(t, f.Size(), int64(64<<20))
			compare(t, f, tree)
			checkLinks(t, f)
			debugfsAgrees(t, f, image)
		})
	}
}

func checkLinks(t *testing.T, f *FS) {
	t.Helper()
	want := noise("size", 300_000)
	for _, name := range []string{"fast", "absolute", "slow", "chain", "outside", "/sizes//300000", "sizes/../../sizes/300000", "folder/../../../slow"} {
		r, err := f.Open(name)
		require.NoError(t, err, name)
		got, err := io.ReadAll(r)
		require.NoError(t, err)
		require.True(t, bytes.Equal(want, got), name)
	}
	for name, size := range map[string]int64{"fast": 300_000, "chain": 300_000, "folder/../../../slow": 300_000} {
		i, err := f.Stat(name)
		require.NoError(t, err, name)
		require.Equal(t, imagefs.Info(path.Base(name), 0o644, size), i, "links are followed")
	}
	for name, want := range map[string]string{"fast": "sizes/300000", "folder/../../../chain": "slow", "dangling": "nothing", "loop": "loop"} {
		i, err := f.Lstat(name)
		require.NoError(t, err, name)
		require.Equal(t, imagefs.Info(path.Base(name), fs.ModeSymlink|0o777, int64(len(want))), i)
		got, err := f.ReadLink(name)
		require.NoError(t, err, name)
		require.Equal(t, want, got)
	}
	_, err := f.ReadLink("sizes/1")
	require.ErrorIs(t, err, ErrKind)
	for _, name := range []string{"loop", "loop-a", "loop/x"} {
		_, err := f.Open(name)
		require.ErrorIs(t, err, ErrMalformed, name)
		_, err = f.Stat(name)
		require.ErrorIs(t, err, ErrMalformed, name)
	}
	for _, name := range []string{"dangling", "nothing", "sizes/nothing", "sizes/1/x", "nothing/..", strings.Repeat("x/", 9000)} {
		_, err := f.Open(name)
		require.ErrorIs(t, err, fs.ErrNotExist, name)
	}
	_, err = f.Open("sizes")
	require.ErrorIs(t, err, ErrKind)
	_, err = f.List("sizes/1")
	require.ErrorIs(t, err, ErrKind)
	_, err = f.ReadDir("sizes/1")
	require.ErrorIs(t, err, ErrKind)
	_, err = f.Stat("dangling")
	require.ErrorIs(t, err, fs.ErrNotExist)
}

// debugfsAgrees has another reader of ext4 give a file too.
func debugfsAgrees(t *testing.T, f *FS, image string) {
	t.Helper()
	want, err := exec.Command("debugfs", "-R", "cat /sparse", image).Output()
	require.NoError(t, err)
	r, err := f.Open("sparse")
	require.NoError(t, err)
	got, err := io.ReadAll(r)
	require.NoError(t, err)
	require.True(t, bytes.Equal(want, got))
}

func TestReadsAtAnyOffset(t *testing.T) {
	need(t, "mke2fs")
	tree := makeTree(t)
	image := mke2fs(t, tree, 64<<20, "-t", "ext4", "-b", "1024")
	file, err := os.Open(image)
	require.NoError(t, err)
	defer file.Close()
	f, err := Open(file)
	require.NoError(t, err)
	r, err := f.Open("sizes/12289")
	require.NoError(t, err)
	require.NoError(t, iotest.TestReader(r, noise("size", 12289)))
}

// A file that was begun beyond 4 GiB: its size has more than 32 bits.
func TestLargeFile(t *testing.T) {
	need(t, "mke2fs")
	tree := t.TempDir()
	const at = 5 << 30
	file, err := os.Create(filepath.Join(tree, "large"))
	require.NoError(t, err)
	_, err = file.WriteAt([]byte("end"), at)
	require.NoError(t, err)
	require.NoError(t, file.Close())
	for _, args := range [][]string{{"-t", "ext4"}, {"-t", "ext2", "-b", "4096"}} {
		image, err := os.Open(mke2fs(t, tree, 16<<20, args...))
		require.NoError(t, err)
		defer image.Close()
		f, err := Open(image)
		require.NoError(t, err)
		r, err := f.Open("large")
		require.NoError(t, err)
		require.EqualValues(t, at+3, r.Size())
		p := make([]byte, 10)
		n, err := r.ReadAt(p, at-7)
		require.NoError(t, err)
		require.Equal(t, "\x00\x00\x00\x00\x00\x00\x00end", string(p[:n]))
	}
}

// Space that a file has, but never wrote, reads as zeros, whatever the disk has there.
func TestUnwrittenExtents(t *testing.T) {
	need(t, "mke2fs", "debugfs")
	tree := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(tree, "f"), noise("before", 40_000), 0o600))
	image := mke2fs(t, tree, 16<<20, "-t", "ext4", "-b", "1024")
	// The last part of it is a hole.
	script := filepath.Join(t.TempDir(), "script")
	require.NoError(t, os.WriteFile(script, []byte("rm f\nwrite /dev/null f\nfallocate f 0 10\nset_inode_field f size 20000\n"), 0o600))
	run(t, "debugfs", "-w", "-f", script, image)
	file, err := os.Open(image)
	require.NoError(t, err)
	defer file.Close()
	f, err := Open(file)
	require.NoError(t, err)
	r, err := f.Open("f")
	require.NoError(t, err)
	got, err := io.ReadAll(r)
	require.NoError(t, err)
	require.Equal(t, make([]byte, 20_000), got)
}
