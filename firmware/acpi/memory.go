package acpi

import "fmt"

// A region is a part of memory space that one field of Config has.
type region struct {
	name string
	Window
	end uint64 // of the address space it must be in, 0 for none
}

// memory is what the configuration puts into memory space.
func (c Config) memory() []region {
	const page = 4096
	regions := []region{
		{"the local APICs", Window{uint64(c.LocalAPIC), page}, 0},
		{"the IOAPIC", Window{uint64(c.IOAPIC.Address), page}, 0},
	}
	if p := c.PCI; p != nil {
		regions = append(regions,
			region{"PCI.ECAM", Window{p.ECAM, mib * (uint64(p.LastBus) + 1)}, 0},
			region{"PCI.Memory32", p.Memory32, gib4},
			region{"PCI.Memory64", p.Memory64, 0})
	}
	for i, v := range c.VirtioMMIO {
		regions = append(regions, region{virtioMMIOName(i), Window{uint64(v.Base), uint64(v.Size)}, gib4})
	}
	return regions
}

// disjoint refuses regions that the DSDT cannot say, and such as overlap. A size
// of 0 stands for none.
func disjoint(regions []region) error {
	for i, a := range regions {
		if a.Size == 0 {
			continue
		}
		if a.last() < a.Base || a.end != 0 && a.last() >= a.end {
			return fmt.Errorf("%s has %#x bytes at %#x, past the end of its address space: lower one of them", a.name, a.Size, a.Base)
		}
		for _, b := range regions[:i] {
			if b.Size != 0 && a.Base <= b.last() && b.Base <= a.last() {
				return fmt.Errorf("%s (%#x to %#x) and %s (%#x to %#x) overlap: move one",
					b.name, b.Base, b.last(), a.name, a.Base, a.last())
			}
		}
	}
	return nil
}
