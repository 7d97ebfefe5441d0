// Package kstack tells where the vCPUs of a machine are in its Linux kernel: the
// symbol at RIP, and the functions that have led there. It needs the kernel's file;
// the tables for both are in any distribution's bzImage.
package kstack

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/huskvm/husk/boot"
	"github.com/huskvm/husk/boot/payload"
	"github.com/huskvm/husk/internal/ksym"
	"github.com/huskvm/husk/vmm"
)

// A Kernel is what is known of a Linux kernel. It holds all that the kernel loads, some
// 60 MiB: who opens one when a machine hangs needs it for no longer.
type Kernel struct {
	symbols *ksym.Table
	image   *ksym.Image // nil where there is only a System.map
	orc     *table      // nil without
}

// Open reads what names a kernel's addresses: a bzImage or a vmlinux, a System.map, or
// several of them, which then must be of the same kernel. The first file that has
// symbols gives them. An error names the file; ksym.ErrNoSymbols is one of the reasons.
func Open(files ...boot.Source) (*Kernel, error) {
	k := new(Kernel)
	var none error
	for _, f := range files {
		if err := k.add(f); errors.Is(err, errNoneInKernel) {
			none = errors.Join(none, fmt.Errorf("%s: %w", f.Name, err))
		} else if err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name, err)
		}
	}
	switch {
	case k.symbols != nil:
		return k, nil
	case none != nil:
		return nil, none
	}
	return nil, fmt.Errorf("%w: no file was given", ksym.ErrNoSymbols)
}

// OpenFiles is Open by paths.
func OpenFiles(paths ...string) (*Kernel, error) {
	var sources []boot.Source
	for _, path := range paths {
		source, file, err := vmm.OpenSource(path)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		sources = append(sources, source)
	}
	return Open(sources...)
}

// maxFile bounds a bzImage and a System.map, in bytes.
const maxFile = 1 << 28

// errNoneInKernel is a kernel without symbols. Another file may have them.
var errNoneInKernel = errors.New("the kernel has no symbols")

// add takes what a file has that the ones before it had not.
func (k *Kernel) add(f boot.Source) error {
	head := make([]byte, 0x206)
	n, err := f.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	head = head[:n]
	switch {
	case bytes.HasPrefix(head, []byte("\x7fELF")):
		return k.addELF(f)
	case len(head) == cap(head) && string(head[0x202:]) == "HdrS":
		if f.Size > maxFile {
			return fmt.Errorf("it has %d bytes, too many for a bzImage", f.Size)
		}
		image := make([]byte, f.Size)
		if _, err := f.ReadAt(image, 0); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		elf, err := payload.Unpack(image)
		if err != nil {
			return err
		}
		return k.addELF(bytes.NewReader(elf))
	}
	t, err := ksym.ParseSystemMap(io.NewSectionReader(f, 0, min(f.Size, maxFile)))
	if err == nil && k.symbols == nil {
		k.symbols = t
	}
	return err
}

func (k *Kernel) addELF(r io.ReaderAt) error {
	m, err := ksym.OpenImage(r)
	if err != nil {
		return err
	}
	if k.image == nil {
		// Tables in an unknown form are as good as none: there are names all the same.
		k.orc, _ = openORC(m)
		k.image = m
	}
	if k.symbols != nil {
		return nil
	}
	if k.symbols, err = m.Symbols(); err != nil {
		return fmt.Errorf("%w: %w", errNoneInKernel, err)
	}
	return nil
}

// A Memory reads a guest's virtual memory, as a vmm.VM does.
type Memory interface {
	ReadVirtual(d *vmm.Dump, gva uint64, p []byte) (int, error)
}

// A Place is where a vCPU was.
type Place struct {
	// Symbol is as native_halt+0xb/0x10, or says what else RIP is: "user mode", "module
	// text 0xffffffffc0123456". It is empty where there is no name.
	Symbol string
	// Backtrace is the callers, the innermost first; those that are only likely begin
	// with "? ". Where it does not reach the stack's end, the last line says why.
	Backtrace []string
}

// UserMode is the Symbol of a program. It has no Backtrace.
const UserMode = "user mode"

// Describe tells where vCPUs of one machine were; memory is to be as it was then, so a
// machine that runs is better paused. The places are as many as the dumps. The error says
// why there are no names for addresses of the kernel, where that is so: the files are of
// another kernel, or it has not been set up far enough to be sure.
func (k *Kernel) Describe(dumps []vmm.Dump, mem Memory) ([]Place, error) {
	places := make([]Place, len(dumps))
	slide, err := k.findSlide(dumps, mem)
	for i := range dumps {
		d := &dumps[i]
		switch {
		case d.CPL == 3:
			places[i].Symbol = UserMode
		case d.State == vmm.CPUWaiting:
			places[i].Symbol = "not started"
		case err == nil:
			places[i] = k.describe(d, mem, slide)
		}
	}
	return places, err
}

func (k *Kernel) describe(d *vmm.Dump, mem Memory, slide uint64) Place {
	r := &d.Regs
	p := Place{Symbol: k.name(frame{ip: r.RIP, exact: true}, slide)}
	if r.RIP < ksym.KernelBase && r.RIP != 0 {
		return p // before the kernel runs where it is linked, there are no stacks of its kind
	}
	u := unwinder{
		orc: k.orc, slide: slide,
		read:     func(gva uint64, b []byte) error { _, err := mem.ReadVirtual(d, gva, b); return err },
		inKernel: func(ip uint64) bool { return k.isCode(ip - slide) },
	}
	frames, err := u.unwind(cpu{
		ip: r.RIP, sp: r.RSP, bp: r.RBP,
		ax: r.RAX, dx: r.RDX, di: r.RDI, r10: r.R10, r13: r.R13, rest: true,
	})
	for _, f := range frames {
		p.Backtrace = append(p.Backtrace, k.name(f, slide))
	}
	if err != nil {
		p.Backtrace = append(p.Backtrace, "(no more: "+err.Error()+")")
	}
	return p
}

// isCode tells code of the kernel, by the address it was linked for.
func (k *Kernel) isCode(ip uint64) bool {
	if k.image != nil {
		return k.image.IsCode(ip)
	}
	_, ok := k.symbols.Lookup(ip)
	return ok
}

func (k *Kernel) name(f frame, slide uint64) string {
	mark := ""
	if f.guess {
		mark = "? "
	}
	if f.user {
		return fmt.Sprintf("%s %#x", UserMode, f.ip)
	}
	ip, back := f.ip-slide, uint64(1)
	if f.exact {
		back = 0
	}
	// A call may be the last instruction of its function: the symbol is that of the call.
	if l, ok := k.symbols.Lookup(ip - back); ok {
		l.Offset += back
		return mark + l.String()
	}
	if isModule(f.ip) {
		return fmt.Sprintf("%smodule text %#x", mark, f.ip)
	}
	if f.exact && f.ip < ksym.KernelBase {
		return ""
	}
	return fmt.Sprintf("%s%#x", mark, f.ip)
}
