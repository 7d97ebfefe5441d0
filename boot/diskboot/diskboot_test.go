package diskboot

import (
	"io/fs"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/boot"
)

func debian(t testing.TB) tree {
	return tree{
		"etc/os-release":                 "-> ../usr/lib/os-release",
		"usr/lib/os-release":             "ID=debian",
		"boot/grub/grub.cfg":             grubText(t, "debian12.cfg"),
		"boot/vmlinuz-6.1.0-26-amd64":    "kernel 26",
		"boot/initrd.img-6.1.0-26-amd64": "initrd 26",
		"boot/vmlinuz-6.1.0-25-amd64":    "kernel 25",
		"boot/initrd.img-6.1.0-25-amd64": "initrd 25",
		"vmlinuz":                        "-> boot/vmlinuz-6.1.0-26-amd64",
		"initrd.img":                     "-> boot/initrd.img-6.1.0-26-amd64",
	}
}

func TestDebianOnGPT(t *testing.T) {
	esp := tree{"EFI/debian/grub.cfg": "search.fs_uuid " + rootUUID + " root\nconfigfile ($root)/boot/grub/grub.cfg\n"}
	image := disk(t, "gpt",
		part{"type=U", esp.vfat(t)},
		part{"type=L, uuid=" + partUUID, debian(t).ext4(t, rootUUID)})
	got, f := find1(t, image)
	require.Equal(t, found{
		"kernel 26", "initrd 26", "root=UUID=" + rootUUID + " ro quiet",
		"partition 2 (ext4), /boot/grub/grub.cfg, entry 'Debian GNU/Linux'",
	}, got)
	require.Equal(t, "disk.img: partition 2 (ext4): /boot/vmlinuz-6.1.0-26-amd64", f.Kernel.Name)
	require.Empty(t, f.Notes)
	require.Equal(t, []string{
		"boot configuration: " + f.Origin, "kernel: " + f.Kernel.Name, "initrd: " + f.Initrds[0].Name, "command line: " + f.CommandLine,
	}, f.Account())
}

func TestDebianOnMBRAndWholeDisk(t *testing.T) {
	root := debian(t).ext4(t, rootUUID, "-O", "^metadata_csum")
	want := found{"kernel 26", "initrd 26", "root=UUID=" + rootUUID + " ro quiet", ""}
	for where, image := range map[string][]byte{
		"partition 1 (ext4)":    disk(t, "dos", part{"type=83, bootable", root}),
		"partition 2 (ext4)":    disk(t, "dos", part{"type=82", nil}, part{"type=83", root}),
		"the whole disk (ext4)": root,
	} {
		got, _ := find1(t, image)
		want.origin = where + ", /boot/grub/grub.cfg, entry 'Debian GNU/Linux'"
		require.Equal(t, want, got)
	}
}

func TestUbuntuWithABootPartition(t *testing.T) {
	root := tree{"etc/os-release": "ID=ubuntu"}.ext4(t, rootUUID)
	bootPart := tree{
		"grub/grub.cfg": grubText(t, "ubuntu2404.cfg"), "vmlinuz-6.8.0-45-generic": "kernel", "microcode.cpio": "microcode+", "initrd.img-6.8.0-45-generic": "initrd",
	}.ext4(t, bootUUID)
	got, _ := find1(t, disk(t, "gpt", part{"type=L", root}, part{"type=BC13C2FF-59E6-4262-A352-B275FD6F7172", bootPart}))
	require.Equal(t, found{
		"kernel", "microcode+initrd", "root=LABEL=cloudimg-rootfs ro console=tty1 console=ttyS0 vt.handoff=7",
		"partition 2 (ext4), /grub/grub.cfg, entry 'Ubuntu'",
	}, got)
}

func fedoraEntry(version string) string {
	return strings.ReplaceAll("title Fedora Linux (V) 41\nversion V\nlinux /vmlinuz-V\ninitrd /initramfs-V.img $tuned_initrd\noptions $kernelopts x\n", "V", version)
}

