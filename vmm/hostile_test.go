package vmm

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"

	"github.com/huskvm/husk/devices"
	"github.com/huskvm/husk/devices/acpipm"
)

// An attack writes guests that try what no driver would. The same source of
// randomness makes the same guest.
type attack struct {
	*rand.Rand
	mapped []devices.Range // ports that have something behind them
	lethal float64         // the share of accesses that would end the machine and are left in
}

// buffer is RAM for string instructions.
const buffer = 0x20_0000

// lethalPorts are those through which a guest ends its run.
var lethalPorts = []uint16{portI8042Command, portDebugExit, portPVPanic, portPower + acpipm.SleepControl, portPower + acpipm.Reset}

// likely are values that mean something to one chip or another.
var likely = []uint32{
	0, 1, 2, 4, 5, 7, 8, 0x0a, 0x0b, 0x0c, 0x0f, 0x10, 0x1f, 0x20, 0x26, 0x32, 0x60, 0x72, 0x7f,
	0x80, 0x83, 0x8b, 0xa7, 0xa8, 0xaa, 0xad, 0xae, 0xc1, 0xc7, 0xd1, 0xd2, 0xd4, 0xf4, 0xfe, 0xff,
	acpipm.SleepTypeS5<<2 | 1<<5, 0xff00, 0xffff, 0x8000_0000, 0xffff_ffff,
}

// addresses are where KVM's own chips are, the ends of RAM and of the hole.
var addresses = []uint32{
	ioapicBase, ioapicBase + 0x10, ioapicBase + 0x40, localAPICBase, localAPICBase + 0x80, localAPICBase + 0xb0,
	localAPICBase + 0xf0, localAPICBase + 0x300, localAPICBase + 0x310, localAPICBase + 0x320, localAPICBase + 0x380,
	identityMapBase - 2, tssBase, holeStart - 2, holeStart, holeEnd - 8, soakMemory - 3, soakMemory,
}

// code is one processor's instructions: n attacks, over and over.
func (a attack) code(n int) []byte {
	var c []byte
	for range n {
		switch p := a.Float64(); {
		case p < 0.70:
			c = append(c, a.port()...)
		case p < 0.85:
			c = append(c, a.portString()...)
		default:
			c = append(c, a.memory()...)
		}
	}
	return binary.LittleEndian.AppendUint32(append(c, 0xe9), uint32(-(len(c) + 5))) // jmp to the start
}

// port is one access by IN or OUT.
func (a attack) port() []byte {
	c := imm(movEDX, uint32(a.portNumber()))
	c = append(c, imm(movEAX, a.value())...)
	return append(c, a.sized(pick(a, []byte{0xec, 0xee}))...) // in (%dx),%al; out %al,(%dx)
}

// portString is REP INS or REP OUTS, up or down, on RAM or what is next to it.
func (a attack) portString() []byte {
	at := uint32(buffer + a.IntN(buffer))
	if a.IntN(16) == 0 {
		at = a.address()
	}
	count := a.Uint32N(64)
	if a.IntN(8) == 0 {
		count = a.Uint32N(5000)
	}
	c := imm(movEDX, uint32(a.portNumber()))
	for _, part := range [][]byte{imm(movECX, count), imm(movESI, at), imm(movEDI, at)} {
		c = append(c, part...)
	}
	c = append(c, pick(a, []byte{0xfc, 0xfc, 0xfd}), 0xf3) // cld or std; rep
	return append(c, a.sized(pick(a, []byte{0x6c, 0x6e}))...)
}

// memory is an access to where no RAM is.
func (a attack) memory() []byte {
	at := a.address()
	if a.IntN(8) == 0 {
		c := append(imm(movEDI, at), imm(movECX, a.Uint32N(64))...)
		return append(c, append([]byte{0xfc, 0xf3}, a.sized(0xaa)...)...) // cld; rep stos
	}
	c := append(imm(movEAX, a.value()), a.sized(pick(a, []byte{0xa0, 0xa2}))...) // mov at,%al; mov %al,at
	return binary.LittleEndian.AppendUint32(c, at)
}

// sized is the byte-wide instruction op in one of its three widths.
func (a attack) sized(op byte) []byte {
	return pick(a, [][]byte{{op}, {0x66, op + 1}, {op + 1}})
}

// portNumber is mostly one that is mapped, or next to one.
func (a attack) portNumber() uint16 {
	for {
		p := uint16(a.Uint32())
		if a.IntN(8) != 0 {
			r := pick(a, a.mapped)
			p = uint16(int64(r.Base) + a.Int64N(int64(r.Size)+6) - 3)
		}
		// An access of four bytes reaches three ports further.
		ends := slices.ContainsFunc(lethalPorts, func(l uint16) bool { return p <= l && l-p < 4 })
		if !ends || a.Float64() < a.lethal {
			return p
		}
	}
}

func (a attack) value() uint32 {
	switch a.IntN(4) {
	case 0:
		return a.Uint32()
	case 1:
		return pick(a, likely) ^ 1<<a.IntN(32)
	case 2:
		return pick(a, likely) | pick(a, likely)<<16 // for the second port of a wide access
	default:
		return pick(a, likely)
	}
}

func (a attack) address() uint32 {
	if a.IntN(2) == 0 {
		return pick(a, addresses) + a.Uint32N(8)
	}
	return soakMemory + a.Uint32N(holeEnd-soakMemory)
}

func pick[T any](a attack, from []T) T { return from[a.IntN(len(from))] }

// The first byte of mov $imm32 to a register.
const (
	movEAX = 0xb8
	movECX = 0xb9
	movEDX = 0xba
	movESI = 0xbe
	movEDI = 0xbf
)

func imm(mov byte, v uint32) []byte { return binary.LittleEndian.AppendUint32([]byte{mov}, v) }
