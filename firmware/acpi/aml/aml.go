// Package aml encodes ACPI Machine Language, the bytecode in which a machine's
// devices are described (ACPI 6.5 §20). It has just the terms that husk's
// tables need, each a function that reads like the ASL operator it stands for.
//
// Names and paths are the program's own, never input: a malformed one panics.
package aml

import (
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strings"
)

// A Term is encoded AML: a statement, an expression or an object.
type Term []byte

// The opcodes used (ACPI 6.5 §20.3). The two-byte ones begin with extPrefix.
const (
	opZero, opOne = 0x00, 0x01
	opName        = 0x08
	opByte        = 0x0A
	opWord        = 0x0B
	opDWord       = 0x0C
	opString      = 0x0D
	opQWord       = 0x0E
	opScope       = 0x10
	opBuffer      = 0x11
	opPackage     = 0x12
	opMethod      = 0x14
	opDualName    = 0x2E
	opMultiName   = 0x2F
	extPrefix     = 0x5B
	opLocal0      = 0x60
	opArg0        = 0x68
	opStore       = 0x70
	opAnd         = 0x7B
	opOr          = 0x7D
	opRegion      = 0x80 // after extPrefix
	opField       = 0x81 // after extPrefix
	opDevice      = 0x82 // after extPrefix
	opNotify      = 0x86
	opDWordField  = 0x8A
	opLNot        = 0x92
	opLEqual      = 0x93
	opIf          = 0xA0
	opElse        = 0xA1
	opReturn      = 0xA4
)

// Scope opens the existing object at path to put terms into it.
func Scope(path string, terms ...Term) Term {
	return sized(Term{opScope}, Path(path), join(terms))
}

// Device declares a device.
func Device(name string, terms ...Term) Term {
	return sized(Term{extPrefix, opDevice}, Path(name), join(terms))
}

// Name declares an object that has a constant value.
func Name(name string, value Term) Term {
	return slices.Concat(Term{opName}, Path(name), value)
}

// Method declares a method of args arguments, 0 to 7. It is serialized: only
// one thread of the guest is in it at a time.
func Method(name string, args int, terms ...Term) Term {
	const serialized = 1 << 3
	return sized(Term{opMethod}, Path(name), Term{byte(args) | serialized}, join(terms))
}

// PortRegion declares n bytes of I/O space from port on as a region.
func PortRegion(name string, port uint16, n uint16) Term {
	const systemIO = 1
	return slices.Concat(Term{extPrefix, opRegion}, Path(name), Term{systemIO},
		Integer(uint64(port)), Integer(uint64(n)))
}

// ByteFields declares the bytes of a region, from its first on, as variables:
// to use one is to access the hardware, a byte at a time.
func ByteFields(region string, names ...string) Term {
	const byteAccess, writeAsZeros = 1, 2 << 5
	var fields Term
	for _, n := range names {
		fields = append(fields, segment(n)...)
		fields = append(fields, 8) // bits
	}
	return sized(Term{extPrefix, opField}, Path(region), Term{byteAccess | writeAsZeros}, fields)
}

// If runs terms when cond is not zero.
func If(cond Term, terms ...Term) Term {
	return sized(Term{opIf}, cond, join(terms))
}

// Else runs terms when the condition of the If before it was zero.
func Else(terms ...Term) Term { return sized(Term{opElse}, join(terms)) }

// Return ends a method with a value.
func Return(value Term) Term { return slices.Concat(Term{opReturn}, value) }

// Equal compares two integers, strings or buffers.
func Equal(a, b Term) Term { return slices.Concat(Term{opLEqual}, a, b) }

// Not is true where cond is zero.
func Not(cond Term) Term { return slices.Concat(Term{opLNot}, cond) }

// And is a bitwise and of two integers.
func And(a, b Term) Term {
	const noTarget = 0
	return slices.Concat(Term{opAnd}, a, b, Term{noTarget})
}

// SetBits sets bits in target.
func SetBits(target Term, bits uint64) Term {
	return slices.Concat(Term{opOr}, target, Integer(bits), target)
}

// DWordField declares four bytes of a buffer, from off on, as a variable.
func DWordField(buffer Term, off uint64, name string) Term {
	return slices.Concat(Term{opDWordField}, buffer, Integer(off), segment(name))
}

// Store assigns value to target.
func Store(value, target Term) Term {
	return slices.Concat(Term{opStore}, value, target)
}

