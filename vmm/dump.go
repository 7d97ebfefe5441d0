package vmm

import (
	"fmt"
	"strings"

	"golang.org/x/arch/x86/x86asm"

	"github.com/huskvm/husk/kvm"
	"github.com/huskvm/husk/vmm/paging"
)

// A Dump is the state of a vCPU at one moment: of one that cannot go on (Result), or
// whenever it is asked for (VM.Dumps).
type Dump struct {
	CPU int `json:"cpu"`
	// State is what the vCPU was doing.
	State CPUState `json:"state"`
	// CPL is the privilege level: 0 is the kernel's, 3 that of programs.
	CPL int `json:"cpl"`
	// Interrupts says whether the guest took interrupts: RFLAGS.IF.
	Interrupts bool      `json:"interrupts"`
	Regs       kvm.Regs  `json:"regs"`
	Sregs      kvm.Sregs `json:"sregs"`
	// LSTAR is where SYSCALL enters the kernel, KernelGS the base that SWAPGS
	// would give GS (Intel SDM vol. 4, IA32_LSTAR and IA32_KERNEL_GS_BASE).
	LSTAR    uint64 `json:"lstar"`
	KernelGS uint64 `json:"kernel_gs"`
	// APIC is its local APIC's state; nil where that cannot be read.
	APIC *APIC `json:"apic,omitempty"`
	// Code is what lies at RIP; empty when RIP maps to no RAM.
	Code []byte `json:"code"`
	// Data is what KVM adds to an internal error.
	Data []uint64 `json:"data,omitempty"`
	// Hint is what to try; empty where nothing has failed.
	Hint string `json:"hint,omitempty"`
}

// A CPUState is what a vCPU does.
type CPUState string

// The states.
const (
	CPURunning CPUState = "running" // or it would, if it was let
	CPUHalted  CPUState = "halted"  // by HLT, until an interrupt
	CPUWaiting CPUState = "waiting" // another processor has yet to start it
)

const (
	maxInstruction = 15 // bytes of an x86 instruction
	dumpCode       = 4 * maxInstruction
)

// dump reads the state of a vCPU that nothing else uses meanwhile: on its own thread,
// or when that has ended. It gives what it can: a register that cannot be read stays 0.
func (c *vcpu) dump() *Dump {
	d := &Dump{CPU: c.id, State: CPURunning}
	if r, err := c.kvm.Regs(); err == nil {
		d.Regs = r
		d.Interrupts = r.RFLAGS&rflagsIF != 0
	}
	if s, err := c.kvm.Sregs(); err == nil {
		d.Sregs = s
		d.CPL = privilege(&d.Regs, &s)
	}
	if s, err := c.kvm.MPState(); err == nil {
		switch s.State {
		case kvm.MPHalted:
			d.State = CPUHalted
		case kvm.MPUninitialized, kvm.MPInitReceived, kvm.MPSIPIReceived:
			d.State = CPUWaiting
		}
	}
	msrs := []kvm.MSR{{Index: msrLSTAR}, {Index: msrKernelGSBase}}
	if err := c.kvm.MSRs(msrs); err == nil {
		d.LSTAR, d.KernelGS = msrs[0].Data, msrs[1].Data
	}
	if s, err := c.kvm.LAPIC(); err == nil {
		msrs := []kvm.MSR{{Index: msrTSC}, {Index: msrTSCDeadline}}
		_ = c.kvm.MSRs(msrs) // what cannot be read stays 0
		d.APIC = newAPIC(&s, msrs[0].Data, msrs[1].Data)
	}
	d.Code = d.code(c.ram)
	return d
}

// failure is the state of a vCPU, on its own thread, that cannot go on.
func (c *vcpu) failure(o Outcome, e *kvm.InternalErrorExit) *Dump {
	d := c.dump()
	if e != nil {
		d.Data = append(d.Data, e.Data...)
		if len(d.Code) == 0 {
			d.Code = append(d.Code, e.Instruction...) // KVM has read it
		}
	}
	d.Hint = hint(o, e, d)
	return d
}

// privilege is the CPL. KVM has it where the hardware has it: in SS (Intel SDM vol. 3
// §24.4.1).
func privilege(r *kvm.Regs, s *kvm.Sregs) int {
	switch {
	case s.CR0&cr0PE == 0:
		return 0
	case r.RFLAGS&rflagsVM != 0:
		return 3
	}
	return int(s.SS.DPL)
}

// space is the vCPU's virtual memory.
func (d *Dump) space() paging.Space {
	return paging.Space{CR0: d.Sregs.CR0, CR3: d.Sregs.CR3, CR4: d.Sregs.CR4, EFER: d.Sregs.EFER}
}

// code is what the guest has at RIP, up to dumpCode bytes of one page.
func (d *Dump) code(mem paging.RAM) []byte {
	rip := d.Regs.RIP + d.Sregs.CS.Base
	p := make([]byte, min(dumpCode, 4096-rip%4096))
	n, _ := d.space().Read(mem, rip, p) // what cannot be read is left out
	return p[:n]
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
	fmt.Fprintf(&b, "vCPU %d: %s, CPL %d, interrupts %s\n", d.CPU, d.State, d.CPL, onOff(d.Interrupts))
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
	row("EFR GDT IDT GS", s.EFER, s.GDT.Base, s.IDT.Base, s.GS.Base)
	segment := func(name string, g kvm.Segment) {
		fmt.Fprintf(&b, "  %s=%04x base=%x limit=%x type=%x dpl=%d l=%d db=%d\n", name, g.Selector, g.Base, g.Limit, g.Typ, g.DPL, g.L, g.DB)
	}
	segment("CS", s.CS)
	segment("DS", s.DS)
	segment("SS", s.SS)
	if d.APIC != nil {
		fmt.Fprintf(&b, " APIC: %v\n", d.APIC)
	}
	if len(d.Data) > 0 {
		fmt.Fprintf(&b, " KVM data: %x\n", d.Data)
	}
	if len(d.Code) == 0 {
		fmt.Fprintf(&b, " code: none at RIP\n")
	} else {
		fmt.Fprintf(&b, " code: % x\n", d.Code[:min(len(d.Code), maxInstruction)])
		d.disassemble(&b)
	}
	if d.Hint != "" {
		fmt.Fprintf(&b, " hint: %s\n", d.Hint)
	}
	return b.String()
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
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
