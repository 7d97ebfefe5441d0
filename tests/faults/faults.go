// Package faults makes kernel modules that fail on purpose: out of one of the kernel's
// own, whose first function gets another body. So any kernel that loads modules can be
// had to fail in any way, also one without lkdtm, as distributions have them, and
// without a compiler or the kernel's headers.
package faults

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// A Fault is what happens in the kernel when the module is loaded.
type Fault string

// The faults.
const (
	NullPointer Fault = "null-pointer" // BUG: kernel NULL pointer dereference, an Oops
	Protection  Fault = "protection"   // general protection fault, of an address that is none
	DivideError Fault = "divide-error" // an Oops too
	Bug         Fault = "bug"          // kernel BUG at FILE:LINE!
	Warn        Fault = "warn"         // WARNING: CPU: … at FILE:LINE; and it goes on
	Hang        Fault = "hang"         // the processor spins with interrupts off
	Spin        Fault = "spin"         // the processor spins with interrupts on: a soft lockup
)

// All are all faults.
func All() []Fault {
	return []Fault{NullPointer, Protection, DivideError, Bug, Warn, Hang, Spin}
}

// Victim is a module that all of them can be made of, and that depends on no other
// (Debian, Ubuntu, Fedora).
const Victim = "tun"

// ErrModule says that a module will not do.
var ErrModule = errors.New("this kernel module cannot be made to fail")

// code is what each fault's function does.
var code = map[Fault][]byte{
	NullPointer: {0x31, 0xc0, 0x8b, 0x00}, // xor eax, eax; mov eax, [rax]
	Protection: {
		0x48, 0xb8, 0xef, 0xbe, 0xad, 0xde, 0xef, 0xbe, 0xad, 0xde, // movabs rax, 0xdeadbeefdeadbeef
		0x8b, 0x00, // mov eax, [rax]
	},
	DivideError: {0x31, 0xd2, 0x31, 0xc9, 0xf7, 0xf1}, // xor edx, edx; xor ecx, ecx; div ecx
	Bug:         {0x0f, 0x0b},                         // ud2, which the table of bugs tells of
	Warn:        {0x0f, 0x0b, 0x31, 0xc0, 0xc3},       // ud2; xor eax, eax; ret
	Hang:        {0xfa, 0xeb, 0xfe},                   // cli; jmp itself
	Spin:        {0xeb, 0xfe},                         // jmp itself
}

// Flags of an entry of __bug_table (kernel include/asm-generic/bug.h).
const (
	bugWarning = 1 << 0 // BUGFLAG_WARNING
	bugTaint   = 9 << 8 // BUGFLAG_TAINT(TAINT_WARN)
)

// An entry of __bug_table with CONFIG_DEBUG_BUGVERBOSE (struct bug_entry): where the
// instruction is, the file's name, its line, flags.
const (
	bugFlags = 10
	bugSize  = 12
)

// A relocation (as debug/elf has it): offset, symbol and type, addend.
const (
	relocationInfo   = 8
	relocationAddend = 16
	relocationSize   = 24
)

// sites are the sections that say where in the code something is to be patched. What they
// say would no longer be true; without it the code works as well.
var sites = []string{
	".retpoline_sites", ".return_sites", ".call_sites", ".ibt_endbr_seal", ".static_call_sites",
	".altinstructions", ".parainstructions", ".smp_locks",
}

// Module makes a module that fails out of another: an ELF file for x86-64, unpacked.
func Module(ko []byte, f Fault) ([]byte, error) {
	body, ok := code[f]
	if !ok {
		return nil, fmt.Errorf("%w: there is no fault %q", ErrModule, f)
	}
	file, err := elf.NewFile(bytes.NewReader(ko))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrModule, err)
	}
	symbols, err := file.Symbols()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrModule, err)
	}
	at := slices.IndexFunc(symbols, func(s elf.Symbol) bool { return s.Name == "init_module" })
	if at < 0 || int(symbols[at].Section) >= len(file.Sections) {
		return nil, fmt.Errorf("%w: it has no init_module", ErrModule)
	}
	m := module{file: file, b: unsigned(ko), text: file.Sections[symbols[at].Section]}
	if err := m.replace(symbols[at], body); err != nil {
		return nil, err
	}
	if f == Bug || f == Warn {
		if err := m.tell(uint64(at)+1, f); err != nil { // the list leaves out symbol 0
			return nil, err
		}
	}
	for _, name := range sites {
		m.empty(name)
	}
	return m.b, nil
}

