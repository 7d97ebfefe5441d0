package diskboot

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/huskvm/husk/boot"
	"github.com/huskvm/husk/boot/diskboot/bls"
	"github.com/huskvm/husk/boot/diskboot/grub"
	"github.com/huskvm/husk/boot/diskboot/syslinux"
)

// Where loaders have their configuration. The paths without /boot are for a boot
// partition.
var (
	grubFiles     = []string{"/boot/grub/grub.cfg", "/boot/grub2/grub.cfg", "/grub/grub.cfg", "/grub2/grub.cfg"}
	blsFolders    = []string{"/loader/entries", "/boot/loader/entries"}
	syslinuxFiles = []string{
		"/boot/extlinux/extlinux.conf", "/extlinux/extlinux.conf", "/boot/extlinux.conf", "/extlinux.conf",
		"/boot/syslinux/syslinux.cfg", "/syslinux/syslinux.cfg", "/boot/syslinux.cfg", "/syslinux.cfg",
		"/EFI/syslinux/syslinux.cfg", "/boot/isolinux/isolinux.cfg", "/isolinux/isolinux.cfg", "/isolinux.cfg",
	}
)

// maxEntries bounds the menu entries that are looked at in one place.
const maxEntries = 256

// A choice is what a configuration would load.
type choice struct {
	entry       string // its title
	linux       grub.Path
	initrds     []grub.Path
	commandLine string
}

// loaders looks for a configuration on a volume whose kernel is there.
func (s *search) loaders(v *volume) *Found {
	for _, way := range []struct {
		files []string
		read  func(*volume, string) *Found
	}{{grubFiles, s.grub}, {blsFolders, s.entries}, {syslinuxFiles, s.syslinux}} {
		for _, name := range way.files {
			if f := way.read(v, name); f != nil {
				return f
			}
		}
	}
	names, _ := v.files.List("/EFI/Linux")
	if slices.ContainsFunc(names, func(n string) bool { return strings.HasSuffix(strings.ToLower(n), ".efi") }) {
		s.note("%s: /EFI/Linux has unified kernel images, which husk does not take apart", v)
	}
	s.looked = append(s.looked, fmt.Sprintf("%s for the configuration of GRUB, systemd-boot (BLS) and syslinux", v))
	return nil
}

// grub tries the entries of a grub.cfg.
func (s *search) grub(v *volume, name string) *Found {
	menu, err := grub.Load(grubHost{s, v}, grub.Path{Device: v.device(), File: name})
	if err != nil {
		s.unusable(v, name, err)
		return nil
	}
	notes := menu.Notes
	for _, e := range menu.Default() {
		k, more, ok, err := menu.Boot(e)
		if err != nil {
			s.unusable(v, name, err)
		}
		if !ok || err != nil {
			continue
		}
		f := s.try(v, name, choice{e.Title, k.Linux, k.Initrds, k.CommandLine})
		if f != nil {
			f.Notes = append(f.Notes, append(notes, more...)...)
			return f
		}
	}
	return nil
}

// entries tries those of the Boot Loader Specification in a folder.
func (s *search) entries(v *volume, folder string) *Found {
	all := s.listEntries(v, folder)
	if i, ok := bls.Default(all, s.loaderConf(v)); ok {
		all = append([]bls.Entry{all[i]}, append(all[:i:i], all[i+1:]...)...)
	}
	on := func(file string) grub.Path {
		return grub.Path{Device: v.device(), File: "/" + strings.TrimLeft(file, "/")}
	}
	for _, e := range all {
		if e.Linux == "" {
			continue
		}
		c := choice{e.Title, on(e.Linux), nil, e.Options}
		for _, i := range e.Initrds {
			if !strings.HasPrefix(i, "$") { // GRUB's, and it is not here
				c.initrds = append(c.initrds, on(i))
			}
		}
		if f := s.try(v, folder+"/"+e.ID+".conf", c); f != nil {
			return f
		}
	}
	return nil
}

// loaderConf is systemd-boot's own configuration: on the volume, or on the EFI
// system partition.
func (s *search) loaderConf(v *volume) []byte {
	for _, at := range append([]*volume{v}, s.volumes...) {
		if at.files == nil || at != v && at.rank() != 1 {
			continue
		}
		if text, err := at.readSmall("/loader/loader.conf"); err == nil {
			return text
		}
	}
	return nil
}