// The root is btrfs, which stays closed: all that is needed is on /boot.
func TestFedora(t *testing.T) {
	btrfs := make([]byte, mib)
	copy(btrfs[0x10040:], "_BHRfS_M")
	copy(btrfs[0x10020:], "\x77\x77\x77\x77\xaa\xaa\x4b\xbb\x8c\xcc\x88\x88\x88\x88\x88\x88")
	files := tree{
		"grub2/grub.cfg": grubText(t, "fedora41.cfg"), "grub2/grubenv": "# GRUB Environment Block\nsaved_entry=m-6.9\n",
		"loader/entries/m-6.11.conf": fedoraEntry("6.11"), "loader/entries/m-6.9.conf": fedoraEntry("6.9"),
		"vmlinuz-6.11": "kernel 11", "initramfs-6.11.img": "initrd 11", "vmlinuz-6.9": "kernel 9", "initramfs-6.9.img": "initrd 9",
	}
	image := func() []byte {
		return disk(t, "gpt", part{"type=U", nil}, part{"type=L", files.ext4(t, bootUUID)}, part{"type=L", btrfs})
	}
	got, _ := find1(t, image())
	cmdline := "root=UUID=77777777-aaaa-4bbb-8ccc-888888888888 ro rootflags=subvol=root x"
	require.Equal(t, found{"kernel 9", "initrd 9", cmdline, "partition 2 (ext4), /grub2/grub.cfg, entry 'Fedora Linux (6.9) 41'"}, got)

	delete(files, "grub2/grubenv")
	got, _ = find1(t, image())
	require.Equal(t, "kernel 11", got.kernel)
	delete(files, "vmlinuz-6.11")
	got, f := find1(t, image())
	require.Equal(t, "kernel 9", got.kernel)
	require.Contains(t, strings.Join(f.Notes, "\n"), "entry 'Fedora Linux (6.11) 41' of /grub2/grub.cfg is passed over: /vmlinuz-6.11: file does not exist")

	files = tree{"vmlinuz-6.11": "kernel 11", "initramfs-6.11.img": "initrd 11"}
	got, f = find1(t, image())
	require.Equal(t, "root=UUID=77777777-aaaa-4bbb-8ccc-888888888888 ro", got.cmdline)
	require.Contains(t, strings.Join(f.Notes, "\n"), "a guess")
}

func TestSystemdBoot(t *testing.T) {
	esp := tree{
		"loader/loader.conf": "default b*\n", "loader/entries/a.conf": "title A\nlinux /a/linux\ninitrd /a/initrd\noptions root=/dev/vda2 rw\n",
		"loader/entries/b.conf": "title B\nlinux /b/linux\ninitrd /b/microcode\ninitrd /b/initrd\noptions quiet\n",
		"a/linux":               "kernel a", "a/initrd": "initrd a", "b/linux": "kernel b", "b/microcode": "m", "b/initrd": "initrd b",
	}.vfat(t)
	image := disk(t, "gpt", part{"type=L, uuid=" + partUUID, debian(t).ext4(t, rootUUID)}, part{"type=U", esp})
	got, f := find1(t, image)
	require.Equal(t, found{
		"kernel b", "minitrd b", "quiet root=UUID=" + rootUUID + " ro",
		"partition 2 (vfat), /loader/entries/b.conf, entry 'B'",
	}, got)
	require.Contains(t, f.Notes[0], "does not say root=")
}

func TestExtlinux(t *testing.T) {
	files := tree{
		"etc/os-release": "ID=alpine", "boot/vmlinuz-virt": "kernel", "boot/initramfs-virt": "initrd",
		"boot/extlinux.conf": "DEFAULT virt\nLABEL virt\n MENU LABEL Linux virt\n LINUX vmlinuz-virt\n INITRD initramfs-virt\n APPEND root=UUID=x modules=ext4\n",
	}
	got, _ := find1(t, disk(t, "dos", part{"type=83", files.ext4(t, rootUUID)}))
	require.Equal(t, found{"kernel", "initrd", "root=UUID=x modules=ext4", "partition 1 (ext4), /boot/extlinux.conf, entry 'Linux virt'"}, got)

	// /boot is a partition of its own, and the configuration does not know it.
	bootPart := tree{"extlinux/extlinux.conf": "default l0\nlabel l0\nlinux /boot/vmlinuz\nappend ro", "vmlinuz": "kernel"}
	got, _ = find1(t, disk(t, "gpt", part{"type=L", bootPart.ext4(t, bootUUID)}, part{"type=L, uuid=" + partUUID, tree{"etc/os-release": ""}.ext4(t, rootUUID)}))
	require.Equal(t, found{"kernel", "", "ro root=PARTUUID=" + partUUID + " ro", "partition 1 (ext4), /extlinux/extlinux.conf, entry 'l0'"}, got)
}