// unsigned is a copy of a module without its signature, which would be wrong (kernel
// include/linux/module_signature.h).
func unsigned(ko []byte) []byte {
	const magic, info = "~Module signature appended~\n", 12
	if rest, ok := bytes.CutSuffix(ko, []byte(magic)); ok && len(rest) >= info {
		size := int64(binary.BigEndian.Uint32(rest[len(rest)-4:])) + info
		if size <= int64(len(rest)) {
			ko = rest[:int64(len(rest))-size]
		}
	}
	return bytes.Clone(ko)
}

type module struct {
	file *elf.File
	b    []byte
	text *elf.Section // that init_module is in
	skip uint64       // where the new body is, from the start of init_module
}

// content is what of the file is a section.
func (m *module) content(s *elf.Section) ([]byte, error) {
	if s == nil || s.Offset > uint64(len(m.b)) || s.FileSize > uint64(len(m.b))-s.Offset {
		return nil, fmt.Errorf("%w: a section is missing, or not within the file", ErrModule)
	}
	return m.b[s.Offset : s.Offset+s.FileSize], nil
}

// relocations is the section that relocates another, nil if none does.
func (m *module) relocations(s *elf.Section) *elf.Section {
	for _, r := range m.file.Sections {
		if r.Type == elf.SHT_RELA && int(r.Info) < len(m.file.Sections) && m.file.Sections[r.Info] == s {
			return r
		}
	}
	return nil
}

// replace gives init_module another body. The call that the function tracer wants at its
// start stays.
func (m *module) replace(init elf.Symbol, body []byte) error {
	text, err := m.content(m.text)
	if err != nil {
		return err
	}
	if init.Value > uint64(len(text)) || init.Size > uint64(len(text))-init.Value {
		return fmt.Errorf("%w: init_module is not within its section", ErrModule)
	}
	function := text[init.Value : init.Value+init.Size]
	if bytes.HasPrefix(function, []byte{0xf3, 0x0f, 0x1e, 0xfa}) { // endbr64
		m.skip = 4
	}
	if bytes.HasPrefix(function[m.skip:], []byte{0xe8, 0, 0, 0, 0}) { // call __fentry__
		m.skip += 5
	}
	if m.skip+uint64(len(body)) > init.Size {
		return fmt.Errorf("%w: its init_module is too short", ErrModule)
	}
	copy(function[m.skip:], body)

	relocations, err := m.content(m.relocations(m.text))
	if err != nil {
		return err
	}
	from := init.Value + m.skip
	for ; len(relocations) >= relocationSize; relocations = relocations[relocationSize:] {
		if off := binary.LittleEndian.Uint64(relocations); off >= from && off < from+uint64(len(body)) {
			binary.LittleEndian.PutUint64(relocations[relocationInfo:], uint64(elf.R_X86_64_NONE))
		}
	}
	return nil
}

// tell makes the first entry in the module's table of bugs one of the new body.
func (m *module) tell(symbol uint64, f Fault) error {
	bugs := m.file.Section("__bug_table")
	table, err := m.content(bugs)
	if err != nil {
		return err
	}
	relocations, err := m.content(m.relocations(bugs))
	if err != nil {
		return err
	}
	if len(table) < bugSize || len(relocations) < relocationSize || binary.LittleEndian.Uint64(relocations) != 0 {
		return fmt.Errorf("%w: it has no BUG or WARN of its own", ErrModule)
	}
	var flags uint16
	if f == Warn {
		flags = bugWarning | bugTaint
	}
	binary.LittleEndian.PutUint16(table[bugFlags:], flags)
	binary.LittleEndian.PutUint64(relocations[relocationInfo:], symbol<<32|uint64(elf.R_X86_64_PC32))
	binary.LittleEndian.PutUint64(relocations[relocationAddend:], m.skip)
	return nil
}

// Where an ELF file's header says where its sections' headers are (Elf64_Ehdr), and
// where such a header has a size (Elf64_Shdr).
const (
	sectionHeaders    = 0x28 // e_shoff
	sectionHeaderSize = 64
	sectionSize       = 32 // sh_size
)

// empty makes a section, and what relocates it, empty.
func (m *module) empty(name string) {
	start := binary.LittleEndian.Uint64(m.b[sectionHeaders:])
	target := m.file.Section(name)
	if target == nil {
		return
	}
	also := m.relocations(target)
	for i, s := range m.file.Sections {
		if s == target || s == also {
			binary.LittleEndian.PutUint64(m.b[start+uint64(i)*sectionHeaderSize+sectionSize:], 0)
		}
	}
}
