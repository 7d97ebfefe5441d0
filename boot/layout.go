package boot

import (
	"fmt"
	"sort"
	"strings"

	"github.com/huskvm/husk/firmware/e820"
)

const (
	pageSize = 4 << 10
	hugePage = 2 << 20
	oneMiB   = 1 << 20
	fourGiB  = 4 << 30
)

// Boot structures lie below the EBDA and the video memory of old. The first
// page stays zero: Linux looks for a BIOS data area there.
const (
	lowStart = 0x1000
	lowEnd   = 0xa0000
	infoSize = pageSize // of the zero page; PVH's start info is smaller
)

// What advice on the memory size counts on: a PC's RAM below 1 MiB, and a hole
// for devices below 4 GiB.
const (
	plainLow = 0x9fc00
	plainMax = 3 << 30
)

// maxE820 is E820_MAX_ENTRIES_ZEROPAGE: Linux's zero page and its PVH entry take
// no more.
const maxE820 = 128

// A request is what must find room in guest memory.
type request struct {
	name string // the kernel's file
	// kernel takes the kernel's own place; needs says in words what that is.
	kernel func(*space) (span, bool)
	needs  string
	tables bool // page tables are wanted
	// cmdline and initrd are sizes in bytes; initrdEnd is the address that the
	// initramfs must end at or below.
	cmdline, initrd, initrdEnd uint64
}

// A layout says where everything goes. Addresses are guest-physical.
type layout struct {
	kernel  span
	gdt     uint64
	info    uint64 // zero page or start info
	tables  uint64
	cmdline uint64
	initrd  span
}

// place finds the room in free. The problem it returns is empty if it could.
func (r request) place(free space) (l layout, problem string) {
	var ok bool
	if l.kernel, ok = r.kernel(&free); !ok {
		return l, r.needs
	}
	low := func(size uint64) (gpa uint64) {
		at, found := free.lowest(size, pageSize, span{lowStart, lowEnd})
		ok = ok && found
		return at.start
	}
	l.gdt = low(GDTSize)
	l.info = low(infoSize)
	if r.tables {
		l.tables = low(tablesSize)
	}
	l.cmdline = low(r.cmdline)
	if !ok {
		return l, "the boot structures and a command line of " + size(r.cmdline) + " need RAM below 640 KiB"
	}
	if r.initrd == 0 {
		return l, ""
	}
	// High, out of the way of the kernel as it unpacks itself, and from a huge
	// page's start, so that it touches no more of them than it must.
	within := span{oneMiB, r.initrdEnd}
	if l.initrd, ok = free.highest(r.initrd, hugePage, within); !ok {
		l.initrd, ok = free.highest(r.initrd, pageSize, within)
	}
	if !ok {
		return l, fmt.Sprintf("the initramfs of %s must lie below %s beside the kernel, and %s",
			size(r.initrd), size(r.initrdEnd), r.needs)
	}
	return l, ""
}

// fit places the request in m's memory. What does not fit is refused with the
// sizes and the smallest memory that would do.
func (r request) fit(m Machine) (layout, error) {
	l, problem := r.place(newSpace(m.MemoryMap))
	if problem == "" {
		return l, nil
	}
	var ram uint64
	for _, e := range m.MemoryMap {
		if e.Type == e820.RAM {
			ram += e.Size
		}
	}
	const steps = plainMax / hugePage
	n := uint64(sort.Search(steps, func(i int) bool {
		_, problem := r.place(newSpace(plainMap(uint64(i) * hugePage)))
		return problem == ""
	}))
	advice := fmt.Sprintf("give the machine at least %d MiB (-m %dM)", n*hugePage>>20, n*hugePage>>20)
	switch {
	case n == steps && r.initrd > 0:
		advice = "no amount of memory will do; use a smaller initramfs"
	case n == steps:
		advice = "no amount of memory will do"
	case n*hugePage <= ram:
		advice = "the memory map leaves no such place free"
	}
	// What firmware keeps of the memory is less than the next whole MiB.
	return l, refuse(r.name, ErrNoRoom, "%s; the machine has %d MiB: %s", problem, alignUp(ram, oneMiB)>>20, advice)
}

// plainMap is the memory map of a PC with so many bytes of RAM, all below 4 GiB.
func plainMap(ram uint64) []e820.Entry {
	return []e820.Entry{
		{Addr: 0, Size: min(ram, plainLow), Type: e820.RAM},
		{Addr: oneMiB, Size: max(ram, oneMiB) - oneMiB, Type: e820.RAM},
	}
}

// check refuses what no kernel takes: name is the kernel's file, limit the
// longest command line it takes, in bytes without the final NUL.
func (m Machine) check(name string, limit uint64) error {
	if n := uint64(len(m.CommandLine)); n > limit {
		return refuse(name, ErrCommandLine, "it is %d bytes long, and this kernel takes no more than %d; shorten it", n, limit)
	}
	if i := strings.IndexAny(m.CommandLine, "\x00\n"); i >= 0 {
		return refuse(name, ErrCommandLine, "byte %d is %q; give one line of text", i, m.CommandLine[i])
	}
	if n := len(m.MemoryMap); n > maxE820 {
		return refuse(name, ErrMemoryMap, "it has %d entries, and a kernel takes no more than %d; merge some", n, maxE820)
	}
	return nil
}

// size is n bytes in words, rounded to what a reader needs.
func size(n uint64) string {
	switch {
	case n < 10<<10:
		return fmt.Sprintf("%d bytes", n)
	case n < oneMiB:
		return fmt.Sprintf("%.4g KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%.4g MiB", float64(n)/oneMiB)
}