func TestNoLoader(t *testing.T) {
	files := debian(t)
	delete(files, "boot/grub/grub.cfg")
	files["boot/vmlinuz-6.1.0-9-amd64"] = "kernel 9"
	files["boot/vmlinuz-6.1.0-27-amd64.old"] = "no"
	files["boot/vmlinuz-6.1.0-28-amd64"] = "-> nothing"
	got, f := find1(t, files.ext4(t, rootUUID))
	require.Equal(t, found{"kernel 26", "initrd 26", "root=UUID=" + rootUUID + " ro", "the whole disk (ext4), no loader's configuration, the newest kernel of /boot"}, got)
	require.Contains(t, strings.Join(f.Notes, "\n"), "/boot/vmlinuz-6.1.0-28-amd64")

	delete(files, "boot/initrd.img-6.1.0-26-amd64")
	got, f = find1(t, files.ext4(t, rootUUID))
	require.Equal(t, "root=/dev/vda ro", got.cmdline)
	require.Contains(t, strings.Join(f.Notes, "\n"), "there is no initrd for /boot/vmlinuz-6.1.0-26-amd64")
	got, _ = find1(t, disk(t, "dos\nlabel-id: 0xcafe0001", part{"type=83", files.ext4(t, rootUUID)}))
	require.Equal(t, "root=PARTUUID=cafe0001-01 ro", got.cmdline)

	got, _ = find1(t, tree{"vmlinuz": "kernel", "initrd.img": "initrd", "etc/os-release": ""}.ext4(t, rootUUID))
	require.Equal(t, found{"kernel", "initrd", "root=UUID=" + rootUUID + " ro", "the whole disk (ext4), no loader's configuration, the newest kernel of /"}, got)
}

func TestNotes(t *testing.T) {
	files := debian(t)
	files["boot/grub/grub.cfg"] = "menuentry 'a\x1b[2Jb' { linux /boot/vmlinuz-6.1.0-25-amd64 root=x }"
	root := files.ext4(t, rootUUID)
	root[1024+0x60] |= 4 // needs recovery
	got, f := find1(t, root)
	require.Equal(t, "the whole disk (ext4), /boot/grub/grub.cfg, entry 'a?[2Jb'", got.origin)
	require.Contains(t, f.Notes[0], "was not unmounted")

	files["boot/grub/grub.cfg"] = "menuentry a { linux /boot/vmlinuz-6.1.0-25-amd64 root=/dev/sda1; }"
	got, f = find1(t, files.ext4(t, rootUUID))
	require.Equal(t, "root=/dev/sda1", got.cmdline)
	require.Contains(t, f.Notes[0], "a virtio disk is /dev/vda")

	files["boot/grub/grub.cfg"] = "menuentry a {"
	got, f = find1(t, files.ext4(t, rootUUID))
	require.Equal(t, "kernel 26", got.kernel)
	require.Contains(t, f.Notes[0], "the text ends inside a block")
}

