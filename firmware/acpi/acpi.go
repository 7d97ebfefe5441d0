// Package acpi builds the tables that tell a guest what the machine has.
// Config goes in, bytes come out; nothing else is touched.
//
// The machine is a hardware-reduced one (ACPI 6.5 §4.1): none of the chips that
// ACPI's fixed hardware model brings from the PC of 1996 exists, neither PM
// timer nor PIT nor a pair of 8259s. So a kernel does not spend exits on
// finding, calibrating and masking them.
package acpi

import (
	"encoding/binary"
	"fmt"
)

// Tables is the block to place in guest memory.
type Tables struct {
	Base uint64 // guest-physical address of Data
	Data []byte
	RSDP uint64 // guest-physical address of the root pointer
}

// Build writes the tables for c. The same c gives the same bytes. Errors wrap
// ErrConfig.
func Build(c Config) (Tables, error) {
	if err := c.validate(); err != nil {
		return Tables{}, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	// The root pointer comes first, but is known last.
	b := block{base: c.Base, data: make([]byte, rsdpSize)}
	dsdt := b.add(dsdt(c))
	roots := []uint64{b.add(fadt(c, dsdt)), b.add(madt(c))}
	if c.PCI != nil {
		roots = append(roots, b.add(mcfg(*c.PCI)))
	}
	copy(b.data, rsdp(b.add(xsdt(roots))))

	if end := b.base + uint64(len(b.data)); end > regionEnd {
		return Tables{}, fmt.Errorf("%w: tables of %d bytes at %#x end at %#x, after %#x: lower Base or have fewer than %d CPUs",
			ErrConfig, len(b.data), c.Base, end, regionEnd, len(c.CPUs))
	}
	return Tables{Base: c.Base, Data: b.data, RSDP: c.Base}, nil
}

// A block is guest memory that is filled from base on.
type block struct {
	base uint64 // guest-physical address of data
	data []byte
}

// add puts a table at the next multiple of 16 and returns its address.
func (b *block) add(table []byte) uint64 {
	const alignment = 16
	for len(b.data)%alignment != 0 {
		b.data = append(b.data, 0)
	}
	addr := b.base + uint64(len(b.data))
	b.data = append(b.data, table...)
	return addr
}

// Who made the tables, as their headers say it.
var (
	oemID      = [6]byte{'H', 'U', 'S', 'K', ' ', ' '}
	oemTableID = [8]byte{'H', 'U', 'S', 'K', 'V', 'M', ' ', ' '}
	creatorID  = [4]byte{'H', 'U', 'S', 'K'}
)

// header begins every table but the root pointer (§5.2.6).
type header struct {
	Signature       [4]byte
	Length          uint32
	Revision        uint8
	Checksum        uint8
	OEMID           [6]byte
	OEMTableID      [8]byte
	OEMRevision     uint32
	CreatorID       [4]byte
	CreatorRevision uint32
}

const (
	headerSize     = 36
	headerChecksum = 9 // offset of header.Checksum
)

// table is a header and what follows it, with length and checksum filled in.
func table(signature string, revision uint8, body []byte) []byte {
	t := encode(header{
		Signature:       [4]byte([]byte(signature)),
		Length:          uint32(headerSize + len(body)),
		Revision:        revision,
		OEMID:           oemID,
		OEMTableID:      oemTableID,
		OEMRevision:     1,
		CreatorID:       creatorID,
		CreatorRevision: 1,
	})
	t = append(t, body...)
	t[headerChecksum] = checksum(t)
	return t
}

// rootPointer is the Root System Description Pointer (§5.2.5.3).
type rootPointer struct {
	Signature        [8]byte
	Checksum         uint8 // over the first 20 bytes, which ACPI 1.0 had
	OEMID            [6]byte
	Revision         uint8
	RSDT             uint32
	Length           uint32
	XSDT             uint64
	ExtendedChecksum uint8 // over all
	_                [3]uint8
}

const (
	rsdpSize             = 36
	rsdpSizeV1           = 20
	rsdpChecksum         = 8
	rsdpExtendedChecksum = 32
)

func rsdp(xsdt uint64) []byte {
	p := encode(rootPointer{
		Signature: [8]byte([]byte("RSD PTR ")),
		OEMID:     oemID,
		Revision:  2,
		Length:    rsdpSize,
		XSDT:      xsdt,
	})
	p[rsdpChecksum] = checksum(p[:rsdpSizeV1])
	p[rsdpExtendedChecksum] = checksum(p)
	return p
}

// xsdt is the list of all tables but the DSDT, which the FADT points to (§5.2.8).
func xsdt(tables []uint64) []byte {
	return table("XSDT", 1, encode(tables))
}

// checksum is the byte that makes all bytes, itself included, sum up to zero.
// It is zero in t.
func checksum(t []byte) uint8 {
	var sum uint8
	for _, v := range t {
		sum += v
	}
	return -sum
}

// encode lays out a structure of fixed size as the specification draws it:
// little-endian, without padding, blank fields zero.
func encode(v any) []byte {
	b, err := binary.Append(nil, binary.LittleEndian, v)
	if err != nil {
		panic(err) // only for a type without a fixed size
	}
	return b
}
