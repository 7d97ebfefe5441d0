package parttable

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"strings"
	"unicode/utf16"
)

// The GPT's header and entries (UEFI 2.10 §5.3).
const (
	gptMagic     = "EFI PART"
	gptHeader    = 92      // least size of the header, bytes
	gptEntry     = 128     // least size of an entry, bytes
	maxEntries   = 1 << 20 // most bytes of all entries that are read
	attrBootable = 1 << 2  // "legacy BIOS bootable"
)

// readGPT finds the table by its header in the second sector, of 512 or 4096
// bytes, or else by its copy in the last one.
func readGPT(disk io.ReaderAt, size int64) (*Table, error) {
	var damage error
	for _, sector := range []int64{512, 4096} {
		t, err := gptAt(disk, size, sector, 1)
		if err == nil {
			return t, nil
		}
		if damage == nil && !errors.Is(err, ErrNone) {
			damage = fmt.Errorf("the GPT with sectors of %d bytes: %w", sector, err)
		}
	}
	for _, sector := range []int64{512, 4096} {
		t, err := gptAt(disk, size, sector, size/sector-1)
		if err == nil {
			if damage == nil {
				damage = ErrNone
			}
			t.note("the first GPT is of no use (%v); taken is its copy at the disk's end", damage)
			return t, nil
		}
		if damage == nil && !errors.Is(err, ErrNone) {
			damage = fmt.Errorf("the GPT's copy at the end: %w", err)
		}
	}
	if damage != nil {
		return nil, fmt.Errorf("%w; nor is there a good copy at the disk's end; repair it: sgdisk -v, or get a whole copy of the image", damage)
	}
	return nil, ErrNone
}

// gptAt reads the table whose header is in a sector, and checks its sums.
func gptAt(disk io.ReaderAt, size, sector, lba int64) (*Table, error) {
	if lba < 1 || lba >= size/sector {
		return nil, ErrNone
	}
	h := make([]byte, sector)
	if err := readAt(disk, h, lba*sector); err != nil {
		return nil, fmt.Errorf("read sector %d: %w", lba, err)
	}
	if string(h[:8]) != gptMagic {
		return nil, ErrNone
	}
	le := binary.LittleEndian
	length := int64(le.Uint32(h[12:]))
	if length < gptHeader || length > sector {
		return nil, fmt.Errorf("%w: header of %d bytes", ErrDamaged, length)
	}
	sum := le.Uint32(h[16:])
	le.PutUint32(h[16:], 0)
	if crc32.ChecksumIEEE(h[:length]) != sum {
		return nil, fmt.Errorf("%w: the checksum of its header is wrong", ErrDamaged)
	}
	if own := le.Uint64(h[24:]); own != uint64(lba) {
		return nil, fmt.Errorf("%w: the header in sector %d says that it is in sector %d", ErrDamaged, lba, own)
	}
	start, count, each := le.Uint64(h[72:]), int64(le.Uint32(h[80:])), int64(le.Uint32(h[84:]))
	if each < gptEntry || each&(each-1) != 0 || count > maxEntries/each {
		return nil, fmt.Errorf("%w: %d entries of %d bytes", ErrDamaged, count, each)
	}
	if start > uint64(size/sector) {
		return nil, fmt.Errorf("%w: its entries are in sector %d, after the disk's end", ErrDamaged, start)
	}
	entries := make([]byte, count*each)
	if err := readAt(disk, entries, int64(start)*sector); err != nil {
		return nil, fmt.Errorf("%w: read its entries: %w", ErrDamaged, err)
	}
	if crc32.ChecksumIEEE(entries) != le.Uint32(h[88:]) {
		return nil, fmt.Errorf("%w: the checksum of its entries is wrong", ErrDamaged)
	}
	return gptTable(entries, each, sector), nil
}

// gptTable turns entries into partitions. An entry with impossible numbers is
// left out, with a note.
func gptTable(entries []byte, each, sector int64) *Table {
	t := &Table{Kind: "gpt"}
	le := binary.LittleEndian
	for n := 1; len(entries) > 0; n, entries = n+1, entries[each:] {
		e := entries[:each]
		if bytes.Equal(e[:16], make([]byte, 16)) {
			continue
		}
		first, last := le.Uint64(e[32:]), le.Uint64(e[40:])
		if first == 0 || last < first || last >= uint64(math.MaxInt64/sector) {
			t.note("partition %d is left out: it goes from sector %d to %d", n, first, last)
			continue
		}
		if len(t.Partitions) == MaxPartitions {
			t.note("only the first %d partitions are looked at", MaxPartitions)
			break
		}
		t.Partitions = append(t.Partitions, Partition{
			Number: n, Start: int64(first) * sector, Size: int64(last-first+1) * sector,
			Type: guid(e[:16]), UUID: guid(e[16:32]), Name: name(e[56:128]),
			Active: le.Uint64(e[48:])&attrBootable != 0,
		})
	}
	return t
}

// name decodes a partition's name: UTF-16 up to a NUL.
func name(p []byte) string {
	var units []uint16
	for ; len(p) >= 2 && (p[0] != 0 || p[1] != 0); p = p[2:] {
		units = append(units, binary.LittleEndian.Uint16(p))
	}
	return strings.ToValidUTF8(string(utf16.Decode(units)), "?")
}
