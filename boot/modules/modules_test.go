package modules

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"encoding/binary"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"
)

// ko makes a module file: an ELF file with little more than a .modinfo.
func ko(info string) []byte {
	names := "\x00.modinfo\x00.shstrtab\x00"
	header := elf.Header64{
		Ident: [16]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), 1},
		Type:  uint16(elf.ET_REL), Machine: uint16(elf.EM_X86_64), Version: 1,
		Ehsize: 64, Shentsize: 64, Shnum: 3, Shstrndx: 2,
		Shoff: uint64(64 + len(info) + len(names)),
	}
	var b bytes.Buffer
	put := func(v any) { _ = binary.Write(&b, binary.LittleEndian, v) }
	put(header)
	b.WriteString(info + names)
	put(elf.Section64{})
	put(elf.Section64{Name: 1, Type: uint32(elf.SHT_PROGBITS), Off: 64, Size: uint64(len(info))})
	put(elf.Section64{Name: 10, Type: uint32(elf.SHT_STRTAB), Off: uint64(64 + len(info)), Size: uint64(len(names))})
	return b.Bytes()
}

// tree makes a folder of modules without depmod's files.
func tree(t *testing.T, files map[string][]byte) string {
	t.Helper()
	root := t.TempDir()
	builtin := "kernel/lib/crc32.ko\nkernel/drivers/virtio/virtio-mem.ko\n"
	require.NoError(t, os.WriteFile(filepath.Join(root, "modules.builtin"), []byte(builtin), 0o644))
	for name, content := range files {
		name = filepath.Join(root, "kernel", name)
		require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o755))
		require.NoError(t, os.WriteFile(name, content, 0o644))
	}
	return root
}

func names(list []Module) []string {
	var names []string
	for _, m := range list {
		names = append(names, m.Name)
	}
	return names
}

func packGzip(t *testing.T, b []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, err := w.Write(b)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return out.Bytes()
}

func packZstd(t *testing.T, b []byte) []byte {
	w, err := zstd.NewWriter(nil)
	require.NoError(t, err)
	return w.EncodeAll(b, nil)
}

func TestResolveWithoutDepmod(t *testing.T) {
	root := tree(t, map[string][]byte{
		"net/9p/9pnet.ko":        ko("license=GPL\x00depends=\x00"),
		"net/9p/9pnet_virtio.ko": ko("depends=virtio,virtio_ring,9pnet\x00name=9pnet_virtio\x00"),
		"virtio/virtio.ko.gz":    packGzip(t, ko("depends=\x00")),
		"virtio/virtio_ring.ko":  ko("depends=virtio,crc32\x00"),
		"fs/netfs.ko.zst":        packZstd(t, ko("depends=\x00")),
		"fs/9p/9p.ko":            ko("depends=9pnet,netfs\x00"),
		"fs/over-lay.ko":         ko("depends=virtio-ring\x00"),
	})
	tr, err := Open(root)
	require.NoError(t, err)

	list, err := tr.Resolve("9pnet-virtio", "9p", "crc32", "virtio_mem", "9p")
	require.NoError(t, err)
	require.Equal(t, []string{"virtio", "virtio_ring", "9pnet", "9pnet_virtio", "netfs", "9p"}, names(list))
	require.Equal(t, "kernel/virtio/virtio.ko.gz", list[0].Path)
	for _, m := range list {
		b, err := m.Read()
		require.NoError(t, err)
		require.True(t, bytes.HasPrefix(b, []byte("\x7fELF")), "%s is unpacked", m.Name)
	}

	list, err = tr.Resolve("over_lay")
	require.NoError(t, err)
	require.Equal(t, []string{"virtio", "virtio_ring", "over_lay"}, names(list))

	require.True(t, tr.Has("over_lay"))
	require.True(t, tr.Has("virtio-mem"), "built in")
	require.False(t, tr.Has("ext4"))
}

// What depmod says is taken: the files need not even be modules.
func TestResolveByModulesDep(t *testing.T) {
	root := tree(t, map[string][]byte{"a.ko": nil, "b.ko": nil, "c.ko.xz": nil})
	dep := "kernel/a.ko: kernel/b.ko kernel/c.ko.xz\nkernel/b.ko: kernel/c.ko.xz\nkernel/c.ko.xz:\n"
	require.NoError(t, os.WriteFile(filepath.Join(root, "modules.dep"), []byte(dep), 0o644))
	tr, err := Open(root)
	require.NoError(t, err)
	list, err := tr.Resolve("a")
	require.NoError(t, err)
	require.Equal(t, []string{"c", "b", "a"}, names(list))
	require.Equal(t, filepath.Join(root, "kernel/c.ko.xz"), list[0].File)
}

func TestXZ(t *testing.T) {
	if _, err := exec.LookPath("xz"); err != nil {
		t.Skip("xz is not installed")
	}
	cmd := exec.Command("xz", "--check=crc32", "-c")
	cmd.Stdin = bytes.NewReader(ko("depends=\x00"))
	packed, err := cmd.Output()
	require.NoError(t, err)
	tr, err := Open(tree(t, map[string][]byte{"x.ko.xz": packed}))
	require.NoError(t, err)
	list, err := tr.Resolve("x")
	require.NoError(t, err)
	b, err := list[0].Read()
	require.NoError(t, err)
	require.Equal(t, ko("depends=\x00"), b)
}

