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
	return sized(Term{opBuffer}, Integer(uint64(len(d))), Term(d))
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
