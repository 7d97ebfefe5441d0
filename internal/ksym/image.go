package ksym

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// maxImage bounds what is kept of a kernel, in bytes. Distributions' have 50 to 80 MiB
// without their debug information, which is not read.
const maxImage = 1 << 30

// An Image is a kernel as it was linked: what its ELF file loads, by virtual address.
type Image struct {
	segments []segment
	code     []extent // what can be executed
	sections map[string]elf.SectionHeader
	symtab   []Symbol // of .symtab; a stripped kernel has none
}

// A segment is bytes that are loaded together.
type segment struct {
	addr uint64
	data []byte
}

type extent struct{ addr, size uint64 }

// OpenImage reads the ELF file of a kernel for x86-64.
func OpenImage(r io.ReaderAt) (*Image, error) {
	f, err := elf.NewFile(r)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoSymbols, err)
	}
	if f.Machine != elf.EM_X86_64 || f.Class != elf.ELFCLASS64 {
		return nil, fmt.Errorf("%w: it is an ELF file for %v, not for x86-64", ErrNoSymbols, f.Machine)
	}
	m := &Image{sections: map[string]elf.SectionHeader{}}
	room := uint64(maxImage)
	for _, p := range f.Progs {
		if p.Type != elf.PT_LOAD || p.Vaddr < KernelBase {
			continue // per-CPU memory is linked at 0
		}
		if p.Filesz > room {
			return nil, fmt.Errorf("%w: it loads more than %d bytes", ErrNoSymbols, maxImage)
		}
		room -= p.Filesz
		// What the header claims is not believed before the bytes are there.
		var b bytes.Buffer
		if _, err := io.CopyN(&b, p.Open(), int64(p.Filesz)); err != nil {
			return nil, fmt.Errorf("%w: segment at %#x: %w", ErrNoSymbols, p.Vaddr, err)
		}
		m.segments = append(m.segments, segment{p.Vaddr, b.Bytes()})
		if p.Flags&elf.PF_X != 0 {
			m.code = append(m.code, extent{p.Vaddr, p.Filesz})
		}
	}
	for _, s := range f.Sections {
		m.sections[s.Name] = s.SectionHeader
		if s.Flags&elf.SHF_EXECINSTR != 0 {
			m.code = append(m.code, extent{s.Addr, s.Size})
		}
	}
	symbols, err := f.Symbols()
	if err != nil && !errors.Is(err, elf.ErrNoSymbols) {
		return nil, fmt.Errorf("%w: its symbol table: %w", ErrNoSymbols, err)
	}
	m.symtab = fromELF(f, symbols)
	return m, nil
}

// fromELF keeps what nm would list, and tells code from data.
func fromELF(f *elf.File, symbols []elf.Symbol) []Symbol {
	var kept []Symbol
	for _, s := range symbols {
		kind := elf.ST_TYPE(s.Info)
		local := strings.HasPrefix(s.Name, ".L") || strings.HasPrefix(s.Name, "$")
		if kind == elf.STT_FILE || kind == elf.STT_SECTION || s.Section == elf.SHN_UNDEF || local {
			continue
		}
		letter := byte('d')
		if i := int(s.Section); i < len(f.Sections) && f.Sections[i].Flags&elf.SHF_EXECINSTR != 0 {
			letter = 't'
		}
		switch elf.ST_BIND(s.Info) {
		case elf.STB_GLOBAL:
			letter -= 0x20
		case elf.STB_WEAK:
			letter = 'W'
		}
		kept = append(kept, Symbol{Name: s.Name, Addr: s.Value, Type: letter})
	}
	return kept
}

// Symbols are those of the file's symbol table, or else those that the kernel carries
// for its own traces.
func (m *Image) Symbols() (*Table, error) {
	if len(m.symtab) > 0 {
		if t, err := newTable(slices.Clone(m.symtab)); err == nil {
			return t, nil
		}
	}
	return m.kallsyms()
}

// Bytes is the n bytes that are linked at addr; nil where they are not all in the file.
func (m *Image) Bytes(addr, n uint64) []byte {
	for _, s := range m.segments {
		if off := addr - s.addr; addr >= s.addr && off < uint64(len(s.data)) && n <= uint64(len(s.data))-off {
			return s.data[off : off+n : off+n]
		}
	}
	return nil
}

// Section is a section that is loaded, and where; nil where there is none of the name.
func (m *Image) Section(name string) (data []byte, addr uint64) {
	h, ok := m.sections[name]
	if !ok || h.Type == elf.SHT_NOBITS {
		return nil, 0
	}
	return m.Bytes(h.Addr, h.Size), h.Addr
}

// IsCode tells whether addr can be executed. Since 7.0 the code of the kernel's start
// is in a segment that does not say so, only its section does.
func (m *Image) IsCode(addr uint64) bool {
	for _, c := range m.code {
		if addr-c.addr < c.size {
			return true
		}
	}
	return false
}
