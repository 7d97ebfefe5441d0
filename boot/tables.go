package boot

import "encoding/binary"

// Segment descriptors (Intel SDM vol. 3 §3.4.5): present, base 0, limit 4 GiB,
// accessed already, so that the processor has nothing to write back.
const (
	code32 = 0x00cf9b000000ffff // execute and read, D=1
	code64 = 0x00af9b000000ffff // execute and read, L=1
	data   = 0x00cf93000000ffff // read and write
)

// gdt is the GDT for a mode, with the code at BootCS and the data at BootDS.
func gdt(mode Mode) []byte {
	code := uint64(code32)
	if mode == Long64 {
		code = code64
	}
	b := make([]byte, GDTSize)
	binary.LittleEndian.PutUint64(b[BootCS:], code)
	binary.LittleEndian.PutUint64(b[BootDS:], data)
	return b
}

// Page table entry bits (Intel SDM vol. 3 §4.5).
const (
	ptePresent = 1 << 0
	pteWrite   = 1 << 1
	pteHuge    = 1 << 7 // in a page directory: maps 2 MiB
)

// tablesSize is one page map level 4, one directory pointer table, and a
// directory for each of four GiB.
const tablesSize = (1 + 1 + 4) * pageSize

// pageTables are four-level tables to lie at gpa, which map the first 4 GiB to
// themselves in pages of 2 MiB: all that the loader places, whatever ACPI tables
// the kernel looks at, and the APICs.
func pageTables(gpa uint64) []byte {
	b := make([]byte, tablesSize)
	put := func(table, i int, entry uint64) {
		binary.LittleEndian.PutUint64(b[table*pageSize+i*8:], entry|ptePresent|pteWrite)
	}
	put(0, 0, gpa+1*pageSize)
	for gib := range 4 {
		put(1, gib, gpa+uint64(2+gib)*pageSize)
		for i := range 512 {
			put(2+gib, i, uint64(gib)<<30|uint64(i)*hugePage|pteHuge)
		}
	}
	return b
}
