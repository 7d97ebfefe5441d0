// Package e820 is the map of guest memory that firmware hands to a kernel: the
// answer of INT 15h, AX=E820h (ACPI 6.5 §15.1), which Linux's zero page and
// PVH's start info carry in their own forms.
package e820

import "strconv"

// A Type says what a range of memory is for (ACPI 6.5 table 15.374).
type Type uint32

// The types husk uses.
const (
	RAM      Type = 1 // AddressRangeMemory
	Reserved Type = 2 // AddressRangeReserved
	ACPI     Type = 3 // AddressRangeACPI: reclaimable once the tables are read
)

// An Entry is one range of guest-physical memory. Addr and Size are in bytes.
type Entry struct {
	Addr uint64 `json:"addr"`
	Size uint64 `json:"size"`
	Type Type   `json:"type"`
}

// End is the first address after the range.
func (e Entry) End() uint64 { return e.Addr + e.Size }

func (t Type) String() string {
	switch t {
	case RAM:
		return "RAM"
	case Reserved:
		return "reserved"
	case ACPI:
		return "ACPI tables"
	default:
		return "type " + strconv.Itoa(int(t))
	}
}