// listEntries reads the entries in a folder, the first to boot first.
func (s *search) listEntries(v *volume, folder string) (all []bls.Entry) {
	if v.files == nil {
		return nil
	}
	names, err := v.files.List(folder)
	if err != nil {
		s.unusable(v, folder, err)
		return nil
	}
	for _, name := range names {
		if !strings.HasSuffix(name, ".conf") || len(all) == maxEntries {
			continue
		}
		text, err := v.readSmall(folder + "/" + name)
		if err != nil {
			s.unusable(v, folder+"/"+name, err)
			continue
		}
		all = append(all, bls.Parse(name, text))
	}
	bls.Sort(all)
	return all
}

// syslinux tries the labels of a configuration.
func (s *search) syslinux(v *volume, name string) *Found {
	c, err := syslinux.Load(v.readSmall, name)
	if err != nil {
		s.unusable(v, name, err)
		return nil
	}
	on := func(file string) grub.Path { return grub.Path{Device: v.device(), File: syslinux.Resolve(name, file)} }
	for _, e := range c.Entries[:min(len(c.Entries), maxEntries)] {
		title := e.Title
		if title == "" {
			title = e.Label
		}
		k := choice{title, on(e.Linux), nil, e.Options}
		for _, i := range e.Initrds {
			k.initrds = append(k.initrds, on(i))
		}
		if f := s.try(v, name, k); f != nil {
			return f
		}
	}
	return nil
}

// unusable notes a configuration that is there and of no use.
func (s *search) unusable(v *volume, name string, err error) {
	if !errors.Is(err, fs.ErrNotExist) {
		s.note("%s: %s: %v", v, name, err)
	}
}

// try opens the files of a choice. One that is not all there is passed over,
// with a note.
func (s *search) try(v *volume, config string, c choice) *Found {
	f := &Found{CommandLine: c.commandLine, Origin: fmt.Sprintf("%s, %s, entry '%s'", v, config, c.entry)}
	used := map[*volume]bool{v: true} // its notes are given anyway
	open := func(p grub.Path) (boot.Source, error) {
		at := s.byDevice(p.Device)
		switch {
		case at == nil:
			at = v
		case at.files == nil:
			return boot.Source{}, fmt.Errorf("%s is on %s, which husk cannot read", p.File, at)
		}
		if !used[at] {
			used[at], f.Notes = true, append(f.Notes, at.notes...)
		}
		return s.file(at, p.File)
	}
	var err error
	if f.Kernel, err = open(c.linux); err == nil {
		for _, p := range c.initrds {
			var i boot.Source
			if i, err = open(p); err != nil {
				break
			}
			f.Initrds = append(f.Initrds, i)
		}
	}
	if err != nil {
		s.note("entry '%s' of %s is passed over: %v", c.entry, config, err)
		return nil
	}
	if root, note := s.root(len(f.Initrds) > 0); !hasWord(f.CommandLine, "root=") && root != "" {
		f.CommandLine = strings.TrimSpace(f.CommandLine + " " + root)
		f.Notes = append(f.Notes, "the entry does not say root=; "+root+" is added"+note)
	}
	for _, other := range []string{"sd", "hd", "xvd", "nvme", "mmcblk", "loop", "nbd"} {
		if hasWord(f.CommandLine, "root=/dev/"+other) {
			f.Notes = append(f.Notes, "root=/dev/"+other+"… is the name that the disk had elsewhere; a virtio disk is /dev/vda: say root= with -a if the root is not found")
		}
	}
	return f
}

// A grubHost is what grub.cfg sees of the disk.
type grubHost struct {
	s    *search
	home *volume // where the configuration is
}

// volume is a device of GRUB's, or where the configuration is.
func (h grubHost) volume(p grub.Path) *volume {
	if v := h.s.byDevice(p.Device); v != nil {
		return v
	}
	return h.home
}

func (h grubHost) ReadFile(p grub.Path) ([]byte, error) { return h.volume(p).readSmall(p.File) }

func (h grubHost) Stat(p grub.Path) (size int64, folder, ok bool) {
	v := h.volume(p)
	if v.files == nil {
		return 0, false, false
	}
	if r, err := v.files.Open(p.File); err == nil {
		return r.Size(), false, true
	}
	_, err := v.files.List(p.File)
	return 0, true, err == nil
}

func (h grubHost) Search(by grub.Key, value string) (string, bool) {
	for _, v := range h.s.volumes {
		if by == grub.ByUUID && v.uuid != "" && strings.EqualFold(v.uuid, value) ||
			by == grub.ByLabel && v.label != "" && v.label == value ||
			by == grub.ByFile && v.files != nil && v.has(value) {
			return v.device(), true
		}
	}
	return "", false
}

func (h grubHost) Entries(p grub.Path) []bls.Entry { return h.s.listEntries(h.volume(p), p.File) }
