package vmm

import (
	"fmt"
	"strings"

	"golang.org/x/arch/x86/x86asm"

	"github.com/huskvm/husk/kvm"
)

// A Dump is the state of a vCPU that cannot go on.
type Dump struct {
	CPU   int       `json:"cpu"`
	Regs  kvm.Regs  `json:"regs"`
	Sregs kvm.Sregs `json:"-"`
	// Code is what lies at RIP; empty when RIP maps to no RAM.
	Code []byte `json:"code"`
	// Data is what KVM adds to an internal error.
	Data []uint64 `json:"data,omitempty"`
	// Hint is what to try.
	Hint string `json:"hint"`
}

const (
	maxInstruction = 15 // bytes of an x86 instruction
	dumpCode       = 4 * maxInstruction
)

// dump reads the state of a vCPU whose thread is the caller's. It gives what it
// can: a register that cannot be read stays 0.
func (c *vcpu) dump(o Outcome, e *kvm.InternalErrorExit) *Dump {
	d := &Dump{CPU: c.id}
	if r, err := c.kvm.Regs(); err == nil {
		d.Regs = r
	}
	if s, err := c.kvm.Sregs(); err == nil {
		d.Sregs = s
	}
	d.Code = c.code(d.Regs.RIP + d.Sregs.CS.Base)
	if e != nil {
		d.Data = append(d.Data, e.Data...)
		if len(d.Code) == 0 {
			d.Code = append(d.Code, e.Instruction...) // KVM has read it
		}
	}
	d.Hint = hint(o, e, d)
	return d
}

// code is what the guest has at the linear address addr, up to dumpCode bytes
// of one page.
func (c *vcpu) code(addr uint64) []byte {
	tr, err := c.kvm.Translate(addr)
	if err != nil || tr.Valid == 0 {
		return nil
	}
	n := min(dumpCode, 4096-tr.PhysicalAddress%4096)
	b, err := c.ram.Readable(tr.PhysicalAddress, n)
	if err != nil {
		return nil
	}
	return append([]byte(nil), b...)
}

func hint(o Outcome, e *kvm.InternalErrorExit, d *Dump) string {
	switch {
	case e != nil && e.Suberror == 1:
		return "KVM had to emulate this instruction and cannot. Where ring 0 is emulated (husk doctor tells) no stock kernel runs; try --accel lab"
	case o == TripleFault && d.Regs.RIP == 0xfff0:
		return "the guest took a fault while handling a double fault; on AMD, KVM has reset the registers since. A kernel that does this early is often built for features this processor lacks: add earlyprintk=ttyS0 to its command line"
	case o == TripleFault:
		return "the guest took a fault while handling a double fault: look at RIP and CR2. A kernel that does this early is often built for features this processor lacks: add earlyprintk=ttyS0 to its command line"
	default:
		return "run husk doctor; the kernel's log of the host (dmesg) may say more"
	}
}

func (d *Dump) String() string {
	var b strings.Builder
	r, s := &d.Regs, &d.Sregs
	fmt.Fprintf(&b, "vCPU %d:\n", d.CPU)
	row := func(names string, values ...uint64) {
		for i, n := range strings.Fields(names) {
			fmt.Fprintf(&b, " %3s=%016x", n, values[i])
		}
		b.WriteByte('\n')
	}
	row("RIP RFL RSP RBP", r.RIP, r.RFLAGS, r.RSP, r.RBP)
	row("RAX RBX RCX RDX", r.RAX, r.RBX, r.RCX, r.RDX)
	row("RSI RDI R8 R9", r.RSI, r.RDI, r.R8, r.R9)
	row("R10 R11 R12 R13", r.R10, r.R11, r.R12, r.R13)
	row("R14 R15", r.R14, r.R15)
	row("CR0 CR2 CR3 CR4", s.CR0, s.CR2, s.CR3, s.CR4)
	row("EFR GDT IDT", s.EFER, s.GDT.Base, s.IDT.Base)
	segment := func(name string, g kvm.Segment) {
		fmt.Fprintf(&b, "  %s=%04x base=%x limit=%x type=%x dpl=%d l=%d db=%d\n", name, g.Selector, g.Base, g.Limit, g.Typ, g.DPL, g.L, g.DB)
	}
	segment("CS", s.CS)
	segment("DS", s.DS)
	segment("SS", s.SS)
	if len(d.Data) > 0 {
		fmt.Fprintf(&b, " KVM data: %x\n", d.Data)
	}
	if len(d.Code) == 0 {
		fmt.Fprintf(&b, " code: none at RIP\n")
	} else {
		fmt.Fprintf(&b, " code: % x\n", d.Code[:min(len(d.Code), maxInstruction)])
		d.disassemble(&b)
	}
	fmt.Fprintf(&b, " hint: %s\n", d.Hint)
	return b.String()
}

// disassemble writes the first instructions at RIP.
func (d *Dump) disassemble(b *strings.Builder) {
	mode := 16
	switch {
	case d.Sregs.CS.L == 1 && d.Sregs.EFER&eferLMA != 0:
		mode = 64
	case d.Sregs.CS.DB == 1:
		mode = 32
	}
	pc, code := d.Regs.RIP, d.Code
	for range 3 {
		inst, err := x86asm.Decode(code, mode)
		if err != nil {
			return
		}
		fmt.Fprintf(b, "  %x: %s\n", pc, x86asm.GNUSyntax(inst, pc, nil))
		pc, code = pc+uint64(inst.Len), code[inst.Len:]
	}
}
