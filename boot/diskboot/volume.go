package diskboot

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/huskvm/husk/boot"
	"github.com/huskvm/husk/boot/diskboot/ext4"
	"github.com/huskvm/husk/boot/diskboot/fat"
	"github.com/huskvm/husk/boot/diskboot/imagefs"
	"github.com/huskvm/husk/boot/diskboot/parttable"
)

// A files is a file system whose folders can be listed without a look at each file.
type files interface {
	imagefs.Files
	List(folder string) ([]string, error)
}

// Types of partitions (UAPI.2, "Discoverable Partitions Specification"; the
// MBR's are in UAPI.1).
const (
	typeESP     = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
	typeBoot    = "bc13c2ff-59e6-4262-a352-b275fd6f7172" // XBOOTLDR
	typeRoot    = "4f68bce3-e8cd-4db1-96e7-fbcaf984b709" // root on x86-64
	typeESPMBR  = "0xef"
	typeBootMBR = "0xea"
)

// A volume is a partition, or the whole disk.
type volume struct {
	part  *parttable.Partition // nil: the whole disk
	table string               // "gpt", "msdos"
	kind  string               // of file system, "" if unknown
	uuid  string
	label string
	files files // nil: not readable
	why   error // why not, if the kind would be
	notes []string
}

// openVolume finds out what is in a part of a disk.
func openVolume(disk boot.Source, table string, part *parttable.Partition) *volume {
	v := &volume{part: part, table: table}
	size, image := disk.Size, io.NewSectionReader(disk, 0, disk.Size)
	if part != nil {
		size, image = part.Size, io.NewSectionReader(disk, part.Start, part.Size)
	}
	x, err := ext4.Open(image)
	if err == nil {
		v.files, v.kind, v.uuid, v.label = x, x.Kind(), x.UUID(), x.Label()
		if x.NeedsRecovery() {
			v.notes = append(v.notes, fmt.Sprintf("%s was not unmounted: its journal may have changes that are not seen here", v))
		}
		if x.Size() > size {
			v.notes = append(v.notes, fmt.Sprintf("%s: the file system has %d bytes, of which %d are here: the image is cut short", v, x.Size(), size))
		}
		return v
	}
	if !errors.Is(err, ext4.ErrNotExt) {
		v.kind, v.why = "ext4", err
		return v
	}
	if v.kind, v.uuid = identify(image); v.kind != "" {
		return v
	}
	f, err := fat.Open(image)
	if err == nil {
		v.files, v.kind, v.uuid = f, f.Kind(), f.UUID()
	} else if !errors.Is(err, fat.ErrNotFAT) {
		v.kind, v.why = "vfat", err
	}
	return v
}

// String names a volume: "partition 2 (ext4)".
func (v *volume) String() string {
	name := "the whole disk"
	if v.part != nil {
		name = fmt.Sprintf("partition %d", v.part.Number)
	}
	if v.kind != "" {
		name += " (" + v.kind + ")"
	}
	return name
}

// describe says of a volume that cannot be read what is in it.
func (v *volume) describe() string {
	switch {
	case v.why != nil:
		return fmt.Sprintf("%s: %v", v, v.why)
	case v.kind != "":
		return v.String()
	}
	return v.String() + " of an unknown kind"
}

// device is GRUB's name for a volume.
func (v *volume) device() string {
	if v.part == nil {
		return "hd0"
	}
	return fmt.Sprintf("hd0,%s%d", v.table, v.part.Number)
}

// byDevice finds the volume that GRUB calls so. There is one disk, whatever
// number it had when the configuration was written.
func (s *search) byDevice(device string) *volume {
	disk, part, _ := strings.Cut(device, ",")
	if !strings.HasPrefix(disk, "hd") {
		return nil
	}
	number, err := strconv.Atoi(strings.TrimLeft(part, "abcdefghijklmnopqrstuvwxyz"))
	if err != nil && part != "" {
		return nil
	}
	for _, v := range s.volumes {
		if part == "" && v.part == nil || part != "" && v.part != nil && v.part.Number == number {
			return v
		}
	}
	return nil
}

// rank is the order in which volumes are looked at.
func (v *volume) rank() int {
	if v.part == nil {
		return 5
	}
	switch t := v.part.Type; {
	case t == typeBoot || t == typeBootMBR:
		return 0
	case t == typeESP || t == typeESPMBR:
		return 1
	case v.part.Active:
		return 2
	case t == typeRoot:
		return 3
	}
	return 4
}

func sortVolumes(all []*volume) {
	slices.SortStableFunc(all, func(a, b *volume) int { return a.rank() - b.rank() })
}

// readSmall reads a configuration, which has no reason to be large.
func (v *volume) readSmall(name string) ([]byte, error) {
	const most = 256 << 10
	if v.files == nil {
		return nil, fmt.Errorf("%s cannot be read", v)
	}
	r, err := v.files.Open(name)
	if err != nil {
		return nil, err
	}
	if r.Size() > most {
		return nil, fmt.Errorf("%s: it has %d bytes, at most %d are read", name, r.Size(), most)
	}
	return io.ReadAll(r)
}

// has tells whether there is such a file.
func (v *volume) has(name string) bool {
	_, err := v.files.Open(name)
	return err == nil
}
