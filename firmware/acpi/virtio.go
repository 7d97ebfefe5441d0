package acpi

import (
	"fmt"

	"github.com/huskvm/husk/firmware/acpi/aml"
)

// A VirtioMMIO is a block of registers of a virtio device (virtio 1.2 §4.2), of
// Size bytes from the guest-physical address Base on.
type VirtioMMIO struct {
	Base, Size uint32
	GSI        uint32 // level, active high
}

func virtioMMIOName(i int) string { return fmt.Sprintf("VirtioMMIO[%d]", i) }

// validateVirtioMMIO refuses a device that cannot be declared.
func (c Config) validateVirtioMMIO() error {
	const most = 1 << 12 // names have three digits
	if n := len(c.VirtioMMIO); n > most {
		return fmt.Errorf("%d in VirtioMMIO: give at most %d", n, most)
	}
	for i, v := range c.VirtioMMIO {
		if v.Size == 0 {
			return fmt.Errorf("%s at %#x has size 0: give it the size of its registers", virtioMMIOName(i), v.Base)
		}
	}
	return nil
}

// device declares the i-th block. Its ID is the one that Linux knows
// (drivers/virtio/virtio_mmio.c). The line is a level: the device holds it until
// the guest has acknowledged, so nothing is lost however late it looks.
func (v VirtioMMIO) device(i int) aml.Term {
	return aml.Device(fmt.Sprintf("V%03X", i),
		hid("LNRO0005"),
		aml.Name("_UID", aml.Integer(uint64(i))),
		aml.Name("_CCA", aml.Integer(1)), // the device sees what is in the caches (§6.2.17)
		crs(aml.FixedMemory(v.Base, v.Size), aml.Interrupt(v.GSI, aml.Level)))
}