func TestRefusals(t *testing.T) {
	root := tree(t, map[string][]byte{
		"needs.ko":   ko("depends=absent\x00"),
		"loop.ko":    ko("depends=pool\x00"),
		"pool.ko":    ko("depends=loop\x00"),
		"text.ko":    []byte("not an ELF file"),
		"bare.ko":    bytes.Replace(ko("x"), []byte(".modinfo"), []byte(".nothing"), 1),
		"broken.ko":  ko("depends=\x00")[:80],
		"broken2.ko": nil,
		"cut.ko.gz":  packGzip(t, ko("depends=\x00"))[:20],
	})
	tr, err := Open(root)
	require.NoError(t, err)
	tests := []struct {
		name, module string
		want         error
		text         string
	}{
		{"absent", "ext4", ErrNotFound, "ext4 (looked in " + root + ")"},
		{"a dependency absent", "needs", ErrNotFound, "needs needs absent: "},
		{"a loop", "loop", ErrModule, "it depends on itself"},
		{"not ELF", "text", ErrModule, filepath.Join(root, "kernel/text.ko")},
		{"no modinfo", "bare", ErrModule, ".modinfo"},
		{"cut short", "broken", ErrModule, "broken.ko"},
		{"empty", "broken2", ErrModule, "broken2.ko"},
		{"badly packed", "cut", ErrModule, "cut.ko.gz"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := tr.Resolve(tt.module)
			require.ErrorIs(t, err, tt.want)
			require.ErrorContains(t, err, tt.text)
		})
	}
	t.Run("no tree", func(t *testing.T) {
		_, err := Open(filepath.Join(root, "kernel"))
		require.ErrorIs(t, err, ErrTree)
	})
}

// bzImage makes as much of a kernel image as tells its version.
func bzImage(version string) []byte {
	b := make([]byte, 0x400)
	copy(b[headerMagic:], "HdrS")
	binary.LittleEndian.PutUint16(b[headerVersion:], 0x100) // 0x300 in the file
	copy(b[0x300:], version)
	return b
}

func TestVersion(t *testing.T) {
	v, err := Version(bytes.NewReader(bzImage("6.1.0-99-amd64 (builder@host) #1 SMP")))
	require.NoError(t, err)
	require.Equal(t, "6.1.0-99-amd64", v)
	for name, b := range map[string][]byte{
		"empty": nil, "short": make([]byte, 0x100), "no kernel": make([]byte, 0x400),
		"no version": bzImage(""), "a path": bzImage("../../etc x"), "a folder above": bzImage(".. x"), "escapes": bzImage("6\x1b[2J x"), "endless": bzImage(string(bytes.Repeat([]byte("6"), 0x100))),
	} {
		_, err := Version(bytes.NewReader(b))
		require.ErrorIs(t, err, ErrVersion, name)
	}
}

func TestVersionOfAnELFFile(t *testing.T) {
	for _, at := range []int{0x400, 1<<20 - 5, 1<<20 - 40, 3 << 20} { // at and across the ends of what is read at once
		b := make([]byte, 4<<20)
		copy(b, "\x7fELF")
		copy(b[0x300:], "Linux version %s (%s)\x00")
		copy(b[at:], "Linux version 6.19.0-rc1 (builder@host) #1\x00")
		v, err := Version(bytes.NewReader(b))
		require.NoError(t, err, at)
		require.Equal(t, "6.19.0-rc1", v)
	}
	_, err := Version(bytes.NewReader(append([]byte("\x7fELF"), make([]byte, 3<<20)...)))
	require.ErrorIs(t, err, ErrVersion)
}

func TestForFindsTheTreeOfAnUnpackedPackage(t *testing.T) {
	root := t.TempDir()
	lib := filepath.Join(root, "lib/modules/6.6.6-test")
	require.NoError(t, os.MkdirAll(lib, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(lib, "modules.builtin"), nil, 0o644))
	require.NoError(t, os.MkdirAll(filepath.Join(root, "boot"), 0o755))
	kernel := filepath.Join(root, "boot/vmlinuz-6.6.6-test")
	require.NoError(t, os.WriteFile(kernel, bzImage("6.6.6-test x"), 0o644))
	link := filepath.Join(root, "vmlinuz")
	require.NoError(t, os.Symlink("boot/vmlinuz-6.6.6-test", link))

	for _, name := range []string{kernel, link} {
		tr, err := For(name, "")
		require.NoError(t, err)
		require.Equal(t, lib, filepath.Clean(tr.root))
	}
	for _, dir := range []string{lib, filepath.Dir(lib), root} {
		tr, err := For(kernel, dir)
		require.NoError(t, err)
		require.Equal(t, lib, filepath.Clean(tr.root))
	}
	_, err := For(kernel, t.TempDir())
	require.ErrorIs(t, err, ErrTree)
	require.NoError(t, os.RemoveAll(lib))
	_, err = For(kernel, "")
	require.ErrorIs(t, err, ErrTree)
	require.ErrorContains(t, err, "6.6.6-test")
}

func FuzzModinfo(f *testing.F) {
	f.Add(ko("license=GPL\x00depends=a,b-c,,d\x00"))
	f.Add(ko(""))
	f.Fuzz(func(t *testing.T, b []byte) {
		info, err := modinfo(b)
		if err != nil {
			return
		}
		require.LessOrEqual(t, len(info), len(b))
		for _, name := range dependsOf(info) {
			require.NotEmpty(t, name)
			require.NotContains(t, name, "-")
		}
	})
}

func FuzzVersion(f *testing.F) {
	f.Add(bzImage("6.1.0-99-amd64 (x)"))
	f.Add(append([]byte("\x7fELF"), bytes.Repeat([]byte("Linux version 6.1 \x00"), 40)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := Version(bytes.NewReader(b))
		if err == nil {
			require.True(t, fs.ValidPath(v) && plain(v), v)
			require.NotContains(t, v, "/")
		}
	})
}
