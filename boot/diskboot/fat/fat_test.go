package fat

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/boot/diskboot/imagefs"
)

// mkfs makes a file system with everything of a tree in it.
func mkfs(t testing.TB, tree string, size int64, args ...string) []byte {
	t.Helper()
	for _, tool := range []string{"mkfs.vfat", "mcopy"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("no %s here (Debian: dosfstools, mtools): %v", tool, err)
		}
	}
	image := filepath.Join(t.TempDir(), "image")
	require.NoError(t, os.WriteFile(image, nil, 0o600))
	require.NoError(t, os.Truncate(image, size))
	run := func(name string, args ...string) {
		cmd := exec.Command(name, args...)
		cmd.Env = append(os.Environ(), "MTOOLS_SKIP_CHECK=1", "LC_ALL=C.UTF-8")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, string(out))
	}
	run("mkfs.vfat", append(append([]string{"-i", "cafe1234"}, args...), image)...)
	entries, err := os.ReadDir(tree)
	require.NoError(t, err)
	for _, e := range entries {
		run("mcopy", "-s", "-i", image, filepath.Join(tree, e.Name()), "::/")
	}
	p, err := os.ReadFile(image)
	require.NoError(t, err)
	return p
}

func makeTree(t testing.TB, large int) string {
	t.Helper()
	root := t.TempDir()
	for name, n := range map[string]int{
		"empty": 0, "SHORT.TXT": 1, "lower.txt": 511, "Mixed.Txt": 512, "boot/one": 513, "boot/vmlinuz-6.1.0-9-amd64": large,
		"loader/entries/a-long-name-of-an-entry-6.1.0-9.conf": 100, "loader/loader.conf": 20, "sp ace/x+y,z.conf": 10,
		"a/b/c/d/e/f/g": 70_000, strings.Repeat("n", 200): 5,
	} {
		path := filepath.Join(root, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, bytes.Repeat([]byte(fmt.Sprintf("%-9s", filepath.Base(name))), n/9+1)[:n], 0o644))
	}
	for i := range 300 {
		path := filepath.Join(root, "many", fmt.Sprintf("an-entry-with-a-long-name-%d.conf", i))
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(fmt.Sprint(i)), 0o644))
	}
	return root
}

var variants = []struct {
	name string
	size int64
	args []string
	bits int
}{
	{"FAT12", 2 << 20, []string{"-F", "12"}, 12},
	{"FAT12 with large clusters", 4 << 20, []string{"-F", "12", "-s", "4"}, 12},
	{"FAT16", 16 << 20, []string{"-F", "16"}, 16},
	{"FAT32", 40 << 20, []string{"-F", "32"}, 32},
	{"sectors of 4096", 20 << 20, []string{"-F", "16", "-S", "4096", "-s", "1"}, 16},
}

func TestEveryFile(t *testing.T) {
	tree := makeTree(t, 800_000)
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			image := mkfs(t, tree, v.size, v.args...)
			f, err := Open(bytes.NewReader(image))
			require.NoError(t, err)
			require.Equal(t, v.bits, f.bits)
			require.Equal(t, "CAFE-1234", f.UUID())
			require.NoError(t, fstest.TestFS(imagefs.New(f, "/", ""), "empty", "a/b/c/d/e/f/g", "loader/loader.conf", "boot/one"))
			require.NoError(t, filepath.WalkDir(tree, func(path string, d fs.DirEntry, err error) error {
				require.NoError(t, err)
				name := strings.TrimPrefix(path, tree)
				if d.IsDir() {
					entries, err := os.ReadDir(path)
					require.NoError(t, err)
					var want []string
					for _, e := range entries {
						want = append(want, e.Name())
					}
					got, err := f.List(name)
					require.NoError(t, err)
					require.ElementsMatch(t, want, got, name)
					return nil
				}
				want, err := os.ReadFile(path)
				require.NoError(t, err)
				for _, name := range []string{name, strings.ToUpper(name), "x/../" + name} {
					if strings.HasPrefix(name, "x/") {
						name = "boot/../" + name[5:]
					}
					r, err := f.Open(name)
					require.NoError(t, err, name)
					got, err := io.ReadAll(r)
					require.NoError(t, err)
					require.True(t, bytes.Equal(want, got), name)
				}
				return nil
			}))
			for _, name := range []string{"nothing", "boot/nothing", "lower.txt/x", "", "..", strings.Repeat("a/", 100)} {
				_, err := f.Open(name)
				if name == "" || name == ".." {
					require.ErrorIs(t, err, ErrKind)
				} else {
					require.ErrorIs(t, err, fs.ErrNotExist, name)
				}
			}
			_, err = f.List("lower.txt")
			require.ErrorIs(t, err, ErrKind)
		})
	}
}

