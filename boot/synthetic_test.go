package boot

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/bobuhiro11/gokvm/bootparam"

	"github.com/huskvm/husk/firmware/e820"
)

// bytesSource is a file whose bytes are b.
func bytesSource(name string, b []byte) Source {
	return Source{Name: name, Size: int64(len(b)), ReaderAt: bytes.NewReader(b)}
}

// pattern is n bytes that differ from place to place.
func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8*13 + 1)
	}
	return b
}

const (
	synthSetup  = 2 * sector // the real-mode part of a synthetic bzImage
	synthKernel = 2 << 10    // its kernel proper
	synthInit   = 3 << 20    // its init_size
)

// bzHeader is the setup header of a small kernel of protocol 2.15.
func bzHeader() bootparam.SetupHeader {
	return bootparam.SetupHeader{
		SetupSects:        1,
		SysSize:           synthKernel / 16,
		VidMode:           0xffff,
		BootFlag:          0xaa55,
		Jump:              0x6aeb, // jmp to 0x26c
		Header:            bootparam.MagicSignature,
		Version:           0x020f,
		KernelVersion:     0x300 - 0x200,
		LoadFlags:         bootparam.LoadedHigh,
		Code32Start:       0x100000,
		InitrdAddrMax:     0x7fffffff,
		KernelAlignment:   0x200000,
		RelocatableKernel: 1,
		XloadFlags:        xlfKernel64,
		CmdlineSize:       2047,
		PayloadOffset:     0x400,
		PayloadLength:     0x400,
		PrefAddress:       0x1000000,
		InitSize:          synthInit,
	}
}

// buildBzImage makes a bzImage with the header that edit leaves.
func buildBzImage(edit func(*bootparam.SetupHeader)) []byte {
	h := bzHeader()
	if edit != nil {
		edit(&h)
	}
	b := append(make([]byte, synthSetup), pattern(synthKernel)...)
	if _, err := binary.Encode(b[zpHeader:], binary.LittleEndian, &h); err != nil {
		panic(err)
	}
	copy(b, "MZ")
	copy(b[0x300:], "6.1.0-husk (test@husk) #1 SMP\x00garbage")
	return b
}

// An elfSpec is an ELF file to build.
type elfSpec struct {
	class    elf.Class // default 64
	machine  elf.Machine
	typ      elf.Type
	entry    uint64
	segments []elfSegment
	offset   uint64 // of virtual addresses from physical ones
	notes    []byte
	sections bool // a section header table at the end
}

type elfSegment struct {
	typ   elf.ProgType
	paddr uint64
	data  []byte
	memsz uint64
}

// vmlinuxSpec looks like a small vmlinux with a PVH note.
func vmlinuxSpec() elfSpec {
	return elfSpec{
		class: elf.ELFCLASS64, machine: elf.EM_X86_64, typ: elf.ET_EXEC,
		entry: 0x1000000,
		segments: []elfSegment{
			{elf.PT_LOAD, 0x1000000, pattern(0x300), 0x3000},
			{elf.PT_LOAD, 0x1200000, pattern(0x234), 0x80000},
		},
		notes:    slices.Concat(buildNote("Linux\x00", 257, []byte("6.1.0-husk\x00")), buildNote("Xen\x00", 18, le64(0x1000040))),
		sections: true,
	}
}

// with has empty program headers of the given types too, and no notes.
func (s elfSpec) with(types ...elf.ProgType) elfSpec {
	s.notes, s.segments = nil, slices.Clone(s.segments)
	for _, t := range types {
		s.segments = append(s.segments, elfSegment{typ: t})
	}
	return s
}

func le64(n uint64) []byte { return binary.LittleEndian.AppendUint64(nil, n) }
func le32(n uint32) []byte { return binary.LittleEndian.AppendUint32(nil, n) }

// buildNote makes one note, padded to 4 bytes.
func buildNote(name string, kind uint32, desc []byte) []byte {
	pad := func(b []byte) []byte { return append(b, make([]byte, -len(b)&3)...) }
	b := slices.Concat(le32(uint32(len(name))), le32(uint32(len(desc))), le32(kind))
	return pad(append(pad(append(b, name...)), desc...))
}

