package parttable

import (
	"encoding/binary"
	"fmt"
	"io"
)

// The first sector (UEFI 2.10 §5.2.1).
const (
	sector       = 512 // an MBR counts in these, in bytes
	mbrSize      = 512
	mbrEntry     = 446 // four entries of 16 bytes
	mbrSignature = 510
	mbrMagic     = 0xaa55
	mbrDiskID    = 440 // four bytes that PARTUUID begins with
)

// Types of partitions with a meaning here.
const (
	typeExtended      = 0x05
	typeExtendedLBA   = 0x0f
	typeExtendedLinux = 0x85
	typeProtective    = 0xee
)

// An entry is a used line of an MBR.
type entry struct {
	index        int
	active       bool
	kind         byte
	start, count uint32 // sectors
}

// mbrEntries are the used lines of a sector, none if a flag says that the bytes
// there are something else: a boot sector of FAT or NTFS ends in the same magic.
func mbrEntries(p []byte) (all []entry) {
	le := binary.LittleEndian
	for i := range 4 {
		e := p[mbrEntry+16*i:][:16]
		if e[0]&0x7f != 0 {
			return nil
		}
		if start, count := le.Uint32(e[8:]), le.Uint32(e[12:]); e[4] != 0 && count != 0 {
			all = append(all, entry{i, e[0] != 0, e[4], start, count})
		}
	}
	return all
}

// isProtective tells an MBR that stands before a GPT (UEFI 2.10 §5.2.3), also
// one with more in it.
func isProtective(p []byte) bool {
	for _, e := range mbrEntries(p) {
		if e.kind == typeProtective {
			return true
		}
	}
	return false
}

func (e entry) extended() bool {
	return e.kind == typeExtended || e.kind == typeExtendedLBA || e.kind == typeExtendedLinux
}

// partition turns an entry into bytes. Numbers have 32 bits, so nothing overflows.
func (e entry) partition(number int, base int64, diskID uint32) Partition {
	p := Partition{
		Number: number, Start: (base + int64(e.start)) * sector, Size: int64(e.count) * sector,
		Type: fmt.Sprintf("0x%02x", e.kind), Active: e.active,
	}
	if diskID != 0 {
		p.UUID = fmt.Sprintf("%08x-%02x", diskID, number)
	}
	return p
}

// readMBR reads the table in the first sector, and the chain of logical
// partitions.
func readMBR(disk io.ReaderAt, size int64, mbr []byte) (*Table, error) {
	t := &Table{Kind: "msdos"}
	diskID := binary.LittleEndian.Uint32(mbr[mbrDiskID:])
	entries := mbrEntries(mbr)
	if len(entries) == 0 {
		return nil, fmt.Errorf("%w: the first sector names no partition", ErrNone)
	}
	for _, e := range entries {
		if !e.extended() {
			t.Partitions = append(t.Partitions, e.partition(e.index+1, 0, diskID))
		}
	}
	next := 5
	for _, e := range entries {
		if e.extended() {
			t.logical(disk, size, int64(e.start), diskID, &next)
		}
	}
	return t, nil
}

// logical follows the chain of an extended partition: each sector of it has a
// partition, relative to itself, and the next sector, relative to the first.
func (t *Table) logical(disk io.ReaderAt, size, first int64, diskID uint32, next *int) {
	seen := map[int64]bool{}
	for at := first; at != 0; {
		if seen[at] || len(t.Partitions) >= MaxPartitions {
			t.note("the chain of logical partitions does not end; the first %d are taken", len(seen))
			return
		}
		seen[at] = true
		p := make([]byte, mbrSize)
		if at*sector > size-mbrSize {
			t.note("the chain of logical partitions goes on after the image's end")
			return
		}
		if err := readAt(disk, p, at*sector); err != nil || binary.LittleEndian.Uint16(p[mbrSignature:]) != mbrMagic {
			t.note("the chain of logical partitions breaks off at sector %d", at)
			return
		}
		here := at
		at = 0
		for _, e := range mbrEntries(p) {
			switch {
			case !e.extended():
				t.Partitions = append(t.Partitions, e.partition(*next, here, diskID))
				*next++
			case at == 0:
				at = first + int64(e.start)
			}
		}
	}
}
