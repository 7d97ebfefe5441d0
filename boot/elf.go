package boot

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
)

const (
	// maxSegments bounds the program headers that are read; a vmlinux has five.
	maxSegments = 128
	// maxNotes bounds the bytes of one note segment; a vmlinux has 500.
	maxNotes = 64 << 10
)

// An elfImage is an ELF executable with Linux's vmlinux as the model: loaded at
// its physical addresses, entered by PVH or by Linux's 64-bit boot protocol.
type elfImage struct {
	src      Source
	class    elf.Class
	segments []segment
	// entry is guest-physical: the PVH note's for mode Protected32, the file's
	// own for Long64.
	entry uint64
	mode  Mode
}

// A segment is a PT_LOAD of the file that takes memory.
type segment struct {
	off, filesz int64
	mem         span
}

// openELF parses an ELF file. It is entered by its PVH note if it has one.
func openELF(src Source) (*elfImage, error) {
	k := &elfImage{src: src}
	hdr, err := k.header()
	if err != nil {
		return nil, err
	}
	progs, err := k.progs(hdr)
	if err != nil {
		return nil, err
	}
	pvh, hasPVH, err := k.findPVH(progs)
	if err != nil {
		return nil, err
	}
	if isProgram(progs, hasPVH) {
		return nil, refuse(src.Name, ErrNotKernel, "it is a program for Linux; give a bzImage (/boot/vmlinuz-…), a vmlinux, or a kernel with a PVH note")
	}
	for i, p := range progs {
		if elf.ProgType(p.Type) != elf.PT_LOAD {
			continue
		}
		if err := k.addSegment(i, p); err != nil {
			return nil, err
		}
	}
	return k, k.setEntry(hdr, pvh, hasPVH)
}

// isProgram tells what Linux runs from what runs without it. Nothing in an ELF
// file says so, and a static program can be loaded as a kernel can, to crash at
// its first system call. So it goes by what a program needs of the system that
// starts it: an interpreter, its own program headers, thread-local storage, or
// relocated data made read-only. Some unikernels have the latter three too, so
// a PVH note decides for a kernel, and so does an address that is not the
// physical one, which linkers give to no program. PT_GNU_STACK tells nothing:
// ld gives it to every C kernel without a linker script of its own.
func isProgram(progs []elf.Prog64, hasPVH bool) bool {
	var marked, moved bool
	for _, p := range progs {
		switch elf.ProgType(p.Type) {
		case elf.PT_INTERP:
			return true
		case elf.PT_PHDR, elf.PT_TLS, elf.PT_GNU_RELRO:
			marked = true
		case elf.PT_LOAD:
			moved = moved || p.Vaddr != p.Paddr
		}
	}
	return marked && !moved && !hasPVH
}

// header reads and checks the file header, widened to its 64-bit form.
func (k *elfImage) header() (h elf.Header64, err error) {
	ident := make([]byte, elf.EI_NIDENT)
	if err := k.src.read(ident, 0, "the ELF header"); err != nil {
		return h, err
	}
	k.class = elf.Class(ident[elf.EI_CLASS])
	if d := elf.Data(ident[elf.EI_DATA]); d != elf.ELFDATA2LSB {
		return h, refuse(k.src.Name, ErrArchitecture, "it is an ELF file of byte order %v; use a kernel for x86-64", d)
	}
	switch k.class {
	case elf.ELFCLASS64:
		err = k.decode(&h, 0, "the ELF header")
	case elf.ELFCLASS32:
		var n elf.Header32
		err = k.decode(&n, 0, "the ELF header")
		h = elf.Header64{
			Ident: n.Ident, Type: n.Type, Machine: n.Machine, Entry: uint64(n.Entry),
			Phoff: uint64(n.Phoff), Phentsize: n.Phentsize, Phnum: n.Phnum,
			Shoff: uint64(n.Shoff), Shentsize: n.Shentsize, Shnum: n.Shnum,
		}
	default:
		return h, k.malformed("its ELF class is %v", k.class)
	}
	if err != nil {
		return h, err
	}
	if m := elf.Machine(h.Machine); m != elf.EM_X86_64 && m != elf.EM_386 {
		return h, refuse(k.src.Name, ErrArchitecture, "it is an ELF file for %v; use a kernel for x86-64", m)
	}
	switch t := elf.Type(h.Type); t {
	case elf.ET_EXEC, elf.ET_DYN:
	case elf.ET_REL:
		return h, refuse(k.src.Name, ErrNotKernel, "it is a kernel module or object file; a kernel is a bzImage (/boot/vmlinuz-…) or a vmlinux")
	default:
		return h, refuse(k.src.Name, ErrNotKernel, "it is an ELF file of type %v; a kernel is a bzImage (/boot/vmlinuz-…) or a vmlinux", t)
	}
	// The section headers come last in the file, so they tell whether it is
	// whole. What they say is of no use here.
	if h.Shoff != 0 {
		err = k.src.holds(int64(h.Shoff), int64(h.Shnum)*int64(h.Shentsize), "the section header table")
	}
	return h, err
}