// build lays out headers, segments, notes and an empty section table.
func (s elfSpec) build() []byte {
	type prog struct{ elf.Prog64 }
	n := len(s.segments)
	if s.notes != nil {
		n++
	}
	var h any
	hdrSize, progSize := 64, 56
	if s.class == elf.ELFCLASS32 {
		hdrSize, progSize = 52, 32
	}
	off := uint64(hdrSize + n*progSize)
	var progs []prog
	var body []byte
	add := func(t elf.ProgType, paddr uint64, data []byte, memsz uint64) {
		progs = append(progs, prog{elf.Prog64{
			Type: uint32(t), Off: off + uint64(len(body)), Vaddr: paddr + s.offset, Paddr: paddr,
			Filesz: uint64(len(data)), Memsz: memsz, Align: 4,
		}})
		body = append(body, data...)
	}
	for _, g := range s.segments {
		add(g.typ, g.paddr, g.data, g.memsz)
	}
	if s.notes != nil {
		add(elf.PT_NOTE, 0, s.notes, uint64(len(s.notes)))
	}
	var shoff, shnum uint64
	if s.sections {
		shoff, shnum = off+uint64(len(body)), 1
		body = append(body, make([]byte, 64)...)
	}
	ident := [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(s.class), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)}
	var b []byte
	enc := func(v any) { b, _ = binary.Append(b, binary.LittleEndian, v) }
	if s.class == elf.ELFCLASS32 {
		h = elf.Header32{
			Ident: ident, Type: uint16(s.typ), Machine: uint16(s.machine), Entry: uint32(s.entry), Phoff: uint32(hdrSize),
			Phentsize: uint16(progSize), Phnum: uint16(n), Shoff: uint32(shoff), Shnum: uint16(shnum), Shentsize: 64,
		}
	} else {
		h = elf.Header64{
			Ident: ident, Type: uint16(s.typ), Machine: uint16(s.machine), Entry: s.entry, Phoff: uint64(hdrSize),
			Phentsize: uint16(progSize), Phnum: uint16(n), Shoff: shoff, Shnum: uint16(shnum), Shentsize: 64,
		}
	}
	enc(h)
	for _, p := range progs {
		if s.class == elf.ELFCLASS32 {
			enc(elf.Prog32{
				Type: p.Type, Off: uint32(p.Off), Vaddr: uint32(p.Vaddr), Paddr: uint32(p.Paddr),
				Filesz: uint32(p.Filesz), Memsz: uint32(p.Memsz), Align: 4,
			})
		} else {
			enc(p.Prog64)
		}
	}
	return append(b, body...)
}

// errOutside is a write that does not lie in RAM, or not all in fresh RAM.
var errOutside = errors.New("write outside RAM, or over an earlier one")

// A guest is guest memory for tests: it holds what was written, and refuses
// writes outside RAM and second writes to one place.
type guest struct {
	ram    space
	writes []guestWrite // sorted by address
	// quiet holds no data, only where it went.
	quiet bool
}

type guestWrite struct {
	span
	data []byte
}

func newGuest(m []e820.Entry) *guest { return &guest{ram: newSpace(m)} }

func (g *guest) WriteAt(p []byte, gpa int64) (int, error) {
	r := span{uint64(gpa), uint64(gpa) + uint64(len(p))}
	if !g.ram.take(r) {
		return 0, fmt.Errorf("%w: %#x-%#x", errOutside, r.start, r.end)
	}
	w := guestWrite{span: r}
	if !g.quiet {
		w.data = slices.Clone(p)
	}
	g.writes = append(g.writes, w)
	return len(p), nil
}

// at is n bytes of memory from gpa on, zero where nothing was written.
func (g *guest) at(gpa uint64, n int) []byte {
	b := make([]byte, n)
	for _, w := range g.writes {
		for a := max(w.start, gpa); a < min(w.end, gpa+uint64(n)); a++ {
			b[a-gpa] = w.data[a-w.start]
		}
	}
	return b
}

// A fillingGuest is a guest that is also a Filler.
type fillingGuest struct {
	*guest
	fills int
}

func (g *fillingGuest) Fill(gpa int64, r io.ReaderAt, off, n int64) error {
	g.fills++
	b := make([]byte, n)
	if m, err := r.ReadAt(b, off); int64(m) < n {
		if errors.Is(err, io.EOF) {
			return io.ErrUnexpectedEOF
		}
		return err
	}
	_, err := g.WriteAt(b, gpa)
	return err
}

// ramOf is a PC's memory map with so many MiB, with a firmware's reserved part.
func ramOf(mib uint64) []e820.Entry {
	return []e820.Entry{
		{Addr: 0, Size: 0x9fc00, Type: e820.RAM},
		{Addr: 0xe0000, Size: 0x20000, Type: e820.Reserved},
		{Addr: oneMiB, Size: (mib - 1) << 20, Type: e820.RAM},
	}
}
