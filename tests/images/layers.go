package images

import (
	"strings"

	"github.com/google/go-containerregistry/pkg/compression"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// The odd users: one without a home, one whose number does not fit 31 bits, one named
// like a number, one whose group is in no file; alice is in three groups, and root in
// two.
const (
	passwd = `root:x:0:0:root:/root:/bin/sh
alice:x:1000:1000:Alice:/home/alice:/bin/sh
nohome:x:1001:1001:::/bin/sh
huge:x:4294967294:4294967294::/:/bin/sh
1234:x:1777:1777:a name that looks like a number:/tmp:/bin/sh
nogroup:x:1003:4242:its group is not in the file:/nowhere:/bin/sh
`
	group = `root:x:0:
alice:x:1000:
staff:x:50:alice
audio:x:29:alice,root
nohome:x:1001:
huge:x:4294967294:huge
1234:x:1777:
5678:x:1888:
`
)

// system is the layer that the images on busybox have in common: its programs in
// /bin, users, and files that are programs only at first sight.
func (b Busybox) system() (v1.Layer, error) {
	t := newTree()
	for _, d := range []string{"bin", "etc", "home", "usr", "usr/bin", "var", "data", "mnt"} {
		t.dir(d, 0o755)
	}
	t.dir("root", 0o700)
	t.dir("tmp", 0o1777)
	t.dir("home/alice", 0o755, owner(1000, 1000))
	t.dir("secret", 0o700)
	t.file("secret/program", 0o755, "#!/bin/sh\necho secret\n")
	t.file("bin/busybox", 0o755, b.program)
	for _, name := range b.applets {
		if name != "busybox" {
			t.symlink("bin/"+name, "busybox")
		}
	}
	t.file("etc/passwd", 0o644, passwd)
	t.file("etc/group", 0o644, group)
	t.file("etc/no-x-bit", 0o644, "#!/bin/sh\necho must not run\n")
	t.file("bin/not-a-program", 0o755, "not a program")
	t.file("bin/no-interpreter", 0o755, "#!/no/such/interpreter\n")
	t.file("bin/no-shebang", 0o755, "echo no shebang\n")
	t.file("bin/empty", 0o755, "")
	t.file("bin/script", 0o755, "#!/bin/sh\necho script \"$0\" \"$@\"\n")
	t.file("bin/elsewhere", 0o700, "#!/bin/sh\necho for root alone\n")
	return t.layer(compression.GZip)
}

// Names of files in the odd layers.
var (
	LongName = strings.Repeat("n", 255)                                          // as long as Linux has them
	LongPath = "long/" + strings.Repeat(strings.Repeat("d", 99)+"/", 7) + "file" // longer than a tar header has room for
	RawName  = "raw-\xff\xfe-name"                                               // no UTF-8
)

// SparseSize is that of /odd/sparse, in bytes; nearly all of it is a hole.
const SparseSize = 96 << 20

// Capability is what the odd image's /odd/capable may do: cap_net_bind_service+ep, as
// the kernel keeps it in security.capability (uapi/linux/capability.h, VFS_CAP_REVISION_2).
const Capability = "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// oddLayers are three layers that change each other's files in every way there is.
func oddLayers() ([]v1.Layer, error) {
	return layers(
		compressed{lowest(), compression.GZip}, compressed{middle(), compression.GZip}, compressed{highest(), compression.GZip},
	)
}

// mixedLayers are the same, each compressed in a way of its own, and with what Docker's
// storage drivers disagree about: a hard link to a file of a layer below, which overlay2
// cannot make; and a folder that the same layer removes and makes, in which overlay2
// leaves the old files.
func mixedLayers() ([]v1.Layer, error) {
	mid, high := middle(), highest()
	mid.link("odd/linked-3", "odd/linked")
	high.remove("odd/file-to-dir")
	high.dir("odd/file-to-dir", 0o700)
	high.file("odd/file-to-dir/other", 0o644, "the other\n")
	return layers(
		compressed{lowest(), compression.GZip}, compressed{mid, compression.ZStd}, compressed{high, compression.None},
	)
}

// lowest has a file of each kind, and files for those above to change.
func lowest() *tree {
	t := newTree()
	t.dir("odd", 0o755)
	t.file("odd/gone", 0o644, "removed by the next layer\n")
	t.file("odd/kept", 0o600, "kept\n", owner(1000, 50))
	t.dir("odd/gone-dir", 0o755)
	t.file("odd/gone-dir/file", 0o644, "removed with its folder\n")
	t.dir("odd/opaque", 0o755)
	t.file("odd/opaque/below", 0o644, "hidden\n")
	t.dir("odd/opaque/below-dir", 0o755)
	t.file("odd/opaque/below-dir/file", 0o644, "hidden\n")
	t.dir("odd/dir-to-file", 0o755)
	t.file("odd/dir-to-file/file", 0o644, "gone\n")
	t.file("odd/file-to-dir", 0o644, "gone\n")
	t.file("odd/file-to-link", 0o644, "gone\n")
	t.symlink("odd/link-to-file", "kept")
	t.dir("odd/changed", 0o755)
	t.file("odd/changed/stays", 0o644, "stays\n")
	t.file("odd/linked", 0o644, "linked\n")
	t.link("odd/linked-2", "odd/linked")

	t.file("odd/setuid", 0o4755, "#!/bin/sh\n")
	t.file("odd/setgid", 0o2755, "#!/bin/sh\n", owner(0, 50))
	t.dir("odd/sticky", 0o1777)
	t.file("odd/no-mode", 0, "for root alone\n")
	t.file("odd/many-owners", 0o644, "", owner(4294967294, 2097152)) // more than seven octal digits
	t.file("odd/capable", 0o755, "#!/bin/sh\n", xattr("security.capability", Capability))
	t.file("odd/attributed", 0o644, "", xattr("user.husk", "a value"), xattr("user.empty", ""))
	t.device("odd/null", 'c', 0o666, 1, 3)
	t.device("odd/disk", 'b', 0o660, 259, 1048575)
	t.device("odd/fifo", 'p', 0o640, 0, 0)
	t.symlink("odd/dangling", "/no/such/file")
	t.symlink("odd/up", "../../../../etc/passwd")
	t.symlink("odd/long-link", "./"+strings.Repeat("d/../", 600)+"kept")

	t.file("odd/"+LongName, 0o644, "long name\n")
	t.file("odd/"+RawName, 0o644, "raw name\n", rawName)
	t.file("odd/spaces and \n newlines", 0o644, "odd name\n")
	t.file("odd/ünïcödé", 0o644, "unicode name\n")
	t.file("odd/"+LongPath, 0o644, "long path\n") // its folders are in no header
	t.sparse("odd/sparse", SparseSize, []int64{4096, SparseSize - 8192}, strings.Repeat("data", 1024))
	return t
}

// middle removes, replaces and adds.
func middle() *tree {
	t := newTree()
	t.remove("odd/gone")
	t.remove("odd/gone-dir")
	t.opaque("odd/opaque")
	t.file("odd/opaque/above", 0o644, "seen\n")
	t.file("odd/dir-to-file", 0o644, "a file now\n")
	t.dir("odd/file-to-dir", 0o750, owner(1000, 1000))
	t.file("odd/file-to-dir/file", 0o644, "in a folder now\n")
	t.symlink("odd/file-to-link", "kept")
	t.file("odd/link-to-file", 0o644, "a file now\n")
	t.dir("odd/changed", 0o711, owner(1001, 1001))
	t.remove("no/such/file") // there is nothing to remove
	return t
}

// highest takes up again what middle removed.
func highest() *tree {
	t := newTree()
	t.remove("odd/dir-to-file")
	t.dir("odd/gone-dir", 0o755)
	t.file("odd/gone-dir/new", 0o644, "again\n")
	return t
}

// dataLayer has what a volume of the image begins with.
func dataLayer() (v1.Layer, error) {
	t := newTree()
	t.dir("data", 0o750, owner(1000, 50))
	t.file("data/of-the-image", 0o640, "of the image\n", owner(1000, 50))
	return t.layer(compression.GZip)
}

// linkedLayer has links where files are put when a container starts.
func linkedLayer() (v1.Layer, error) {
	t := newTree()
	t.symlink("etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf") // dangling
	t.symlink("etc/hostname", "/data/hostname")
	t.symlink("etc/hosts", "../../../../data/hosts") // not out of the image
	t.file("data/hosts", 0o644, "of the image\n")
	t.symlink("etc/mtab", "/proc/self/mounts")
	t.symlink("var/run", "/run")
	return t.layer(compression.GZip)
}

// distroless has a program and nothing else: no shell, no /etc, no /tmp.
func (b Busybox) distroless() (v1.Layer, error) {
	t := newTree()
	t.file("app/busybox", 0o755, b.program)
	return t.layer(compression.GZip)
}

// A compressed tree is a layer to be.
type compressed struct {
	tree *tree
	with compression.Compression
}

func layers(trees ...compressed) ([]v1.Layer, error) {
	var list []v1.Layer
	for _, t := range trees {
		l, err := t.tree.layer(t.with)
		if err != nil {
			return nil, err
		}
		list = append(list, l)
	}
	return list, nil
}
