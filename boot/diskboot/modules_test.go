package diskboot

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/boot"
	"github.com/huskvm/husk/boot/modules"
)

// bzImage makes as much of a kernel as tells its version.
func bzImage(version string) string {
	b := make([]byte, 0x400)
	copy(b[0x202:], "HdrS")
	binary.LittleEndian.PutUint16(b[0x20e:], 0x100) // 0x300 in the file
	copy(b[0x300:], version+" (builder@host) #1")
	return string(b)
}

func packGzip(t testing.TB, text string) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := w.Write([]byte(text))
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return b.String()
}

func packZstd(t testing.TB, text string) string {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	require.NoError(t, err)
	return string(w.EncodeAll([]byte(text), nil))
}

func packXZ(t testing.TB, text string) string {
	t.Helper()
	need(t, "xz")
	cmd := exec.Command("xz", "--check=crc32", "-c")
	cmd.Stdin = strings.NewReader(text)
	packed, err := cmd.Output()
	require.NoError(t, err)
	return string(packed)
}

// readModules gives the content of modules and what they need, unpacked.
func readModules(t testing.TB, fsys fs.FS, names ...string) map[string]string {
	t.Helper()
	tree, err := modules.OpenFS(fsys, "the tree")
	require.NoError(t, err)
	list, err := tree.Resolve(names...)
	require.NoError(t, err)
	all := map[string]string{}
	for _, m := range list {
		b, err := m.Read()
		require.NoError(t, err)
		all[m.Name] = string(b)
	}
	return all
}

const version = "6.1.0-26-amd64"

// modulesAt are the modules of the version, in a folder.
func modulesAt(folder, dep string) tree {
	folder += "/" + version
	return tree{folder + "/modules.builtin": "kernel/lib/crc32.ko\n", folder + "/modules.dep": dep, folder + "/kernel/a.ko": "module a"}
}

func with(trees ...tree) tree {
	all := tree{}
	for _, t := range trees {
		maps.Copy(all, t)
	}
	return all
}

func TestModulesOfTheKernelThatWasFound(t *testing.T) {
	system := with(debian(t), tree{"boot/vmlinuz-" + version: bzImage(version)})
	const dep = "kernel/a.ko: kernel/b.ko.xz extra/c.ko.zst updates/d.ko.gz\n" +
		"kernel/b.ko.xz: extra/c.ko.zst\nextra/c.ko.zst:\nupdates/d.ko.gz:\n"
	at := "usr/lib/modules/" + version
	files := with(system, modulesAt("usr/lib/modules", dep), tree{
		"lib": "-> usr/lib", "usr/lib/modules/6.1.0-25-amd64/modules.builtin": "", at + "/build": "-> /usr/src/nothing",
		at + "/kernel/b.ko.xz": packXZ(t, "module b"), at + "/extra/c.ko.zst": packZstd(t, "module c"), at + "/updates/d.ko.gz": "-> /opt/d.ko.gz",
		"opt/d.ko.gz": packGzip(t, "module d"),
	})
	_, f := find1(t, disk(t, "gpt", part{"type=U", nil}, part{"type=L", files.ext4(t, rootUUID)}))
	v, err := f.Version()
	require.NoError(t, err)
	require.Equal(t, version, v)
	fsys, err := f.Modules()
	require.NoError(t, err)
	require.Equal(t, "disk.img: partition 2 (ext4): /lib/modules/"+version, fsys.String())
	require.Equal(t, map[string]string{"a": "module a", "b": "module b", "c": "module c", "d": "module d"}, readModules(t, fsys, "a", "crc32"))

	// Where depmod has not run, they are found by their files.
	files[at+"/modules.dep"] = ""
	_, f = find1(t, files.ext4(t, rootUUID))
	fsys, err = f.Modules()
	require.NoError(t, err)
	tr, err := modules.OpenFS(fsys, fsys.String())
	require.NoError(t, err)
	require.Equal(t, []string{"a", "b", "c", "d", "crc32"}, tr.Present("a", "b", "c", "d", "crc32", "e"))
	_, err = tr.Resolve("a")
	require.ErrorIs(t, err, modules.ErrModule, "it is not ELF")
	require.ErrorContains(t, err, fsys.String()+"/kernel/a.ko")
}

