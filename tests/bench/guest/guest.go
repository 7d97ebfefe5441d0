// Package guest makes what every monitor is measured with: the smallest guest
// that says when its first process runs and is quiet from then on.
package guest

import (
	"bytes"
	"encoding/binary"
	"io/fs"

	"github.com/huskvm/husk/boot/initramfs"
)

// Marker is the line that the guest's first process prints.
const Marker = "INIT"

// program prints the marker and sleeps for good: what a guest does after the
// marker would be counted as well. Written by hand because no compiler makes
// anything as small: 190 bytes, so unpacking it costs no monitor anything.
func program() []byte {
	const (
		base    = 0x400000 // address of the file's first byte
		ehdr    = 64       // bytes of an ELF header
		phdr    = 56       // and of a program header
		entry   = base + ehdr + phdr
		message = Marker + "\n"
	)
	code := []byte{
		0xb8, 1, 0, 0, 0, // mov eax, 1 (write)
		0xbf, 1, 0, 0, 0, // mov edi, 1 (standard output)
		0x48, 0x8d, 0x35, 0, 0, 0, 0, // lea rsi, [rip + text]
		0xba, byte(len(message)), 0, 0, 0, // mov edx, length
		0x0f, 0x05, // syscall
		0xb8, 34, 0, 0, 0, // mov eax, 34 (pause)
		0x0f, 0x05, // syscall
		0xeb, 0xf7, // jmp to the mov before it
	}
	const afterLea = 17
	binary.LittleEndian.PutUint32(code[afterLea-4:], uint32(len(code)-afterLea))
	code = append(code, message...)

	var b bytes.Buffer
	put := func(fields ...any) {
		for _, f := range fields {
			_ = binary.Write(&b, binary.LittleEndian, f) // a Buffer takes everything
		}
	}
	b.WriteString("\x7fELF\x02\x01\x01" + "\x00\x00\x00\x00\x00\x00\x00\x00\x00") // 64-bit, little-endian
	put(uint16(2), uint16(62), uint32(1), uint64(entry))                          // ET_EXEC, EM_X86_64
	put(uint64(ehdr), uint64(0), uint32(0))                                       // program headers, no sections
	put(uint16(ehdr), uint16(phdr), uint16(1), uint16(0), uint16(0), uint16(0))
	size := uint64(ehdr + phdr + len(code))
	put(uint32(1), uint32(5), uint64(0), uint64(base), uint64(base), size, size, uint64(0x1000)) // PT_LOAD, R+X
	b.Write(code)
	return b.Bytes()
}

// Initramfs is an archive with the program as its first process.
func Initramfs() ([]byte, error) {
	var b bytes.Buffer
	a := initramfs.NewWriter(&b)
	// The kernel opens the console for its first process.
	if err := a.Device("dev/console", 0o600|fs.ModeDevice|fs.ModeCharDevice, 5, 1); err != nil {
		return nil, err
	}
	p := program()
	if err := a.File("init", 0o755, int64(len(p)), bytes.NewReader(p)); err != nil {
		return nil, err
	}
	if err := a.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
