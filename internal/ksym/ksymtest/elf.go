// Package ksymtest makes kernels of a few functions, for tests: ELF files with the
// tables that a kernel carries, in the forms of all its versions.
package ksymtest

import (
	"bytes"
	"debug/elf"
	"encoding/binary"

	"github.com/huskvm/husk/internal/ksym"
)

// A Section is one of an ELF file, in a segment of its own.
type Section struct {
	Name string
	Addr uint64
	Data []byte
	Code bool
}

const (
	headerSize  = 64
	programSize = 56
	sectionSize = 64
	symbolSize  = 24
)

// ELF makes an ELF file for x86-64, with a symbol table if there are symbols. Their
// types are as nm has them.
func ELF(sections []Section, symbols []ksym.Symbol) []byte {
	var body bytes.Buffer
	names := []byte{0}
	name := func(s string) uint32 {
		at := len(names)
		names = append(append(names, s...), 0)
		return uint32(at)
	}
	start := uint64(headerSize + programSize*len(sections))
	headers := []elf.Section64{{}}
	var programs []elf.Prog64
	add := func(h elf.Section64, data []byte) {
		h.Off, h.Size = start+uint64(body.Len()), uint64(len(data))
		body.Write(data)
		headers = append(headers, h)
	}
	for _, s := range sections {
		h := elf.Section64{Name: name(s.Name), Type: uint32(elf.SHT_PROGBITS), Flags: uint64(elf.SHF_ALLOC), Addr: s.Addr}
		p := elf.Prog64{Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R), Vaddr: s.Addr, Paddr: s.Addr, Filesz: uint64(len(s.Data)), Memsz: uint64(len(s.Data))}
		if s.Code {
			h.Flags |= uint64(elf.SHF_EXECINSTR)
			p.Flags |= uint32(elf.PF_X)
		}
		add(h, s.Data)
		p.Off = headers[len(headers)-1].Off
		programs = append(programs, p)
	}
	if len(symbols) > 0 {
		table, strings := symtab(sections, symbols)
		add(elf.Section64{Name: name(".symtab"), Type: uint32(elf.SHT_SYMTAB), Link: uint32(len(headers) + 1), Entsize: symbolSize}, table)
		add(elf.Section64{Name: name(".strtab"), Type: uint32(elf.SHT_STRTAB)}, strings)
	}
	own := name(".shstrtab")
	add(elf.Section64{Name: own, Type: uint32(elf.SHT_STRTAB)}, names)

	h := elf.Header64{
		Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: 1,
		Phoff: headerSize, Shoff: start + uint64(body.Len()), Ehsize: headerSize,
		Phentsize: programSize, Phnum: uint16(len(programs)),
		Shentsize: sectionSize, Shnum: uint16(len(headers)), Shstrndx: uint16(len(headers) - 1),
	}
	copy(h.Ident[:], "\x7fELF\x02\x01\x01")
	var out bytes.Buffer
	for _, part := range []any{h, programs, body.Bytes(), headers} {
		write(&out, part)
	}
	return out.Bytes()
}

func symtab(sections []Section, symbols []ksym.Symbol) (table, strings []byte) {
	strings = []byte{0}
	var out bytes.Buffer
	write(&out, elf.Sym64{})
	for _, s := range symbols {
		e := elf.Sym64{Name: uint32(len(strings)), Value: s.Addr, Shndx: uint16(elf.SHN_ABS)}
		strings = append(append(strings, s.Name...), 0)
		for i, in := range sections {
			if s.Addr >= in.Addr && s.Addr < in.Addr+uint64(len(in.Data)) {
				e.Shndx = uint16(i + 1)
			}
		}
		bind := elf.STB_LOCAL
		if s.Type == 'W' {
			bind = elf.STB_WEAK
		} else if s.Type < 'a' {
			bind = elf.STB_GLOBAL
		}
		e.Info = elf.ST_INFO(bind, elf.STT_FUNC)
		write(&out, e)
	}
	return out.Bytes(), strings
}

func write(b *bytes.Buffer, v any) {
	if err := binary.Write(b, binary.LittleEndian, v); err != nil {
		panic(err) // a value without a fixed size
	}
}