// Notify tells the guest's driver of the device at path of an event.
func Notify(path string, event uint64) Term {
	return slices.Concat(Term{opNotify}, Path(path), Integer(event))
}

// Local is a method's local variable n, 0 to 7.
func Local(n int) Term { return Term{opLocal0 + byte(n)} }

// Arg is a method's argument n, 0 to 6.
func Arg(n int) Term { return Term{opArg0 + byte(n)} }

// Integer is a constant in its shortest form.
func Integer(v uint64) Term {
	le := binary.LittleEndian
	switch {
	case v == 0:
		return Term{opZero}
	case v == 1:
		return Term{opOne}
	case v < 1<<8:
		return Term{opByte, byte(v)}
	case v < 1<<16:
		return le.AppendUint16(Term{opWord}, uint16(v))
	case v < 1<<32:
		return le.AppendUint32(Term{opDWord}, uint32(v))
	default:
		return le.AppendUint64(Term{opQWord}, v)
	}
}

// String is a constant of ASCII characters.
func String(s string) Term {
	return append(append(Term{opString}, s...), 0)
}

// Buffer is a constant of bytes.
func Buffer(p []byte) Term {
	return sized(Term{opBuffer}, Integer(uint64(len(p))), Term(p))
}

// UUID is an identifier such as 33DB4D5B-1FF7-401C-9657-7441C03DD766 as a
// buffer (§19.6.143): the first three groups are little-endian.
func UUID(id string) Term {
	p, err := hex.DecodeString(strings.ReplaceAll(id, "-", ""))
	if err != nil || len(p) != 16 {
		panic("aml: a UUID has 32 hexadecimal digits: " + id)
	}
	slices.Reverse(p[0:4])
	slices.Reverse(p[4:6])
	slices.Reverse(p[6:8])
	return Buffer(p)
}

// Package is an array of up to 255 values.
func Package(values ...Term) Term {
	return sized(Term{opPackage}, Term{byte(len(values))}, join(values))
}

// HardwareID is the value of _HID: an EISA identifier such as PNP0501 packed
// into an integer, or a longer one such as ACPI0013 as a string (§6.1.5).
func HardwareID(id string) Term {
	if len(id) != len("PNP0501") {
		return String(id)
	}
	const digits = "0123456789ABCDEF"
	var v uint32
	for _, c := range id[:3] {
		v = v<<5 | uint32(c-'@')
	}
	for i := range 4 {
		v = v<<4 | uint32(strings.IndexByte(digits, id[3+i]))
	}
	// The first letter is in the low byte.
	return binary.BigEndian.AppendUint32(Term{opDWord}, v)
}

// Path names an object: one segment, which is looked for in the scopes around,
// or segments with dots between, from the root where it begins with a
// backslash (§20.2.2).
func Path(path string) Term {
	var t Term
	rest, rooted := strings.CutPrefix(path, `\`)
	if rooted {
		t = append(t, '\\')
	}
	segments := strings.Split(rest, ".")
	switch n := len(segments); n {
	case 1:
	case 2:
		t = append(t, opDualName)
	default:
		t = append(t, opMultiName, byte(n))
	}
	for _, s := range segments {
		t = append(t, segment(s)...)
	}
	return t
}

// segment is a name of up to four characters, filled up with underscores.
func segment(name string) Term {
	if name == "" || len(name) > 4 {
		panic("aml: a name has one to four characters: " + name)
	}
	return Term(name + "___"[:4-len(name)])
}

// sized is an opcode, the length of what follows it, and that (§20.2.4).
func sized(op Term, parts ...Term) Term {
	body := join(parts)
	return slices.Concat(op, packageLength(len(body)), body)
}

// packageLength encodes n and its own length. One byte holds up to 63; else
// the first has the count of further bytes in its top two bits and the low
// four bits of the length.
func packageLength(n int) Term {
	if n+1 < 1<<6 {
		return Term{byte(n + 1)}
	}
	for more := 1; more <= 3; more++ {
		total := n + 1 + more
		if total >= 1<<(4+8*more) {
			continue
		}
		t := Term{byte(more<<6 | total&0xF)}
		for total >>= 4; more > 0; more-- {
			t = append(t, byte(total))
			total >>= 8
		}
		return t
	}
	panic("aml: a term has less than 256 MiB")
}

func join(terms []Term) Term { return slices.Concat(terms...) }
