package aml

import (
	"encoding/binary"
	"slices"
)

// A Descriptor is one thing that a device occupies or uses (ACPI 6.5 §6.4).
type Descriptor []byte

// ResourceTemplate is the value of _CRS: what a device has.
func ResourceTemplate(descriptors ...Descriptor) Term {
	const endTag, noChecksum = 0x79, 0 // §6.4.2.9
	d := append(slices.Concat(descriptors...), endTag, noChecksum)
	return Buffer(d)
}

// IO is n ports from port on, at that place only (§6.4.2.5).
func IO(port uint16, n uint8) Descriptor {
	const tag, decode16, alignment = 0x47, 1, 1
	d := Descriptor{tag, decode16}
	d = binary.LittleEndian.AppendUint16(d, port) // lowest base
	d = binary.LittleEndian.AppendUint16(d, port) // highest base
	return append(d, alignment, n)
}

// A Trigger is how an interrupt line is sampled.
type Trigger byte

// The triggers (§6.4.3.6, interrupt vector flags).
const (
	Level Trigger = 0
	Edge  Trigger = 1 << 1
)

// Interrupt is a GSI that the device alone raises, active high (§6.4.3.6).
func Interrupt(gsi uint32, trigger Trigger) Descriptor {
	const tag, length, consumer, count = 0x89, 6, 1, 1
	d := Descriptor{tag, length, 0, consumer | byte(trigger), count}
	return binary.LittleEndian.AppendUint32(d, gsi)
}

// FixedMemory is n bytes of memory space below 4 GiB, from base on, that a device
// has itself (§6.4.3.4).
func FixedMemory(base, n uint32) Descriptor {
	const tag, size, readWrite = 0x86, 9, 1
	d := Descriptor{tag, size, 0, readWrite}
	d = binary.LittleEndian.AppendUint32(d, base)
	return binary.LittleEndian.AppendUint32(d, n)
}

// A Use says whether a device has a range itself, or passes it on to the devices
// behind it (§6.4.3.5, general flags).
type Use byte

// The uses.
const (
	Producer Use = 0
	Consumer Use = 1 << 0
)

// The types of an address space (§6.4.3.5).
const (
	spaceMemory = 0
	spaceIO     = 1
	spaceBus    = 2
)

// fixed says that a range is at that place only: _MIF and _MAF.
const fixed = 1<<2 | 1<<3

// BusNumbers are the buses, from first to last, behind a bridge (§6.4.3.5.3).
func BusNumbers(first, last uint8) Descriptor {
	return wordSpace(spaceBus, 0, uint16(first), uint16(last))
}

// PortWindow is n ports, from port on, that a bridge passes on (§6.4.3.5.3).
func PortWindow(port, n uint16) Descriptor {
	const entireRange = 3 // ISA addresses, too
	return wordSpace(spaceIO, entireRange, port, port+(n-1))
}

// wordSpace is a Word Address Space Descriptor of a producer.
func wordSpace(space, flags byte, first, last uint16) Descriptor {
	const tag, size = 0x88, 13
	d := Descriptor{tag, size, 0, space, byte(Producer) | fixed, flags}
	for _, v := range []uint16{0, first, last, 0, last - first + 1} { // granularity, …, translation, length
		d = binary.LittleEndian.AppendUint16(d, v)
	}
	return d
}

// memoryFlags are those of device memory: read-write, not cacheable. It is
// not called prefetchable, as an OS would place nothing else in it then.
const memoryFlags = 1 << 0

// DWordMemory is n bytes of memory space below 4 GiB, from base on (§6.4.3.5.2).
func DWordMemory(use Use, base, n uint32) Descriptor {
	const tag, size = 0x87, 23
	d := Descriptor{tag, size, 0, spaceMemory, byte(use) | fixed, memoryFlags}
	for _, v := range []uint32{0, base, base + (n - 1), 0, n} {
		d = binary.LittleEndian.AppendUint32(d, v)
	}
	return d
}

// QWordMemory is n bytes of memory space from base on (§6.4.3.5.1).
func QWordMemory(use Use, base, n uint64) Descriptor {
	const tag, size = 0x8A, 43
	d := Descriptor{tag, size, 0, spaceMemory, byte(use) | fixed, memoryFlags}
	for _, v := range []uint64{0, base, base + (n - 1), 0, n} {
		d = binary.LittleEndian.AppendUint64(d, v)
	}
	return d
}
