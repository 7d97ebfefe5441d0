package ext4

import (
	"bytes"
	"compress/gzip"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/boot/diskboot/imagefs"
)

var update = flag.Bool("update", false, "make the images under testdata again, with mke2fs and e2fsck")

// goldens are small file systems, for tests without tools and as seeds.
var goldens = []struct {
	name string
	size int64
	args []string
}{
	{"extents", 256 << 10, []string{"-t", "ext4", "-b", "1024", "-O", "^has_journal,^resize_inode,64bit", "-N", "32"}},
	{"inline", 256 << 10, []string{"-t", "ext4", "-b", "1024", "-O", "^has_journal,^resize_inode,inline_data,metadata_csum", "-I", "256", "-N", "32"}},
	{"blockmap", 256 << 10, []string{"-t", "ext2", "-b", "1024", "-I", "128", "-N", "32"}},
	{"metabg", 1 << 20, []string{"-t", "ext4", "-b", "1024", "-O", "^has_journal,^resize_inode,meta_bg", "-g", "256", "-N", "64"}},
}

// goldenFiles is what all of them have.
func goldenFiles() map[string][]byte {
	pieces := make([]byte, 100<<10) // every other KiB is a hole: a tree of extents
	for i := 0; i < len(pieces); i += 2048 {
		copy(pieces[i:], fmt.Sprint("piece ", i))
	}
	pieces[len(pieces)-1] = 'e'
	return map[string][]byte{
		"boot/vmlinuz-6.1.0-9-amd64":    bytes.Repeat([]byte("kernel\n"), 3000),
		"boot/initrd.img-6.1.0-9-amd64": bytes.Repeat([]byte("initrd\n"), 300),
		"etc/os-release":                []byte("NAME=\"A small system\"\n"),
		"pieces":                        pieces,
		"a-hundred":                     bytes.Repeat([]byte("0123456789"), 10),
	}
}

var goldenLinks = map[string]string{
	"vmlinuz": "boot/vmlinuz-6.1.0-9-amd64",
	"slow":    "/" + strings.Repeat("./", 50) + "boot/vmlinuz-6.1.0-9-amd64",
	"loop":    "loop",
}

func golden(t testing.TB, name string) []byte {
	t.Helper()
	file, err := os.Open(filepath.Join("testdata", name+".img.gz"))
	require.NoError(t, err)
	defer file.Close()
	r, err := gzip.NewReader(file)
	require.NoError(t, err)
	image, err := io.ReadAll(r)
	require.NoError(t, err)
	return image
}

func TestGoldens(t *testing.T) {
	if *update {
		makeGoldens(t)
	}
	for _, g := range goldens {
		t.Run(g.name, func(t *testing.T) {
			f, err := Open(bytes.NewReader(golden(t, g.name)))
			require.NoError(t, err)
			for name, want := range goldenFiles() {
				require.Equal(t, want, content(t, f, name), name)
			}
			for name, target := range goldenLinks {
				if name == target {
					_, err := f.Open(name)
					require.ErrorIs(t, err, ErrMalformed)
					continue
				}
				require.Equal(t, content(t, f, target), content(t, f, name), name)
			}
			// Of a whole one, TestFS would stumble over the loop.
			require.NoError(t, fstest.TestFS(imagefs.New(f, "/boot", ""), "vmlinuz-6.1.0-9-amd64", "initrd.img-6.1.0-9-amd64"))
			names, err := f.List("boot")
			require.NoError(t, err)
			require.Equal(t, []string{"initrd.img-6.1.0-9-amd64", "vmlinuz-6.1.0-9-amd64"}, names)
		})
	}
}

func content(t testing.TB, f *FS, name string) []byte {
	t.Helper()
	r, err := f.Open(name)
	require.NoError(t, err)
	p, err := io.ReadAll(r)
	require.NoError(t, err)
	return p
}

func makeGoldens(t *testing.T) {
	need(t, "mke2fs", "e2fsck")
	tree := t.TempDir()
	for name, content := range goldenFiles() {
		path := filepath.Join(tree, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		file, err := os.Create(path)
		require.NoError(t, err)
		for off := 0; off < len(content); off += 1024 { // keeps the holes
			piece := content[off:min(off+1024, len(content))]
			if len(bytes.Trim(piece, "\x00")) > 0 {
				_, err := file.WriteAt(piece, int64(off))
				require.NoError(t, err)
			}
		}
		require.NoError(t, file.Close())
	}
	for name, target := range goldenLinks {
		require.NoError(t, os.Symlink(target, filepath.Join(tree, name)))
	}
	require.NoError(t, os.MkdirAll("testdata", 0o755))
	for _, g := range goldens {
		image := mke2fs(t, tree, g.size, append(g.args, "-U", "01234567-89ab-4cde-8f01-23456789abcd")...)
		_ = exec.Command("e2fsck", "-fyD", image).Run()
		p, err := os.ReadFile(image)
		require.NoError(t, err)
		var b bytes.Buffer
		w, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
		require.NoError(t, err)
		_, err = w.Write(p)
		require.NoError(t, err)
		require.NoError(t, w.Close())
		require.NoError(t, os.WriteFile(filepath.Join("testdata", g.name+".img.gz"), b.Bytes(), 0o644))
	}
}
