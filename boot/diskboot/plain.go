package diskboot

import (
	"fmt"
	"slices"
	"strings"

	"github.com/huskvm/husk/boot/diskboot/bls"
)

// kernelNames are how kernels are called; a version follows, or nothing.
var kernelNames = []string{"vmlinuz", "bzImage", "kernel"}

// initrdNames are how the initrd of a version is called, which takes the place
// of "*" (the list of grub-mkconfig's 10_linux).
var initrdNames = []string{
	"initrd.img-*", "initrd-*.img", "initrd-*.gz", "initrd-*", "initramfs-*.img", "initramfs-*",
	"initramfs-genkernel-*", "initramfs-genkernel-x86_64-*",
}

// leftovers end the names of files that are no longer, or not, kernels.
var leftovers = []string{".old", ".bak", ".hmac", ".sig", ".dpkg-new", ".dpkg-tmp", ".img", ".efi.signed"}

// plain takes the newest kernel of a volume that has no loader's configuration,
// with its initrd.
func (s *search) plain(v *volume) *Found {
	for _, folder := range []string{"/boot", "/"} {
		names, err := v.files.List(folder)
		if err != nil {
			s.unusable(v, folder, err)
			continue
		}
		dir := strings.TrimSuffix(folder, "/") + "/"
		s.looked = append(s.looked, fmt.Sprintf("%s for %svmlinuz-*", v, dir))
		for _, k := range kernels(names) {
			source, err := s.file(v, dir+k.name)
			if err != nil {
				s.note("%s: %s%s: %v", v, dir, k.name, err)
				continue
			}
			f := &Found{Kernel: source, Origin: fmt.Sprintf("%s, no loader's configuration, the newest kernel of %s", v, folder)}
			if initrd := initrdFor(k.version, names); initrd != "" {
				source, err := s.file(v, dir+initrd)
				if err != nil {
					s.note("%s: %s%s: %v", v, dir, initrd, err)
					continue
				}
				f.Initrds = append(f.Initrds, source)
			} else {
				f.Notes = append(f.Notes, fmt.Sprintf("there is no initrd for %s%s", dir, k.name))
			}
			root, note := s.root(len(f.Initrds) > 0)
			if root == "" {
				f.Notes = append(f.Notes, "no root file system was found; say root= with -a")
			} else if note != "" {
				f.Notes = append(f.Notes, root+note)
			}
			f.CommandLine = root
			return f
		}
	}
	return nil
}

// A kernel is a file name and the version in it.
type kernel struct{ name, version string }

// kernels are those among the names, newest first. One without a version comes
// last: it is a link to one of the others.
func kernels(names []string) (all []kernel) {
	for _, name := range names {
		if slices.ContainsFunc(leftovers, func(end string) bool { return strings.HasSuffix(name, end) }) {
			continue
		}
		for _, prefix := range kernelNames {
			rest, ok := strings.CutPrefix(name, prefix)
			if version, dash := strings.CutPrefix(rest, "-"); ok && (rest == "" || dash && version != "") {
				all = append(all, kernel{name, version})
			}
		}
	}
	slices.SortStableFunc(all, func(a, b kernel) int { return bls.Compare(b.version, a.version) })
	return all[:min(len(all), maxEntries)]
}

// initrdFor is the initrd for a version among the names, or "".
func initrdFor(version string, names []string) string {
	for _, pattern := range initrdNames {
		want := strings.Replace(pattern, "*", version, 1)
		if version == "" { // "initrd.img", not "initrd.img-"
			want = strings.Replace(pattern, "-*", "", 1)
		}
		if slices.Contains(names, want) {
			return want
		}
	}
	return ""
}

// root is what a command line says of the root file system, and a remark where
// that is a guess. With an initrd it is found by its UUID; without, the kernel
// itself knows only partitions and devices.
func (s *search) root(initrd bool) (words, remark string) {
	var found *volume
	for _, v := range s.volumes {
		if v.files != nil && (v.has("/etc/os-release") || v.has("/usr/lib/os-release")) {
			found = v
			break
		}
	}
	if found == nil {
		var guesses []*volume
		for _, v := range s.volumes {
			if v.files == nil && v.uuid != "" { // xfs, btrfs
				guesses = append(guesses, v)
			}
		}
		if len(guesses) != 1 {
			return "", ""
		}
		found = guesses[0]
		remark = fmt.Sprintf(" (a guess: husk cannot look into %s)", found)
	}
	switch {
	case initrd && found.uuid != "":
		return "root=UUID=" + found.uuid + " ro", remark
	case found.part != nil && found.part.UUID != "":
		return "root=PARTUUID=" + found.part.UUID + " ro", remark
	case found.part != nil:
		return fmt.Sprintf("root=/dev/vda%d ro", found.part.Number), remark + " (if this is the first disk)"
	}
	return "root=/dev/vda ro", remark + " (if this is the first disk)"
}
