package vmm

import (
	"github.com/huskvm/husk/devices/pci"
	"github.com/huskvm/husk/devices/virtio/mmio"
	"github.com/huskvm/husk/firmware/acpi"
	"github.com/huskvm/husk/firmware/e820"
	"github.com/huskvm/husk/vmm/memory"
)

const (
	kib = 1 << 10
	mib = 1 << 20
	gib = 1 << 30
)

// The address map. RAM below the hole is one range from 0, so that the first
// 2 MiB can be a huge page too: what a PC keeps between 640 KiB and 1 MiB is
// RAM here as well, and the memory map says which parts are taken.
const (
	acpiBase = 0xe0000 // ACPI tables, where kernels without a pointer look for the RSDP (ACPI 6.5 §5.2.5.1)

	holeStart = 3 * gib // room for PCI windows and chips below 4 GiB
	holeEnd   = 4 * gib

	// What the PCI host bridge passes on below 4 GiB, and its configuration space.
	pciLowBase = 0xc000_0000
	pciLowSize = 512 * mib
	ecamBase   = 0xe000_0000
	mmioBase   = 0xe010_0000 // virtio-mmio's registers, a page for each device
	mmioStride = 0x1000
	// PCI's window above 4 GiB, behind RAM: see pciHigh.
	pciHighSize = gib

	ioapicBase    = 0xfec0_0000
	localAPICBase = 0xfee0_0000
	// On Intel without unrestricted guests KVM keeps a page table and a TSS in
	// guest-physical space (KVM API §4.8 KVM_SET_IDENTITY_MAP_ADDR and
	// KVM_SET_TSS_ADDR): four pages in the hole that are nobody's.
	identityMapBase = 0xfeff_c000
	tssBase         = 0xfeff_d000
)

// The ports. Those of a PC are where a PC has them.
const (
	portI8042Data    = 0x60
	portI8042Command = 0x64
	portRTC          = 0x70
	portDebugExit    = 0xf4 // as QEMU's isa-debug-exit
	portSerial       = 0x3f8
	portPVPanic      = 0x505 // QEMU docs/specs/pvpanic
	portMarker       = 0x520
	portPower        = 0x600 // acpipm: sleep, reset, power button
)

// The interrupts, as IOAPIC inputs.
const (
	ioapicPins = 24

	gsiKeyboard = 1
	gsiSerial   = 4
	gsiRTC      = 8
	gsiPower    = 9
	gsiAux      = 12
	gsiPCI      = 16 // and the next three, for INTA# to INTD#
	pciPins     = 4
)

// gsisMMIO are the interrupts of virtio-mmio devices, in the order in which they
// are given out: what is free, those first that no ISA device ever had.
var gsisMMIO = [...]uint32{20, 21, 22, 23, 5, 10, 11, 7, 6, 3, 15, 14, 13}

// virtioMMIO is the place of the i-th virtio-mmio device.
func virtioMMIO(i int) acpi.VirtioMMIO {
	return acpi.VirtioMMIO{Base: mmioBase + uint32(i)*mmioStride, Size: mmio.Size, GSI: gsisMMIO[i]}
}

// ramRanges lays size bytes of RAM around the hole.
func ramRanges(size uint64) []memory.Range {
	if size <= holeStart {
		return []memory.Range{{GPA: 0, Size: size}}
	}
	return []memory.Range{{GPA: 0, Size: holeStart}, {GPA: holeEnd, Size: size - holeStart}}
}

// pciHigh is where a machine with so many bytes of RAM has PCI's window above 4 GiB.
func pciHigh(ram uint64) uint64 {
	ranges := ramRanges(ram)
	last := ranges[len(ranges)-1]
	return (max(holeEnd, last.GPA+last.Size) + gib - 1) &^ (gib - 1)
}

// memoryMap is what the guest is told of its memory.
func memoryMap(size uint64) []e820.Entry {
	return e820.PC(min(size, holeStart), size-min(size, holeStart),
		// Linux uses ECAM from the start only where the map has it, too.
		e820.Entry{Addr: ecamBase, Size: pci.ECAMSize, Type: e820.Reserved},
		e820.Entry{Addr: identityMapBase, Size: 4 * 4096, Type: e820.Reserved})
}
