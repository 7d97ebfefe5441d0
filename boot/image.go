// Package boot loads kernels into guest memory: Linux bzImage and ELF vmlinux,
// an initramfs and a command line.
//
// A kernel image is data. Loading one needs no KVM and no machine, only
// something to write to, so every format is tested by the bytes it writes.
package boot

import (
	"io"

	"github.com/huskvm/husk/firmware/e820"
)

// A Source is a file to load, with the name that error messages give it.
type Source struct {
	Name string
	Size int64 // bytes
	io.ReaderAt
}

// A Machine is what a loader must know of the machine it loads for.
type Machine struct {
	// MemoryMap is what the kernel is told of its memory. Loaders place
	// things in RAM ranges only.
	MemoryMap []e820.Entry
	// RSDP is the guest-physical address of the ACPI root pointer, 0 without ACPI.
	RSDP uint64
	// CommandLine is the whole kernel command line, without the final NUL.
	CommandLine string
	// Initrds are concatenated in this order, each padded to 4 bytes.
	Initrds []Source
}

// A Mode is the state in which a kernel expects the processor.
type Mode int

// The modes a kernel can be entered in.
const (
	// Protected32: flat 32-bit protected mode, paging off (x86 boot protocol
	// "32-bit Boot Protocol", and PVH).
	Protected32 Mode = iota
	// Long64: 64-bit long mode, with the page tables at CR3 mapping at least
	// everything the loader has placed (x86 boot protocol "64-bit Boot Protocol").
	Long64
)

// An Entry is how to start what was loaded: the boot processor's registers.
// vmm has one function that applies it.
type Entry struct {
	Mode Mode   `json:"mode"`
	RIP  uint64 `json:"rip"`
	RSI  uint64 `json:"rsi"` // the zero page, for Linux's boot protocols
	RBX  uint64 `json:"rbx"` // the start info, for PVH
	CR3  uint64 `json:"cr3"` // page tables, for Long64
	GDT  uint64 `json:"gdt"` // guest-physical address of the GDT that the segments come from
}

// Selectors in the GDT at Entry.GDT: flat segments over 4 GiB, code and data.
// Linux calls them __BOOT_CS and __BOOT_DS (x86 boot protocol, "32-bit Boot
// Protocol" and "64-bit Boot Protocol").
const (
	BootCS = 0x10
	BootDS = 0x18
	// GDTSize is the size of that GDT in bytes.
	GDTSize = 32
)

// An Image is a kernel of some format.
type Image interface {
	// Format names the image's format for people: "bzImage 2.15 (64-bit)".
	Format() string
	// Load writes the image, the initramfs, the command line and the boot
	// structures for m into guest memory. Offsets of mem are guest-physical
	// addresses. It refuses what does not fit, naming the sizes, before the
	// first write.
	//
	// Memory must be fresh: where Load writes nothing (a kernel's bss, the
	// padding between initrds) the kernel expects zeros. When mem is also a
	// Filler, files go into memory through Fill.
	Load(mem io.WriterAt, m Machine) (Entry, error)
}

// A Filler is guest memory that reads a file into itself: n bytes of r from off
// on, to the guest-physical address gpa. It saves the copy through a buffer of
// ours. A file that ends early is io.ErrUnexpectedEOF.
type Filler interface {
	Fill(gpa int64, r io.ReaderAt, off, n int64) error
}

// A Versioner is an Image that can tell the kernel's version string, for people
// to read: printable ASCII of at most 255 bytes, or nothing.
type Versioner interface {
	Version() string
}
