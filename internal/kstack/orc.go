package kstack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sort"

	"github.com/huskvm/husk/internal/ksym"
)

// ORC is what a kernel built with CONFIG_UNWINDER_ORC knows of its own stack frames
// (kernel Documentation/arch/x86/orc-unwinder.rst): .orc_unwind_ip has addresses, each
// relative to its own place, by which .orc_unwind is sorted; an entry there holds from
// its address to the next. Its form has changed without a number that says so, so it
// is told by what is common in it.

// errORC is tables that are not understood.
var errORC = errors.New("ORC tables")

var le = binary.LittleEndian

// A kind of entry.
type kind uint8

const (
	undefined kind = iota // nothing is known here
	end                   // the first frame of a task
	call                  // a function: the return address is below the previous SP
	regs                  // a whole pt_regs is at the previous SP
	iret                  // only what the processor pushes is there
)

// A reg is where a value counts from.
type reg uint8

const (
	regNone reg = iota
	regPrevSP
	regAX
	regDX
	regDI
	regBP
	regSP
	regR10
	regR13
	regBPIndirect
	regSPIndirect
)

// oldRegs are the numbers of registers until 7.0 or so, newRegs those since. (AX
// came last to the old ones.)
var (
	oldRegs = [16]reg{1: regPrevSP, 2: regDX, 3: regDI, 4: regBP, 5: regSP, 6: regR10, 7: regR13, 8: regBPIndirect, 9: regSPIndirect, 10: regAX}
	newRegs = [16]reg{1: regAX, 2: regDX, 3: regSP, 4: regBP, 5: regDI, 6: regR10, 7: regR13, 8: regPrevSP, 9: regSPIndirect, 10: regBPIndirect}
)

// An entry says how to get from a frame to the one that called it.
type entry struct {
	kind             kind
	signal           bool // the frame before was interrupted: its IP is no return address
	spReg, bpReg     reg
	spOffset, bpOffs int16
}

// A flags is a form of an entry's last byte.
type flags uint8

const (
	flags5_10 flags = iota // two bits of kind, end
	flags6_3               // two bits of kind, signal, end
	flags6_4               // three bits of kind, signal
)

const entrySize = 6 // two 16-bit offsets, two 4-bit registers, the flags

// A table is a kernel's ORC.
type table struct {
	ips, entries []byte
	addr         uint64 // where ips is linked
	flags        flags
	regs         *[16]reg
}

// openORC finds the tables of a kernel. It gives nil, and no error, for one that has
// none: such kernels may have frame pointers.
func openORC(m *ksym.Image) (*table, error) {
	ips, addr := m.Section(".orc_unwind_ip")
	entries, _ := m.Section(".orc_unwind")
	if len(ips) == 0 && len(entries) == 0 {
		return nil, nil
	}
	return newORC(ips, entries, addr)
}

func newORC(ips, entries []byte, addr uint64) (*table, error) {
	t := &table{ips: ips, entries: entries, addr: addr}
	n := len(ips) / 4
	if len(ips)%4 != 0 || len(entries) != n*entrySize || n == 0 {
		return nil, fmt.Errorf("%w: %d bytes of addresses do not belong to %d bytes of entries", errORC, len(ips), len(entries))
	}
	for i := 1; i < n; i++ {
		if t.ip(i) < t.ip(i-1) {
			return nil, fmt.Errorf("%w: they are not sorted, as the kernel's build does", errORC)
		}
	}
	return t, t.recognize()
}

// recognize tells the form of the entries. Nearly all are of functions whose frame is
// found by SP.
func (t *table) recognize() error {
	var oldCall, newCall, oldSP, newSP, known int
	bit3 := false
	for i := 0; i < len(t.entries); i += entrySize {
		sp, flags := t.entries[i+4]&15, t.entries[i+5]
		bit3 = bit3 || flags&8 != 0
		if sp == 0 {
			continue
		}
		known++
		switch {
		case flags&7 == 2:
			newCall++
		case flags&3 == 0:
			oldCall++
		}
		switch sp {
		case 3:
			newSP++
		case 5:
			oldSP++
		}
	}
	most := known / 2
	switch {
	case newCall > most:
		t.flags = flags6_4
	case oldCall > most && bit3:
		t.flags = flags6_3
	case oldCall > most:
		t.flags = flags5_10
	default:
		return fmt.Errorf("%w: a form that husk does not know", errORC)
	}
	switch {
	case newSP > most:
		t.regs = &newRegs
	case oldSP > most:
		t.regs = &oldRegs
	default:
		return fmt.Errorf("%w: registers with numbers that husk does not know", errORC)
	}
	return nil
}

func (t *table) ip(i int) uint64 {
	return t.addr + uint64(4*i) + uint64(int64(int32(le.Uint32(t.ips[4*i:]))))
}

// find is the entry that holds at an address of the kernel as it was linked.
func (t *table) find(ip uint64) (entry, bool) {
	n := len(t.ips) / 4
	i := sort.Search(n, func(i int) bool { return t.ip(i) > ip }) - 1
	if i < 0 {
		return entry{}, false
	}
	return t.entry(i), true
}

func (t *table) entry(i int) entry {
	b := t.entries[i*entrySize:]
	e := entry{
		spOffset: int16(le.Uint16(b)), bpOffs: int16(le.Uint16(b[2:])),
		spReg: t.regs[b[4]&15], bpReg: t.regs[b[4]>>4],
	}
	f := b[5]
	if t.flags == flags6_4 {
		e.kind, e.signal = kind(f&7), f&8 != 0
		if e.kind > iret {
			e.kind = undefined
		}
		return e
	}
	ends := f&4 != 0
	e.signal = f&3 != 0 // there was no bit for it: a frame of registers implies it
	if t.flags == flags6_3 {
		ends, e.signal = f&8 != 0, f&4 != 0
	}
	switch {
	case e.spReg == regNone && ends:
		e.kind = end
	case e.spReg == regNone:
		e.kind = undefined
	default:
		e.kind = call + kind(f&3)
		if e.kind > iret {
			e.kind = undefined
		}
	}
	return e
}
