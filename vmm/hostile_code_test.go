package vmm

import "encoding/binary"

// buffer is RAM for string instructions.
const buffer = 0x20_0000

// maxCode is how long a processor's instructions can be.
const maxCode = mib

// code is one processor's instructions: n moves, over and over.
func (a attack) code(n int) []byte {
	var c []byte
	for range n {
		var next []byte
		switch p := a.Float64(); {
		case p < 0.10:
			next = a.portString()
		case p < 0.12:
			next = a.fill()
		default:
			for _, x := range a.move() {
				next = append(next, x.code()...)
			}
		}
		if len(c)+len(next)+5 > maxCode {
			break
		}
		c = append(c, next...)
	}
	return binary.LittleEndian.AppendUint32(append(c, 0xe9), uint32(-(len(c) + 5))) // jmp to the start
}

// code is the instructions that make an access, below 4 GiB. One of 8 bytes takes
// two.
func (x access) code() []byte {
	if x.size == 8 {
		low, high := x, x
		low.size, high.size = 4, 4
		high.addr, high.value = x.addr+4, x.value>>32
		return append(low.code(), high.code()...)
	}
	if x.addr > 0xffff_ffff {
		return nil
	}
	c := imm(movEAX, uint32(x.value))
	op := byte(0xa0) // mov at,%al
	if x.port {
		c = append(c, imm(movEDX, uint32(x.addr))...)
		op = 0xec // in (%dx),%al
	}
	if x.store {
		op += 2 // mov %al,at; out %al,(%dx)
	}
	c = append(c, map[int][]byte{1: {op}, 2: {0x66, op + 1}, 4: {op + 1}}[x.size]...)
	if !x.port {
		c = binary.LittleEndian.AppendUint32(c, uint32(x.addr))
	}
	return c
}

// portString is REP INS or REP OUTS, up or down, on RAM or what is next to it.
func (a attack) portString() []byte {
	at := uint32(buffer + a.IntN(buffer))
	if a.IntN(16) == 0 {
		at = a.address()
	}
	port := a.portNumber()
	for !a.spares(access{port: true, addr: uint64(port), size: 4, value: spareSlot << 11}) {
		port = a.portNumber() // what would be stored there is not known
	}
	count := a.Uint32N(64)
	if a.IntN(8) == 0 {
		count = a.Uint32N(5000)
	}
	c := imm(movEDX, uint32(port))
	for _, part := range [][]byte{imm(movECX, count), imm(movESI, at), imm(movEDI, at)} {
		c = append(c, part...)
	}
	c = append(c, pick(a, []byte{0xfc, 0xfc, 0xfd}), 0xf3) // cld or std; rep
	op := pick(a, []byte{0x6c, 0x6e})
	return append(c, pick(a, [][]byte{{op}, {0x66, op + 1}, {op + 1}})...)
}

// fill is REP STOS to where no RAM is.
func (a attack) fill() []byte {
	at, n := a.address(), a.Uint32N(64)
	if !a.spares(access{addr: uint64(at), size: 256}) {
		return nil
	}
	c := append(imm(movEDI, at), imm(movECX, n)...)
	return append(c, append([]byte{0xfc, 0xf3}, pick(a, [][]byte{{0xaa}, {0x66, 0xab}, {0xab}})...)...) // cld; rep stos
}

// The first byte of mov $imm32 to a register.
const (
	movEAX = 0xb8
	movECX = 0xb9
	movEDX = 0xba
	movESI = 0xbe
	movEDI = 0xbf
)

func imm(mov byte, v uint32) []byte { return binary.LittleEndian.AppendUint32([]byte{mov}, v) }