// small is a FAT12 made by hand, for tests without tools and as a seed: 64
// clusters of one sector, a file with a long name in a folder.
func small() []byte {
	const sectors = 70
	p := make([]byte, sectors*512)
	le := binary.LittleEndian
	copy(p, "\xeb\x3c\x90husk    ")
	le.PutUint16(p[11:], 512)
	p[13], p[14], p[16], p[21] = 1, 1, 1, 0xf8
	le.PutUint16(p[17:], 16)
	le.PutUint16(p[19:], sectors)
	le.PutUint16(p[22:], 1)
	p[510], p[511] = 0x55, 0xaa
	entry := func(off int, name string, attr byte, first uint16, size uint32) {
		copy(p[off:], fmt.Sprintf("%-11s", name))
		p[off+11] = attr
		le.PutUint16(p[off+26:], first)
		le.PutUint32(p[off+28:], size)
	}
	set := func(cluster int, value uint32) {
		off := 512 + cluster*12/8
		v := le.Uint16(p[off:])
		if cluster%2 == 0 {
			v = v&0xf000 | uint16(value)
		} else {
			v = v&0xf | uint16(value)<<4
		}
		le.PutUint16(p[off:], v)
	}
	root, data := 1024, 1536
	entry(root, "LOADER", attrFolder, 2, 0)
	entry(root+32, "FILE    TXT", 0, 3, 1200)
	set(2, 0xfff)
	set(3, 5)
	set(5, 4)
	set(4, 0xfff)
	entry(data, ".", attrFolder, 2, 0)
	long := data + 32
	p[long], p[long+11], p[long+13] = longLast|1, attrLong, sum([]byte("AN-ENT~1CON"))
	for i, c := range "an-entry.conf" {
		le.PutUint16(p[long+[]int{1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30}[i]:], uint16(c))
	}
	entry(long+32, "AN-ENT~1CON", 0, 6, 10)
	set(6, 0xfff)
	for cluster, c := range map[int]byte{3: 'a', 4: 'c', 5: 'b', 6: 'e'} {
		copy(p[data+512*(cluster-2):], bytes.Repeat([]byte{c}, 512))
	}
	return p
}

func TestSmall(t *testing.T) {
	f, err := Open(bytes.NewReader(small()))
	require.NoError(t, err)
	names, err := f.List("loader")
	require.NoError(t, err)
	require.Equal(t, []string{"an-entry.conf"}, names)
	r, err := f.Open("file.txt")
	require.NoError(t, err)
	p, err := io.ReadAll(r)
	require.NoError(t, err)
	require.Equal(t, strings.Repeat("a", 512)+strings.Repeat("b", 512)+strings.Repeat("c", 176), string(p))
	_, err = f.Open("loader/an-ent~1.con")
	require.NoError(t, err)
}

func TestRefused(t *testing.T) {
	tests := []struct {
		name   string
		damage func(p []byte)
		kind   error
	}{
		{"no jump", func(p []byte) { p[0] = 0 }, ErrNotFAT},
		{"no signature", func(p []byte) { p[510] = 0 }, ErrNotFAT},
		{"sector size", func(p []byte) { p[12] = 3 }, ErrNotFAT},
		{"cluster size", func(p []byte) { p[13] = 3 }, ErrNotFAT},
		{"no tables", func(p []byte) { p[16] = 0 }, ErrNotFAT},
		{"no room", func(p []byte) { p[19] = 3 }, ErrMalformed},
		{"wide root nowhere", func(p []byte) { clear(p[22:24]); p[36] = 1 }, ErrMalformed},
		{"first cluster outside", func(p []byte) { p[1024+32+26] = 200 }, ErrMalformed},
		{"no first cluster", func(p []byte) { p[1024+32+26] = 0 }, ErrMalformed},
		{"circle", func(p []byte) { copy(p[512+4:], "\x03\x00\x03\x00"); p[1024+32+30] = 8 }, ErrMalformed},
		{"ends early", func(p []byte) { p[512+4], p[512+5] = 0xf0|p[512+4]&0xf, 0xff }, ErrMalformed},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p := small()
			test.damage(p)
			f, err := Open(bytes.NewReader(p))
			if err == nil {
				_, err = f.Open("file.txt")
			}
			require.ErrorIs(t, err, test.kind)
		})
	}
	_, err := Open(bytes.NewReader(make([]byte, 100)))
	require.ErrorIs(t, err, ErrNotFAT)
	f, err := Open(bytes.NewReader(small()[:2000]))
	require.NoError(t, err)
	r, err := f.Open("file.txt")
	require.NoError(t, err)
	_, err = io.ReadAll(r)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
}

func FuzzFAT(f *testing.F) {
	f.Add(small()[:2048], uint16(70*512))
	wide := small()
	clear(wide[17:19])
	clear(wide[22:24])
	wide[36], wide[44] = 1, 2
	f.Add(wide[:2048], uint16(70*512))
	f.Add(small()[:1600], uint16(1600))
	f.Fuzz(func(t *testing.T, head []byte, size uint16) {
		p := make([]byte, size)
		copy(p, head)
		fs, err := Open(bytes.NewReader(p))
		if err != nil {
			return
		}
		for _, dir := range []string{"/", "loader", "loader/loader"} {
			names, err := fs.List(dir)
			require.True(t, err != nil || len(names) <= maxDir/dirEntry)
			for _, n := range names[:min(len(names), 8)] {
				_, _ = fs.Stat(dir + "/" + n)
				if r, err := fs.Open(dir + "/" + n); err == nil {
					_, _ = io.CopyN(io.Discard, r, 1<<20)
				}
			}
		}
	})
}
