package vmm

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/huskvm/husk/boot"
)

// kernel is a whole kernel around a few instructions of 32-bit code: an ELF
// with the note by which PVH finds its entry, loaded at 1 MiB.
func kernel(code ...byte) boot.Source {
	const (
		load       = 0x10_0000
		headerSize = 52
		phdrSize   = 32
	)
	le := binary.LittleEndian
	note := []byte{4, 0, 0, 0, 4, 0, 0, 0, 18, 0, 0, 0, 'X', 'e', 'n', 0} // XEN_ELFNOTE_PHYS32_ENTRY
	note = le.AppendUint32(note, load)

	const noteOff = headerSize + 2*phdrSize
	codeOff := uint32(noteOff + len(note))
	b := []byte{0x7f, 'E', 'L', 'F', 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	b = le.AppendUint16(b, 2) // ET_EXEC
	b = le.AppendUint16(b, 3) // EM_386
	for _, v := range []uint32{1, load, headerSize, 0, 0} {
		b = le.AppendUint32(b, v)
	}
	for _, v := range []uint16{headerSize, phdrSize, 2, 0, 0, 0} {
		b = le.AppendUint16(b, v)
	}
	for _, v := range []uint32{
		1, codeOff, load, load, uint32(len(code)), uint32(len(code)), 7, 1, // PT_LOAD
		4, noteOff, 0, 0, uint32(len(note)), uint32(len(note)), 4, 4, // PT_NOTE
	} {
		b = le.AppendUint32(b, v)
	}
	b = append(append(b, note...), code...)
	return boot.Source{Name: "tiny", Size: int64(len(b)), ReaderAt: bytes.NewReader(b)}
}

// Instructions for tiny guests.

func out8(port uint16, v byte) []byte {
	return []byte{0x66, 0xba, byte(port), byte(port >> 8), 0xb0, v, 0xee} // mov $port,%dx; mov $v,%al; out %al,(%dx)
}

func out32(port uint16, v uint32) []byte {
	c := []byte{0x66, 0xba, byte(port), byte(port >> 8), 0xb8}
	return append(binary.LittleEndian.AppendUint32(c, v), 0xef) // mov $v,%eax; out %eax,(%dx)
}

var (
	forever    = []byte{0xeb, 0xfe}                                     // jmp .
	tripleFlt  = []byte{0x0f, 0x01, 0x1d, 0, 0, 0, 0, 0x0f, 0x0b}       // lidt 0 (zeros: no gates); ud2
	countRound = []byte{0xff, 0x05, 0x00, 0x00, 0x20, 0x00, 0xeb, 0xf8} // 1: incl 0x200000; jmp 1b
)

// counter is where countRound counts.
const counter = 0x20_0000

func printOut(s string) []byte {
	var c []byte
	for _, v := range []byte(s) {
		c = append(c, out8(portSerial, v)...)
	}
	return c
}

// echo sends back n bytes that it receives on the serial port.
func echo(n byte) []byte {
	return []byte{
		0xb1, n, // mov $n,%cl
		0x66, 0xba, 0xfd, 0x03, // 1: mov $0x3fd,%dx
		0xec, 0xa8, 0x01, 0x74, 0xf7, // in (%dx),%al; test $1,%al; jz 1b
		0x66, 0xba, 0xf8, 0x03, // mov $0x3f8,%dx
		0xec, 0xee, // in (%dx),%al; out %al,(%dx)
		0xfe, 0xc9, 0x75, 0xed, // dec %cl; jnz 1b
	}
}

func program(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func config(t testing.TB, code ...[]byte) Config {
	t.Helper()
	return Config{Kernel: kernel(program(code...)...), Memory: 16 * mib}
}