// progs reads the program headers, widened to their 64-bit form.
func (k *elfImage) progs(h elf.Header64) ([]elf.Prog64, error) {
	if h.Phnum == 0 || h.Phnum > maxSegments {
		return nil, k.malformed("it has %d program headers, and husk takes 1 to %d", h.Phnum, maxSegments)
	}
	want := binary.Size(elf.Prog64{})
	if k.class == elf.ELFCLASS32 {
		want = binary.Size(elf.Prog32{})
	}
	if int(h.Phentsize) != want {
		return nil, k.malformed("its program headers have %d bytes instead of %d", h.Phentsize, want)
	}
	if k.class == elf.ELFCLASS64 {
		progs := make([]elf.Prog64, h.Phnum)
		return progs, k.decode(progs, int64(h.Phoff), "the program header table")
	}
	narrow := make([]elf.Prog32, h.Phnum)
	if err := k.decode(narrow, int64(h.Phoff), "the program header table"); err != nil {
		return nil, err
	}
	progs := make([]elf.Prog64, h.Phnum)
	for i, p := range narrow {
		progs[i] = elf.Prog64{
			Type: p.Type, Flags: p.Flags, Align: uint64(p.Align),
			Off: uint64(p.Off), Filesz: uint64(p.Filesz),
			Vaddr: uint64(p.Vaddr), Paddr: uint64(p.Paddr), Memsz: uint64(p.Memsz),
		}
	}
	return progs, nil
}

// decode reads v, a little-endian structure of fixed size, at offset off.
func (k *elfImage) decode(v any, off int64, what string) error {
	p := make([]byte, binary.Size(v))
	if err := k.src.read(p, off, what); err != nil {
		return err
	}
	_, err := binary.Decode(p, binary.LittleEndian, v)
	return err
}

// addSegment checks a PT_LOAD and keeps it.
func (k *elfImage) addSegment(i int, p elf.Prog64) error {
	if p.Memsz == 0 {
		return nil
	}
	if p.Filesz > p.Memsz {
		return k.malformed("segment %d has %d bytes in the file and %d in memory", i, p.Filesz, p.Memsz)
	}
	if p.Paddr >= fourGiB || p.Memsz > fourGiB-p.Paddr {
		return k.malformed("segment %d is for the physical addresses from %#x, %#x bytes, and a kernel starts below 4 GiB", i, p.Paddr, p.Memsz)
	}
	// An offset beyond 2^63 turns negative, and holds refuses that.
	if err := k.src.holds(int64(p.Off), int64(p.Filesz), fmt.Sprintf("segment %d", i)); err != nil {
		return err
	}
	s := segment{int64(p.Off), int64(p.Filesz), span{p.Paddr, p.Paddr + p.Memsz}}
	for _, o := range k.segments {
		if s.mem.start < o.mem.end && o.mem.start < s.mem.end {
			return k.malformed("segment %d overlaps another at %#x", i, max(s.mem.start, o.mem.start))
		}
	}
	k.segments = append(k.segments, s)
	return nil
}

// setEntry chooses how the kernel is entered.
func (k *elfImage) setEntry(h elf.Header64, pvh uint64, hasPVH bool) error {
	k.mode, k.entry = Long64, h.Entry
	switch {
	case hasPVH:
		k.mode, k.entry = Protected32, pvh
	case elf.Machine(h.Machine) == elf.EM_386:
		return refuse(k.src.Name, ErrArchitecture, "it is a 32-bit vmlinux without a PVH entry; use its bzImage, or build it with CONFIG_PVH")
	case k.class != elf.ELFCLASS64:
		return k.malformed("it has 64-bit code in a 32-bit ELF file")
	}
	for _, s := range k.segments {
		if k.entry >= s.mem.start && k.entry-s.mem.start < uint64(s.filesz) {
			return nil
		}
	}
	return k.malformed("its entry %#x is the physical address of no segment", k.entry)
}

func (k *elfImage) malformed(format string, args ...any) error {
	return refuse(k.src.Name, ErrMalformed, "%s; get a good copy of it", fmt.Sprintf(format, args...))
}

// Format is "ELF vmlinux" and the way it is entered.
func (k *elfImage) Format() string {
	if k.mode == Long64 {
		return "ELF vmlinux (64-bit)"
	}
	return "ELF vmlinux (PVH)"
}

// isELF tells an ELF file by its first bytes.
func isELF(head []byte) bool { return bytes.HasPrefix(head, []byte(elf.ELFMAG)) }
