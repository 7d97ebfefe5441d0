// Package paging reads a guest's virtual memory: it walks the guest's page tables
// in the guest's RAM, as the processor would (Intel SDM vol. 3 chapter 4). The
// tables are the guest's, so nothing in them is believed: a walk has at most five
// steps, and an entry that leads out of RAM is an error.
//
// Permissions are not looked at: who reads is a debugger, not the guest.
package paging

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrUnmapped is a virtual address that the page tables lead nowhere.
var ErrUnmapped = errors.New("not mapped by the guest's page tables")

// RAM is guest memory to look at. Readable is the n bytes at a guest-physical
// address, or an error if they are not all RAM.
type RAM interface {
	Readable(gpa, n uint64) ([]byte, error)
}

// A Space is a virtual address space: the registers of a processor that decide
// what a linear address means.
type Space struct {
	CR0, CR3, CR4, EFER uint64
}

// Bits of the registers and entries (Intel SDM vol. 3 §2.5, §2.2.1, §4.5).
const (
	cr0PG   = 1 << 31
	cr4PSE  = 1 << 4
	cr4PAE  = 1 << 5
	cr4LA57 = 1 << 12
	eferLMA = 1 << 10

	present  = 1 << 0
	pageSize = 1 << 7 // PS: the entry maps a page, not a table

	addrMask = 1<<52 - 1<<12
)

// A mode is one form of page tables.
type mode struct {
	root      uint64 // guest-physical address of the first table
	levels    int
	indexBits int
	entry     uint64 // bytes of an entry
	// huge is the highest level whose entries may map a page; level 1 always does.
	huge int
}

func (s Space) mode() mode {
	switch {
	case s.EFER&eferLMA != 0 && s.CR4&cr4LA57 != 0:
		return mode{s.CR3 & addrMask, 5, 9, 8, 3}
	case s.EFER&eferLMA != 0:
		return mode{s.CR3 & addrMask, 4, 9, 8, 3}
	case s.CR4&cr4PAE != 0:
		return mode{s.CR3 & (1<<32 - 1<<5), 3, 9, 8, 2} // §4.4.1: four entries, 32-byte aligned
	case s.CR4&cr4PSE != 0:
		return mode{s.CR3 & (1<<32 - 1<<12), 2, 10, 4, 2}
	}
	return mode{s.CR3 & (1<<32 - 1<<12), 2, 10, 4, 1}
}

// Translate gives the guest-physical address of a linear one, and how many bytes
// from there on are in the same page. Without paging, it is the address itself.
func (s Space) Translate(ram RAM, gva uint64) (gpa, left uint64, err error) {
	if s.EFER&eferLMA == 0 {
		gva = uint64(uint32(gva)) // as the processor has it
	}
	if s.CR0&cr0PG == 0 {
		return gva, 4096 - gva%4096, nil
	}
	m := s.mode()
	if s.EFER&eferLMA != 0 && !canonical(gva, 12+m.levels*m.indexBits) {
		return 0, 0, fmt.Errorf("%#x: %w: it is not canonical", gva, ErrUnmapped)
	}
	table := m.root
	for level := m.levels; ; level-- {
		shift := 12 + (level-1)*m.indexBits
		index := gva >> shift & (1<<m.indexBits - 1)
		e, err := m.load(ram, table+index*m.entry)
		switch {
		case err != nil:
			return 0, 0, fmt.Errorf("%#x: page table of level %d: %w", gva, level, err)
		case e&present == 0:
			return 0, 0, fmt.Errorf("%#x: %w", gva, ErrUnmapped)
		case level == 1 || e&pageSize != 0 && level <= m.huge:
			size := uint64(1) << shift
			return m.address(e, level)&^(size-1) | gva&(size-1), size - gva&(size-1), nil
		}
		table = e & addrMask
	}
}

// Read fills p with virtual memory from gva on. It returns how much it has read,
// which is less than p where an error says why.
func (s Space) Read(ram RAM, gva uint64, p []byte) (int, error) {
	n := 0
	for n < len(p) {
		gpa, left, err := s.Translate(ram, gva+uint64(n))
		if err != nil {
			return n, err
		}
		// By small pages: RAM may end inside of a huge one.
		size := min(left, uint64(len(p)-n), 4096-gpa%4096)
		b, err := ram.Readable(gpa, size)
		if err != nil {
			return n, fmt.Errorf("%#x: %w", gva+uint64(n), err)
		}
		n += copy(p[n:], b)
	}
	return n, nil
}

func (m mode) load(ram RAM, gpa uint64) (uint64, error) {
	b, err := ram.Readable(gpa, m.entry)
	if err != nil {
		return 0, err
	}
	if m.entry == 4 {
		return uint64(binary.LittleEndian.Uint32(b)), nil
	}
	return binary.LittleEndian.Uint64(b), nil
}

// address is where an entry's page lies; its low bits are not cleared.
func (m mode) address(e uint64, level int) uint64 {
	if m.entry == 4 && level == 2 {
		return e&(1<<32-1<<22) | e>>13&0xff<<32 // PSE-36, §4.3
	}
	return e & addrMask
}

// canonical tells whether all bits from the highest one that is translated on are
// the same.
func canonical(gva uint64, bits int) bool {
	sign := int64(gva) >> (bits - 1)
	return sign == 0 || sign == -1
}