// Whichever volume has them, the root comes first, and without it the one that has them.
func TestWhereModulesAre(t *testing.T) {
	bootPart := tree{
		"grub/grub.cfg":      "menuentry A {\nlinux /vmlinuz-" + version + " root=UUID=" + rootUUID + " ro\n}\n",
		"vmlinuz-" + version: bzImage(version),
	}
	mods := func(folder, which string) tree {
		return with(modulesAt(folder, "kernel/a.ko:\n"), tree{folder + "/" + version + "/kernel/a.ko": which})
	}
	const xboot = "type=BC13C2FF-59E6-4262-A352-B275FD6F7172"
	btrfs := make([]byte, mib)
	copy(btrfs[0x10040:], "_BHRfS_M")
	tests := []struct {
		name  string
		parts func() []part
		want  string // the text of a
		at    string
	}{
		{"the root volume", func() []part {
			return []part{{xboot, bootPart.ext4(t, bootUUID)}, {"type=L", mods("lib/modules", "other").ext4(t, bootUUID)}, {"type=L", mods("lib/modules", "root").ext4(t, rootUUID)}}
		}, "root", "partition 3 (ext4): /lib/modules/" + version},
		{"not the boot volume's", func() []part {
			return []part{{xboot, with(bootPart, mods("lib/modules", "boot")).ext4(t, bootUUID)}, {"type=L", mods("usr/lib/modules", "root").ext4(t, rootUUID)}}
		}, "root", "partition 2 (ext4): /usr/lib/modules/" + version},
		{"the volume of /usr", func() []part {
			return []part{{xboot, bootPart.ext4(t, bootUUID)}, {"type=L", tree{"lib": "-> usr/lib", "usr/x": ""}.ext4(t, rootUUID)}, {"type=L", mods("lib/modules", "usr").ext4(t, bootUUID)}}
		}, "usr", "partition 3 (ext4): /lib/modules/" + version},
		{"nowhere", func() []part {
			return []part{{xboot, bootPart.ext4(t, bootUUID)}, {"type=L", btrfs}}
		}, "", ""},
		{"what a removed kernel left", func() []part {
			return []part{{xboot, bootPart.ext4(t, bootUUID)}, {"type=L", tree{"lib/modules/" + version + "/modules.dep": ""}.ext4(t, rootUUID)}}
		}, "", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			parts := test.parts()
			_, f := find1(t, disk(t, "gpt", parts...))
			fsys, err := f.Modules()
			if test.want == "" {
				require.ErrorIs(t, err, ErrNoModules)
				for _, says := range []string{"disk.img: ", version, "/lib/modules/VERSION", "partition 1 (ext4)", "--modules"} {
					require.ErrorContains(t, err, says)
				}
				if bytes.Equal(parts[1].content, btrfs) {
					require.ErrorContains(t, err, "not read: partition 2 (btrfs)")
				}
				return
			}
			require.NoError(t, err)
			require.Equal(t, "disk.img: "+test.at, fsys.String())
			require.Equal(t, map[string]string{"a": test.want}, readModules(t, fsys, "a"))
		})
	}
}

func TestAKernelThatDoesNotTellItsVersion(t *testing.T) {
	_, f := find1(t, debian(t).ext4(t, rootUUID))
	_, err := f.Version()
	require.ErrorIs(t, err, modules.ErrVersion)
	require.ErrorContains(t, err, "disk.img: the whole disk (ext4): /boot/vmlinuz-"+version)
	_, err = f.Modules()
	require.ErrorIs(t, err, ErrNoModules)
	require.ErrorIs(t, err, modules.ErrVersion)
	require.ErrorContains(t, err, "--modules")
}

