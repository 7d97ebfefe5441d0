package kstack

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/huskvm/husk/internal/ksym"
	"github.com/huskvm/husk/vmm"
)

// A kernel with CONFIG_RANDOMIZE_BASE moves itself by a multiple of its alignment, of at
// least 2 MiB, inside of a GiB (kernel arch/x86/boot/compressed/kaslr.c).
const (
	slideStep = 2 << 20
	slideMax  = 1 << 30
)

// gates are exceptions and where their entries in the interrupt table lead, since 5.8.
var gates = map[int]string{
	0: "asm_exc_divide_error", 5: "asm_exc_bounds", 6: "asm_exc_invalid_op",
	11: "asm_exc_segment_not_present", 13: "asm_exc_general_protection", 14: "asm_exc_page_fault",
}

const (
	gateSize  = 16 // bytes, Intel SDM vol. 3 §6.14.1
	gateTable = 32 * gateSize
	// sameGates is how many must agree where nothing else tells.
	sameGates = 4
	pageSize  = 4096
)

var errNoSlide = errors.New("no symbols: the kernel is not where its file says, or it is of another build")

// findSlide tells how far the kernel has moved itself. What a register says is
// believed only if more agrees: the code there, or where exceptions lead.
func (k *Kernel) findSlide(dumps []vmm.Dump, mem Memory) (uint64, error) {
	inKernel := false
	for i := range dumps {
		d := &dumps[i]
		for _, c := range k.candidates(d, mem) {
			if c.slide%slideStep != 0 || c.slide >= slideMax {
				continue
			}
			confirmed := c.gates >= sameGates
			if k.image != nil {
				confirmed = k.sameCode(d, mem, c.at, c.slide) > pageSize/2
			}
			if confirmed && k.sameBuild(dumps, mem, c.slide) {
				return c.slide, nil
			}
		}
		inKernel = inKernel || d.CPL == 0 && d.Regs.RIP >= ksym.KernelBase
	}
	// Before the processor has been told of entries, or where it has none (FRED).
	for i := range dumps {
		if slide, ok := k.searchCode(&dumps[i], mem); ok && k.sameBuild(dumps, mem, slide) {
			return slide, nil
		}
	}
	if !inKernel {
		return 0, fmt.Errorf("%w; no processor runs code of the kernel's", errNoSlide)
	}
	return 0, errNoSlide
}

// A candidate is a slide that a register leads to.
type candidate struct {
	slide uint64
	at    uint64 // code of the kernel's, in guest memory
	gates int    // how many of them say so
}

func (k *Kernel) candidates(d *vmm.Dump, mem Memory) (all []candidate) {
	handlers := k.handlers(d, mem)
	count := func(slide uint64) (n int) {
		for vector, name := range gates {
			if addr, ok := k.symbols.Address(name); ok && handlers[vector] == addr+slide {
				n++
			}
		}
		return n
	}
	if addr, ok := k.symbols.Address("entry_SYSCALL_64"); ok && d.LSTAR >= ksym.KernelBase {
		slide := d.LSTAR - addr
		all = append(all, candidate{slide, d.LSTAR, count(slide)})
	}
	const pageFault = 14
	if addr, ok := k.symbols.Address(gates[pageFault]); ok && handlers[pageFault] >= ksym.KernelBase {
		slide := handlers[pageFault] - addr
		all = append(all, candidate{slide, handlers[pageFault], count(slide)})
	}
	return all
}

// handlers are where the processor goes on exceptions; 0 where that cannot be read.
func (k *Kernel) handlers(d *vmm.Dump, mem Memory) (all [gateTable / gateSize]uint64) {
	if d.Sregs.IDT.Limit < gateTable-1 {
		return all
	}
	b := make([]byte, gateTable)
	if _, err := mem.ReadVirtual(d, d.Sregs.IDT.Base, b); err != nil {
		return all
	}
	for i := range all {
		g := b[i*gateSize:]
		all[i] = uint64(le.Uint16(g)) | uint64(le.Uint16(g[6:]))<<16 | uint64(le.Uint32(g[8:]))<<32
	}
	return all
}

// sameCode is how many bytes of the page at a guest's address are as the file has
// them. A kernel that runs has patched its code, but not most of it.
func (k *Kernel) sameCode(d *vmm.Dump, mem Memory, at, slide uint64) int {
	page := at &^ (pageSize - 1)
	want := k.image.Bytes(page-slide, pageSize)
	got := make([]byte, pageSize)
	if _, err := mem.ReadVirtual(d, page, got); err != nil || want == nil || !k.image.IsCode(at-slide) {
		return 0
	}
	return same(want, got)
}

func same(a, b []byte) (n int) {
	for i := range a {
		if a[i] == b[i] {
			n++
		}
	}
	return n
}

// banner begins what a kernel says of its version, its builder and its build's time.
const banner = "Linux version "

// sameBuild looks for the banner in the guest where the symbols have it: code is much the
// same from build to build, and symbols a few bytes off would be worse than none. Where
// no processor can read it (a program runs, and its page tables lack the kernel) or it
// has no symbol, there is nothing to say against the build.
func (k *Kernel) sameBuild(dumps []vmm.Dump, mem Memory, slide uint64) bool {
	addr, ok := k.symbols.Address("linux_banner")
	if !ok {
		return true
	}
	want := []byte(banner)
	if k.image != nil {
		want = k.image.Bytes(addr, 256)
		n := bytes.IndexByte(want, 0)
		if n < 0 {
			return false
		}
		want = want[:n]
	}
	got := make([]byte, len(want))
	for i := range dumps {
		if _, err := mem.ReadVirtual(&dumps[i], addr+slide, got); err == nil {
			return bytes.Equal(got, want)
		}
	}
	return true
}

// searchCode tries all slides for the code at RIP, and takes one that no other comes near.
func (k *Kernel) searchCode(d *vmm.Dump, mem Memory) (slide uint64, ok bool) {
	page := d.Regs.RIP &^ (pageSize - 1)
	got := make([]byte, pageSize)
	if k.image == nil || page < ksym.KernelBase {
		return 0, false
	}
	if _, err := mem.ReadVirtual(d, page, got); err != nil {
		return 0, false
	}
	best, second := 0, 0
	for s := uint64(0); s < slideMax; s += slideStep {
		want := k.image.Bytes(page-s, pageSize)
		if want == nil || !k.image.IsCode(d.Regs.RIP-s) {
			continue
		}
		switch n := same(want, got); {
		case n > best:
			best, second, slide = n, best, s
		case n > second:
			second = n
		}
	}
	return slide, best > pageSize*3/4 && second < pageSize/2
}
