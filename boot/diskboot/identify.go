package diskboot

import (
	"bytes"
	"fmt"
	"io"
)

// Image formats and compressed files that are no disks until somebody opens
// them as what they are, by their first bytes.
var foreigners = []struct{ magic, what string }{
	{"QFI\xfb", "it is a qcow2 image, opened as a raw one: say format=qcow2"},
	{"KDMV", "it is a VMDK image; convert it: qemu-img convert -O qcow2 IN OUT"},
	{"# Disk DescriptorFile", "it is the description of a VMDK image; convert that: qemu-img convert -O qcow2 IN OUT"},
	{"vhdxfile", "it is a VHDX image; convert it: qemu-img convert -O qcow2 IN OUT"},
	{"conectix", "it is a VHD image; convert it: qemu-img convert -O qcow2 IN OUT"},
	{"<<< ", "it is a VDI image; convert it: qemu-img convert -O qcow2 IN OUT"},
	{"\x1f\x8b", "it is compressed (gzip); unpack it first"},
	{"\xfd7zXZ\x00", "it is compressed (xz); unpack it first"},
	{"\x28\xb5\x2f\xfd", "it is compressed (zstd); unpack it first"},
	{"BZh", "it is compressed (bzip2); unpack it first"},
	{"PK\x03\x04", "it is a ZIP archive; unpack it first"},
	{"\x7fELF", "it is an ELF file; if it is a kernel, give it with -k instead"},
	{"0707", "it is a cpio archive; if it is an initramfs, give it with -i instead"},
}

// foreign says what a file is that is no disk, or "".
func foreign(head []byte) string {
	for _, f := range foreigners {
		if bytes.HasPrefix(head, []byte(f.magic)) {
			return f.what
		}
	}
	if len(head) >= 0x206 && string(head[0x202:0x206]) == "HdrS" {
		return "it is a kernel (bzImage); give it with -k instead"
	}
	return ""
}

// What is known by name and not read, by bytes at an offset (as blkid does). An
// UUID is sixteen bytes, where root=UUID= would have one.
var kinds = []struct {
	name  string
	off   int64
	magic string
	uuid  int64
}{
	{"xfs", 0, "XFSB", 32},
	{"btrfs", 0x10040, "_BHRfS_M", 0x10020},
	{"LUKS encryption", 0, "LUKS\xba\xbe", 0},
	{"LVM", 512 + 24, "LVM2 001", 0},
	{"LVM", 24, "LVM2 001", 0},
	{"Linux RAID", 4096, "\xfc\x4e\x2b\xa9", 0},
	{"Linux RAID", 0, "\xfc\x4e\x2b\xa9", 0},
	{"ntfs", 3, "NTFS    ", 0},
	{"exfat", 3, "EXFAT   ", 0},
	{"BitLocker encryption", 3, "-FVE-FS-", 0},
	{"squashfs", 0, "hsqs", 0},
	{"erofs", 1024, "\xe2\xe1\xf5\xe0", 0},
	{"f2fs", 1024, "\x10\x20\xf5\xf2", 0},
	{"bcachefs", 4096 + 24, "\xc6\x85\x73\xf6\x4e\x1a\x45\xca", 0},
	{"bcachefs", 4096 + 24, "\xc6\x85\x73\xf6\x66\xce\x90\xa9", 0},
	{"reiserfs", 0x10034, "ReIsEr", 0},
	{"jfs", 0x8000, "JFS1", 0},
	{"swap", 4096 - 10, "SWAPSPACE2", 0},
	{"iso9660", 0x8001, "CD001", 0},
	{"ufs", 0x1055c, "\x19\x01\x54\x19", 0},
	{"ufs", 0x255c, "\x19\x01\x54\x19", 0},
}

// identify names a file system, or what else is in a volume, by its magic number.
func identify(image io.ReaderAt) (kind, uuid string) {
	buf := make([]byte, 32)
	at := func(off int64, n int) []byte {
		k, _ := image.ReadAt(buf[:n], off)
		return buf[:k]
	}
	for _, k := range kinds {
		if string(at(k.off, len(k.magic))) != k.magic {
			continue
		}
		if u := at(k.uuid, 16); k.uuid != 0 && len(u) == 16 {
			uuid = fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
		}
		return k.name, uuid
	}
	// ZFS has a ring of uberblocks, each with a magic number, of which some are unused.
	for off := int64(128 << 10); off < 256<<10; off += 1024 {
		if m := string(at(off, 8)); m == "\x0c\xb1\xba\x00\x00\x00\x00\x00" || m == "\x00\x00\x00\x00\x00\xba\xb1\x0c" {
			return "zfs", ""
		}
	}
	return "", ""
}
