// Package diskboot finds what a disk image would boot: the kernel, the initrds
// and the command line that the boot loader installed there would choose, and the
// modules that the kernel has there. It
// reads partition tables, file systems and configurations itself, so it needs no
// root and mounts nothing; and it writes nothing.
//
// Volumes are looked at in this order: a boot partition (XBOOTLDR), the EFI
// system partition, an MBR's active partition, one typed as Linux's root, then
// the others as the table has them, and last the disk as a whole. On each, what
// counts is GRUB's grub.cfg, else entries of the Boot Loader Specification, else
// syslinux's configuration. GRUB comes first because its configuration says
// itself whether such entries are shown ("blscfg", as Fedora has it), with which
// variables and which of them is the default; where GRUB is in charge and does not
// show them, they are leftovers. Only if no volume has a configuration with a
// kernel that is there does the newest /boot/vmlinuz-* count.
package diskboot

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"strings"
	"unicode"

	"github.com/huskvm/husk/boot"
	"github.com/huskvm/husk/boot/diskboot/parttable"
)

// The reasons for which nothing is found. The errors that carry them name the
// image and what to do.
var (
	ErrNotDisk      = errors.New("not a disk image")
	ErrNoFileSystem = errors.New("no file system that husk can read")
	ErrNoKernel     = errors.New("no kernel in the disk image")
)

// remedy is what always helps.
const remedy = "give the kernel and its initrd with -k KERNEL -i INITRD"

// A Found is what to boot. Files are read straight from the image, which must
// stay open.
type Found struct {
	Kernel      boot.Source
	Initrds     []boot.Source // in their order
	CommandLine string
	// Origin says where all of it is from, for people: "partition 1 (ext4),
	// /boot/grub/grub.cfg, entry 'Debian GNU/Linux'".
	Origin string
	// Notes are what was odd on the way, one line each.
	Notes []string

	search *search // what Modules goes on with
}

// Account tells what was found where, a line for each file, for a log or a dry run.
func (f *Found) Account() []string {
	lines := []string{"boot configuration: " + f.Origin, "kernel: " + f.Kernel.Name}
	for _, i := range f.Initrds {
		lines = append(lines, "initrd: "+i.Name)
	}
	return append(lines, "command line: "+f.CommandLine)
}

// tidy takes out of what is shown what could take over a terminal: titles and
// names are the image's.
func (f *Found) tidy() {
	f.Origin, f.Kernel.Name = printable(f.Origin), printable(f.Kernel.Name)
	for i := range f.Initrds {
		f.Initrds[i].Name = printable(f.Initrds[i].Name)
	}
	for i := range f.Notes {
		f.Notes[i] = printable(f.Notes[i])
	}
}

func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}

// maxNotes bounds what a strange image has us say.
const maxNotes = 50

// A search is the work on one image.
type search struct {
	disk    boot.Source
	volumes []*volume // in the order in which they are looked at
	looked  []string  // where there was no kernel
	notes   []string
}

func (s *search) note(format string, args ...any) {
	if len(s.notes) < maxNotes {
		s.notes = append(s.notes, fmt.Sprintf(format, args...))
	}
}

func (s *search) fail(kind error, format string, args ...any) error {
	return fmt.Errorf("%s: %w: %s; %s", s.disk.Name, kind, printable(fmt.Sprintf(format, args...)), remedy)
}

// Find looks through a disk: the content of a raw image, or what a qcow2 image
// shows the guest. It reads a few hundred KiB; the kernel only when Found's
// sources are read.
func Find(disk boot.Source) (*Found, error) {
	m := &meter{image: disk.ReaderAt}
	m.left.Store(maxRead)
	disk.ReaderAt = m
	found, err := find(&search{disk: disk})
	m.left.Store(math.MaxInt64)
	if found != nil {
		found.tidy()
	}
	return found, err
}

func find(s *search) (*Found, error) {
	if err := s.open(); err != nil {
		return nil, err
	}
	for _, step := range []func(*volume) *Found{s.loaders, s.plain} {
		for _, v := range s.volumes {
			if v.files == nil {
				continue
			}
			if f := step(v); f != nil {
				f.Notes = append(append(s.notes, v.notes...), f.Notes...)
				f.search = s
				return f, nil
			}
		}
	}
	return nil, s.noKernel()
}

// open finds the volumes, of which one at least can be read.
func (s *search) open() error {
	if s.disk.Size <= 0 {
		return s.fail(ErrNotDisk, "it is empty")
	}
	head := make([]byte, min(s.disk.Size, 4096))
	if n, err := s.disk.ReadAt(head, 0); n < len(head) {
		return fmt.Errorf("%s: read its first bytes: %w", s.disk.Name, err)
	}
	if what := foreign(head); what != "" {
		return s.fail(ErrNotDisk, "%s", what)
	}
	table, err := parttable.Read(s.disk.ReaderAt, s.disk.Size)
	switch {
	case err == nil:
		s.notes = append(s.notes, table.Notes[:min(len(table.Notes), maxNotes)]...)
		for i := range table.Partitions {
			s.volumes = append(s.volumes, openVolume(s.disk, table.Kind, &table.Partitions[i]))
		}
		sortVolumes(s.volumes)
	case !errors.Is(err, parttable.ErrNone) && !errors.Is(err, parttable.ErrDamaged):
		return fmt.Errorf("%s: %w", s.disk.Name, err)
	}
	// The disk itself comes last: a table in front of a file system may be a remnant.
	whole := openVolume(s.disk, "", nil)
	if table == nil || whole.files != nil {
		s.volumes = append(s.volumes, whole)
	}
	if table != nil && len(table.Partitions) == 0 && whole.files == nil {
		return s.fail(ErrNoFileSystem, "its partition table (%s) is empty", table.Kind)
	}
	for _, v := range s.volumes {
		if v.files != nil {
			return nil
		}
	}
	switch {
	case errors.Is(err, parttable.ErrDamaged):
		return s.fail(ErrNotDisk, "%v", err)
	case whole.kind == "" && table == nil:
		return s.fail(ErrNotDisk, "it has neither a partition table nor a file system at its beginning")
	}
	return s.fail(ErrNoFileSystem, "husk reads ext2, ext3, ext4 and FAT, and it has %s", s.unreadable())
}

// unreadable lists the volumes that cannot be read, and why.
func (s *search) unreadable() string {
	var all []string
	for _, v := range s.volumes {
		if v.files == nil && len(all) < 16 {
			all = append(all, v.describe())
		}
	}
	return strings.Join(all, ", ")
}

// noKernel says where there was none.
func (s *search) noKernel() error {
	text := "looked on " + strings.Join(s.looked[:min(len(s.looked), 32)], ", ")
	if other := s.unreadable(); other != "" {
		text += "; not read: " + other
	}
	for _, n := range s.notes {
		text += "; " + n
	}
	return s.fail(ErrNoKernel, "%s", text)
}

// file opens a file for a guest's memory. Where /boot is a partition of its own,
// configurations are in doubt whether "/boot" is a part of the path.
func (s *search) file(v *volume, name string) (boot.Source, error) {
	names := []string{name, "/boot" + name}
	if rest, ok := strings.CutPrefix(name, "/boot/"); ok {
		names[1] = "/" + rest
	}
	var first error
	for _, n := range names {
		r, err := v.files.Open(n)
		if err == nil {
			return boot.Source{Name: fmt.Sprintf("%s: %s: %s", s.disk.Name, v, n), Size: r.Size(), ReaderAt: r}, nil
		}
		if first == nil {
			first = err
		}
		if !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	return boot.Source{}, first
}
