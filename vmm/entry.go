package vmm

import (
	"fmt"

	"github.com/huskvm/husk/boot"
	"github.com/huskvm/husk/kvm"
)

// Control register bits (Intel SDM vol. 3 §2.5, EFER §2.2.1).
const (
	cr0PE   = 1 << 0
	cr0ET   = 1 << 4
	cr0PG   = 1 << 31
	cr4PAE  = 1 << 5
	eferLME = 1 << 8
	eferLMA = 1 << 10

	rflagsReserved = 1 << 1 // always set
	rflagsIF       = 1 << 9
	rflagsVM       = 1 << 17
)

// start puts the boot processor at e: the one place where an image's entry
// meets registers.
func start(c *kvm.VCPU, e boot.Entry) error {
	s, err := c.Sregs()
	if err != nil {
		return err
	}
	code := kvm.Segment{Selector: boot.BootCS, Limit: 0xffff_ffff, Typ: 0xb, Present: 1, S: 1, G: 1} // execute, read, accessed
	data := kvm.Segment{Selector: boot.BootDS, Limit: 0xffff_ffff, Typ: 0x3, Present: 1, S: 1, G: 1, DB: 1}
	switch e.Mode {
	case boot.Protected32:
		code.DB = 1
		s.CR0 = cr0PE | cr0ET
		s.CR4, s.EFER = 0, 0
	case boot.Long64:
		code.L = 1
		s.CR0 = cr0PE | cr0ET | cr0PG
		s.CR3 = e.CR3
		s.CR4 = cr4PAE
		s.EFER = eferLME | eferLMA
	default:
		return fmt.Errorf("entry mode %d is unknown", e.Mode)
	}
	s.CS = code
	s.DS, s.ES, s.FS, s.GS, s.SS = data, data, data, data, data
	// A task state segment must be there for VMX to enter; 32-bit, busy.
	s.TR = kvm.Segment{Limit: 0x67, Typ: 0xb, Present: 1}
	s.LDT = kvm.Segment{Unusable: 1}
	s.GDT = kvm.Descriptor{Base: e.GDT, Limit: boot.GDTSize - 1}
	s.IDT = kvm.Descriptor{}
	if err := c.SetSregs(&s); err != nil {
		return err
	}
	return c.SetRegs(&kvm.Regs{RIP: e.RIP, RSI: e.RSI, RBX: e.RBX, RFLAGS: rflagsReserved})
}

// MSRs (Intel SDM vol. 4).
const (
	msrLSTAR          = 0xc000_0082 // IA32_LSTAR
	msrKernelGSBase   = 0xc000_0102 // IA32_KERNEL_GS_BASE
	msrMiscEnable     = 0x1a0       // IA32_MISC_ENABLE
	miscFastStrings   = 1 << 0
	msrMTRRDefType    = 0x2ff // IA32_MTRR_DEF_TYPE
	mtrrEnable        = 1 << 11
	mtrrTypeWriteBack = 6
)

// firmwareMSRs are what firmware leaves behind on every processor: memory is
// cached unless a page table says otherwise (Linux leaves PAT alone with MTRRs
// off), and string instructions are fast.
var firmwareMSRs = []kvm.MSR{
	{Index: msrMTRRDefType, Data: mtrrEnable | mtrrTypeWriteBack},
	{Index: msrMiscEnable, Data: miscFastStrings},
}