func TestRootOf(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "ro quiet": "", "root=/dev/vda1 ro": "/dev/vda1", `ro root="UUID=x"`: "UUID=x", `"root=LABEL=a b"`: "LABEL=a b",
		"root=/dev/sda root=PARTUUID=y": "PARTUUID=y", "ro -- root=/dev/vda": "",
	} {
		require.Equal(t, want, rootOf(in), in)
	}
}

// What may be read of a tree has an end: a tree of folders may have none.
func TestTooMuchToRead(t *testing.T) {
	_, f := find1(t, with(debian(t), tree{"boot/vmlinuz-" + version: bzImage(version)}, modulesAt("lib/modules", "kernel/a.ko:\n")).ext4(t, rootUUID))
	fsys, err := f.Modules()
	require.NoError(t, err)
	reads := 0
	for ; err == nil; reads++ {
		_, err = fs.ReadFile(fsys, "kernel/a.ko")
		if reads == 10 { // the rest would take a while
			meterOf(t, f).left.Store(0)
		}
	}
	require.ErrorIs(t, err, errTooMuch)
	require.Equal(t, 12, reads)
}

// meterOf is the meter that everything of an image is read through.
func meterOf(t *testing.T, f *Found) *meter {
	t.Helper()
	m, ok := f.search.disk.ReaderAt.(*meter)
	require.True(t, ok)
	return m
}

// debianImage is a whole Debian that the tests of whole boots have made.
const debianImage = "../../build/debian/debian.raw"

func TestDebiansOwnModules(t *testing.T) {
	file, err := os.Open(debianImage)
	if err != nil {
		t.Skip("no Debian here: tests/install debian makes it")
	}
	defer file.Close()
	info, err := file.Stat()
	require.NoError(t, err)
	f, err := Find(boot.Source{Name: "debian.raw", Size: info.Size(), ReaderAt: file})
	require.NoError(t, err)
	v, err := f.Version()
	require.NoError(t, err)
	fsys, err := f.Modules()
	require.NoError(t, err)
	require.True(t, strings.HasSuffix(fsys.String(), "/lib/modules/"+v), fsys)
	got := readModules(t, fsys, "vmw_vsock_virtio_transport", "virtio_pci", "ext4")
	require.Contains(t, got, "vsock", "what the transport needs")
	for name, m := range got {
		require.True(t, strings.HasPrefix(m, "\x7fELF"), name)
		require.Contains(t, m, "vermagic="+v+" ", name)
	}

	// All of it, as where depmod has not run.
	files := 0
	require.NoError(t, fs.WalkDir(fsys, ".", func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			files++
		}
		return err
	}))
	require.Greater(t, files, 500)
}

// A maze has few folders and no end of ways through them: each can be entered from
// the one above by two names.
func TestAMaze(t *testing.T) {
	need(t, "debugfs")
	const levels = 40
	files, script := with(debian(t), tree{"boot/vmlinuz-" + version: bzImage(version)}, modulesAt("lib/modules", "")), ""
	for i := range levels {
		at := "lib/modules/" + version + strings.Repeat("/a", i)
		files[at+"/a/x"] = ""
		script = "ln " + at + "/a " + at + "/b\n" + script
	}
	image := blank(t, 4*mib)
	require.NoError(t, os.WriteFile(image, files.ext4(t, rootUUID), 0o600))
	list := blank(t, 0)
	require.NoError(t, os.WriteFile(list, []byte(script), 0o600))
	command(t, "", "debugfs", "-w", "-f", list, image)
	_, f := find1(t, content(t, image))
	fsys, err := f.Modules()
	require.NoError(t, err)
	_, err = fs.Stat(fsys, strings.Repeat("a/b/", levels/2)+"x")
	require.NoError(t, err)
	meterOf(t, f).left.Store(maxTree / 64) // all of it takes a second or two, and ten times that with -race
	_, err = modules.OpenFS(fsys, fsys.String())
	require.ErrorIs(t, err, modules.ErrTree)
	require.ErrorIs(t, err, errTooMuch)
}
