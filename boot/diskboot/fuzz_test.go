package diskboot

import (
	"bytes"
	"compress/gzip"
	"errors"
	"flag"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/boot/modules"
)

var update = flag.Bool("update", false, "make testdata/disk.img.gz again, with sfdisk, mke2fs and mkfs.vfat")

const goldenFile = "testdata/disk.img.gz"

// makeGolden makes a small disk with all that Find reads: the fuzzer's seed.
func makeGolden(t *testing.T) {
	need(t, "sfdisk", "mke2fs")
	files := tree{
		"boot/grub/grub.cfg":          "if [ -s $prefix/grubenv ]; then load_env; fi\nset default=$saved_entry\nmenuentry A --id a {\nsearch --fs-uuid --set=root " + rootUUID + "\nlinux /boot/vmlinuz-6.1 root=UUID=" + rootUUID + " ro\ninitrd /initrd.img\n}\nblscfg\n",
		"boot/grub/grubenv":           "# GRUB Environment Block\nsaved_entry=a\n",
		"loader/entries/b.conf":       "title B\nlinux /boot/vmlinuz-6.1\ninitrd /initrd.img\noptions x\n",
		"boot/extlinux/extlinux.conf": "DEFAULT c\nLABEL c\nLINUX ../vmlinuz-6.1\nINITRD ../initrd.img-6.1\n",
		"boot/vmlinuz-6.1":            bzImage("6.1"), "boot/initrd.img-6.1": "initrd", "initrd.img": "-> boot/initrd.img-6.1", "etc/os-release": "ID=x",
		"lib":                               "-> usr/lib",
		"usr/lib/modules/6.1/modules.dep":   "kernel/a.ko: extra/b.ko.gz\nextra/b.ko.gz:\n",
		"usr/lib/modules/6.1/kernel/a.ko":   "module a",
		"usr/lib/modules/6.1/kernel/c.ko":   "-> a.ko",
		"usr/lib/modules/6.1/extra/b.ko.gz": packGzip(t, "module b"), "usr/lib/modules/6.1/modules.builtin": "",
	}
	path := blank(t, 256<<10)
	command(t, "", "mke2fs", "-q", "-F", "-t", "ext4", "-b", "1024", "-O", "^has_journal,^resize_inode", "-N", "48", "-U", rootUUID, "-d", files.write(t), path)
	image := blank(t, 512<<10)
	command(t, "label: gpt\nlabel-id: "+bootUUID+"\nstart=64, size=512, type=L, uuid="+partUUID+"\n", "sfdisk", "-q", image)
	disk := content(t, image)
	copy(disk[64*512:], content(t, path))
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	require.NoError(t, err)
	_, err = w.Write(disk)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	require.NoError(t, os.MkdirAll(filepath.Dir(goldenFile), 0o755))
	require.NoError(t, os.WriteFile(goldenFile, b.Bytes(), 0o644))
}

func golden(t testing.TB) []byte {
	t.Helper()
	r, err := gzip.NewReader(bytes.NewReader(content(t, goldenFile)))
	require.NoError(t, err)
	p, err := io.ReadAll(r)
	require.NoError(t, err)
	return p
}

func TestGolden(t *testing.T) {
	if *update {
		makeGolden(t)
	}
	image := golden(t)
	got, f := find1(t, image)
	require.Equal(t, found{bzImage("6.1"), "initrd", "root=UUID=" + rootUUID + " ro", "partition 1 (ext4), /boot/grub/grub.cfg, entry 'A'"}, got)
	require.Empty(t, f.Notes)
	fsys, err := f.Modules()
	require.NoError(t, err)
	require.NoError(t, fstest.TestFS(fsys, "modules.builtin", "modules.dep", "kernel/a.ko", "kernel/c.ko", "extra/b.ko.gz"))
	require.Equal(t, map[string]string{"b": "module b", "a": "module a"}, readModules(t, fsys, "a"))

	copy(image[bytes.Index(image, []byte("saved_entry=a")):], "saved_entry=b")
	got, _ = find1(t, image)
	require.Equal(t, "partition 1 (ext4), /boot/grub/grub.cfg, entry 'B'", got.origin)
}

// patch writes pieces over an image: an offset of three bytes, a length of one,
// and that many bytes.
func patch(image, patches []byte) {
	for len(patches) > 4 {
		off := int(patches[0]) | int(patches[1])<<8 | int(patches[2])<<16
		n := min(int(patches[3]), len(patches)-4)
		copy(image[off%len(image):], patches[4:4+n])
		patches = patches[4+n:]
	}
}

func FuzzFind(f *testing.F) {
	image := golden(f)
	seed := func(off int, p []byte) {
		p = p[:min(len(p), 255)]
		f.Add(append([]byte{byte(off), byte(off >> 8), byte(off >> 16), byte(len(p))}, p...), len(image))
	}
	for _, what := range []string{"EFI PART", "if [ -s", "# GRUB Env", "title B", "DEFAULT c", "grub.cfg", "vmlinuz-6.1", "HdrS", "kernel/a.ko: ", "module a", "modules.dep"} {
		off := bytes.Index(image, []byte(what))
		require.Positive(f, off, what)
		seed(off, image[off:])
	}
	seed(446, image[446:512])
	seed(64*512+1024, image[64*512+1024:])
	seed(446+4, []byte{0x83})
	for off := 0; ; off++ { // every inode's extents
		k := bytes.Index(image[off:], []byte{0x0a, 0xf3})
		if k < 0 {
			break
		}
		off += k
		seed(off, image[off:off+60])
	}
	f.Fuzz(func(t *testing.T, patches []byte, size int) {
		p := bytes.Clone(image)
		patch(p, patches)
		p = p[:max(0, min(size, len(p)))]
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		found, err := Find(source(p))
		runtime.ReadMemStats(&after)
		require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(256<<20))
		if err != nil {
			require.ErrorContains(t, err, "disk.img: ")
			require.False(t, strings.ContainsAny(err.Error(), "\x00\x1b\n"))
			return
		}
		for _, line := range append(found.Notes, found.Origin, found.Kernel.Name) {
			require.False(t, strings.ContainsAny(line, "\x00\x1b\n"))
		}
		_, _ = io.CopyN(io.Discard, io.NewSectionReader(found.Kernel, 0, found.Kernel.Size), 1<<16)
		lookAtModules(t, found)
	})
}

// lookAtModules reads whatever an image has for modules.
func lookAtModules(t *testing.T, found *Found) {
	fsys, err := found.Modules()
	if err != nil {
		require.ErrorIs(t, err, ErrNoModules)
		require.False(t, strings.ContainsAny(err.Error(), "\x00\x1b\n"))
		return
	}
	require.False(t, strings.ContainsAny(fsys.String(), "\x00\x1b\n"))
	files := 0
	_ = fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		require.True(t, fs.ValidPath(name))
		if files++; err != nil || files > 1000 {
			return fs.SkipAll
		}
		_, _ = fsys.Stat(name)
		_, _ = fsys.Lstat(name)
		if d.Type()&fs.ModeSymlink != 0 {
			_, _ = fsys.ReadLink(name)
		}
		return nil
	})
	tree, err := modules.OpenFS(fsys, fsys.String())
	if err != nil {
		require.ErrorIs(t, err, modules.ErrTree)
		return
	}
	for _, name := range []string{"a", "b", "c"} {
		list, err := tree.Resolve(name)
		require.True(t, err == nil || errors.Is(err, modules.ErrModule) || errors.Is(err, modules.ErrNotFound), err)
		for _, m := range list {
			_, _ = m.Read()
		}
	}
}
