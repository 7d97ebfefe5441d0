// Package parttable reads partition tables: GPT (UEFI 2.10 §5) and MBR with its
// extended partitions, from an image of a whole disk.
package parttable

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// The reasons for which there is no table.
var (
	ErrNone    = errors.New("no partition table")
	ErrDamaged = errors.New("damaged partition table")
)

// MaxPartitions is how many partitions of a disk are looked at.
const MaxPartitions = 256

// A Partition is a part of a disk.
type Partition struct {
	Number int    // as Linux and GRUB count them, from 1
	Start  int64  // bytes from the disk's beginning
	Size   int64  // bytes
	Type   string // a GUID in lower case, or "0x83"
	UUID   string // as root=PARTUUID= has it, or ""
	Name   string // GPT only
	Active bool   // MBR's boot flag, or GPT's "legacy BIOS bootable"
}

// A Table is what a disk says of its partitions.
type Table struct {
	Kind       string // "gpt" or "msdos", as GRUB calls them
	Partitions []Partition
	Notes      []string // what is odd with it, for people to read
}

// Read reads the table of a disk of so many bytes. A disk without one is
// ErrNone: it may have a file system from its first byte on.
func Read(disk io.ReaderAt, size int64) (*Table, error) {
	mbr := make([]byte, mbrSize)
	if size < mbrSize {
		return nil, fmt.Errorf("%w: %d bytes have no room for one", ErrNone, size)
	}
	if err := readAt(disk, mbr, 0); err != nil {
		return nil, fmt.Errorf("read the first sector: %w", err)
	}
	marked := binary.LittleEndian.Uint16(mbr[mbrSignature:]) == mbrMagic
	protective := marked && isProtective(mbr)
	t, err := readGPT(disk, size)
	switch {
	case err == nil && !protective && marked && len(mbrEntries(mbr)) > 0:
		// Linux and firmware take the MBR then: the GPT is a remnant.
		t, err = readMBR(disk, size, mbr)
	case errors.Is(err, ErrNone) && marked && !protective:
		t, err = readMBR(disk, size, mbr)
	case errors.Is(err, ErrNone) && protective:
		err = fmt.Errorf("%w: its first sector promises a GPT, and there is none, nor a backup at the end; is the image cut short?", ErrDamaged)
	case errors.Is(err, ErrDamaged) && marked && !protective && len(mbrEntries(mbr)) > 0:
		t, err = readMBR(disk, size, mbr)
	}
	if err != nil {
		return nil, err
	}
	t.clip(size)
	return t, nil
}

// clip takes out partitions beyond the disk's end, and shortens those that go
// over it.
func (t *Table) clip(size int64) {
	var kept []Partition
	for _, p := range t.Partitions {
		switch {
		case p.Start >= size:
			t.note("partition %d begins at byte %d, after the image's end at %d: the image is cut short", p.Number, p.Start, size)
			continue
		case p.Size > size-p.Start:
			t.note("partition %d ends after the image's end at byte %d: the image is cut short", p.Number, size)
			p.Size = size - p.Start
		}
		kept = append(kept, p)
	}
	t.Partitions = kept
}

func (t *Table) note(format string, args ...any) {
	t.Notes = append(t.Notes, fmt.Sprintf(format, args...))
}

// readAt fills p. An image that ends before is io.ErrUnexpectedEOF.
func readAt(r io.ReaderAt, p []byte, off int64) error {
	n, err := r.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// guid prints a GUID: its first three fields are little-endian (UEFI 2.10,
// appendix A).
func guid(p []byte) string {
	le := binary.LittleEndian
	return fmt.Sprintf("%08x-%04x-%04x-%x-%x", le.Uint32(p), le.Uint16(p[4:]), le.Uint16(p[6:]), p[8:10], p[10:16])
}