func TestNothing(t *testing.T) {
	magic := func(off int, magic string) []byte {
		p := make([]byte, mib)
		copy(p[off:], magic)
		return p
	}
	crypt := debian(t).ext4(t, rootUUID)
	crypt[1024+0x60] |= 1
	tests := []struct {
		name  string
		image func() []byte
		kind  error
		says  []string
	}{
		{"empty", func() []byte { return nil }, ErrNotDisk, []string{"it is empty"}},
		{"a few bytes", func() []byte { return []byte("hello") }, ErrNotDisk, []string{"neither a partition table nor a file system"}},
		{"zeros", func() []byte { return make([]byte, mib) }, ErrNotDisk, []string{"neither"}},
		{"qcow2", func() []byte { return magic(0, "QFI\xfb") }, ErrNotDisk, []string{"format=qcow2"}},
		{"gzip", func() []byte { return magic(0, "\x1f\x8b") }, ErrNotDisk, []string{"unpack it first"}},
		{"kernel", func() []byte { return magic(0x202, "HdrS") }, ErrNotDisk, []string{"bzImage"}},
		{"xfs", func() []byte { return magic(0, "XFSB") }, ErrNoFileSystem, []string{"the whole disk (xfs)"}},
		{"zfs", func() []byte { return magic(128<<10+4096, "\x0c\xb1\xba\x00\x00\x00\x00\x00") }, ErrNoFileSystem, []string{"zfs"}},
		{"a feature", func() []byte { return crypt }, ErrNoFileSystem, []string{"the whole disk (ext4)", "compression"}},
		{"partitions", func() []byte {
			return disk(t, "gpt", part{"type=L", magic(0, "XFSB")}, part{"type=L", magic(0x10040, "_BHRfS_M")},
				part{"type=L", magic(512+24, "LVM2 001")}, part{"type=L", magic(0, "LUKS\xba\xbe")}, part{"type=L", magic(3, "NTFS    ")}, part{"type=L", nil})
		}, ErrNoFileSystem, []string{"partition 1 (xfs), partition 2 (btrfs), partition 3 (LVM), partition 4 (LUKS encryption), partition 5 (ntfs), partition 6 of an unknown kind"}},
		{"an empty table", func() []byte { return disk(t, "gpt") }, ErrNoFileSystem, []string{"partition table (gpt) is empty"}},
		{"no kernel", func() []byte {
			return disk(t, "gpt", part{"type=L", tree{"boot/x": ""}.ext4(t, rootUUID)}, part{"type=L", magic(0, "LUKS\xba\xbe")})
		}, ErrNoKernel, []string{"partition 1 (ext4) for /boot/vmlinuz-*", "GRUB, systemd-boot (BLS) and syslinux", "not read: partition 2 (LUKS encryption)"}},
		{"a unified kernel image", func() []byte {
			return disk(t, "gpt", part{"type=U", tree{"EFI/Linux/debian.efi": "MZ"}.vfat(t)})
		}, ErrNoKernel, []string{"unified kernel images"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := Find(source(test.image()))
			require.ErrorIs(t, err, test.kind)
			for _, says := range append(test.says, "disk.img: ", "-k KERNEL -i INITRD") {
				require.ErrorContains(t, err, says)
			}
		})
	}
	_, err := Find(boot.Source{Name: "bad", Size: mib, ReaderAt: failing{}})
	require.ErrorIs(t, err, fs.ErrPermission)
}

type failing struct{}

func (failing) ReadAt([]byte, int64) (int, error) { return 0, fs.ErrPermission }

func TestAddConsole(t *testing.T) {
	for in, want := range map[string]string{
		"":                                  "console=ttyS0",
		"root=/dev/vda ro quiet splash":     "root=/dev/vda ro quiet splash console=ttyS0",
		"console=ttyS0,115200 console=tty0": "console=ttyS0,115200 console=tty0 console=ttyS0",
		"console=tty0 console=ttyS0,115200": "console=tty0 console=ttyS0,115200",
		"console=ttyS1":                     "console=ttyS1 console=ttyS0",
		`a="b c" -- console=x --`:           `a="b c" console=ttyS0 -- console=x --`,
		`a="b -- c"`:                        `a="b -- c" console=ttyS0`,
		`"console=ttyS0"`:                   `"console=ttyS0"`,
	} {
		require.Equal(t, want, AddConsole(in, "ttyS0"), in)
	}
	require.Equal(t, "ro console=ttyS0,9600", AddConsole("ro", "ttyS0,9600"))
	require.Equal(t, "console=ttyS0 console=tty0 console=ttyS0", AddConsole("console=ttyS0 console=tty0", "ttyS0,9600"))
}
