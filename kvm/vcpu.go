package kvm

import (
	"errors"
	"strconv"

	"github.com/bobuhiro11/gokvm/kvm"
	"golang.org/x/sys/unix"
)

type (
	// Regs is struct kvm_regs: the general registers (KVM API §4.11).
	Regs = kvm.Regs
	// Sregs is struct kvm_sregs: segments, control registers, EFER, the APIC
	// base, and interrupts that wait (KVM API §4.13).
	Sregs = kvm.Sregs
	// Segment is struct kvm_segment, of Sregs. Limit is in bytes, whatever G says.
	Segment = kvm.Segment
	// Descriptor is struct kvm_dtable, of Sregs.
	Descriptor = kvm.Descriptor
	// DebugRegs is struct kvm_debugregs (KVM API §4.33).
	DebugRegs = kvm.DebugRegs
	// XCRS is struct kvm_xcrs: extended control registers (KVM API §4.44).
	XCRS = kvm.XCRS
	// VCPUEvents is struct kvm_vcpu_events: exceptions, interrupts, NMIs that
	// are under way (KVM API §4.31).
	VCPUEvents = kvm.VCPUEvents
	// MPState is struct kvm_mp_state (KVM API §4.38).
	MPState = kvm.MPState
	// LAPICState is struct kvm_lapic_state: the registers page of the local APIC
	// (KVM API §4.57).
	LAPICState = kvm.LAPICState
	// Translation is struct kvm_translation (KVM API §4.15).
	Translation = kvm.Translation
)

// The values of MPState.State.
const (
	MPRunnable      = kvm.MPStateRunnable
	MPUninitialized = kvm.MPStateUninitialized // waits for INIT
	MPInitReceived  = kvm.MPStateInitReceived  // waits for SIPI
	MPHalted        = kvm.MPStateHalted
	MPSIPIReceived  = kvm.MPStateSipiReceived
)

// FPU is struct kvm_fpu: x87 and SSE state (KVM API §4.22). KVM leaves MXCSR
// out of it in both directions; XSave has it.
type FPU struct {
	FPR        [8][16]uint8
	FCW        uint16
	FSW        uint16
	FTWX       uint8 // tags as FXSAVE has them
	_          uint8
	LastOpcode uint16
	LastIP     uint64
	LastDP     uint64
	XMM        [16][16]uint8
	MXCSR      uint32
	_          uint32
}

// xsaveSize is the size in bytes of struct kvm_xsave, to which newer kernels add
// (KVM API §4.134).
const xsaveSize = 4096

// A VCPU is a virtual CPU. Run, and the methods that read and write state,
// belong to one goroutine on a locked thread, always the same one if possible:
// KVM moves a vCPU between threads, but not for free. The others say so.
type VCPU struct {
	fd   int
	id   int
	vm   *VM
	run  []byte // struct kvm_run and the pages behind it
	exit exits

	cpuids int // number of entries that SetCPUID has set
}

// ID returns the number given to CreateVCPU.
func (c *VCPU) ID() int { return c.id }

// Close unmaps and closes the vCPU. Exits that Run has returned, and their data,
// must not be used any more.
func (c *VCPU) Close() error {
	var err error
	if c.run != nil {
		err = unix.Munmap(c.run)
		c.run = nil
	}
	return errors.Join(err, closeFD(&c.fd))
}

// runError is what Run returns when KVM_RUN fails.
func (c *VCPU) runError(errno unix.Errno) error {
	return &Error{Op: reqRun.name, Detail: "vCPU " + strconv.Itoa(c.id), Err: errno}
}

// EnableCap switches on an extension for this vCPU (KVM API §4.37 and §6).
func (c *VCPU) EnableCap(e Cap, flags uint32, args ...uint64) error {
	return enable(c.fd, e, flags, args)
}

// Regs reads the general registers (KVM API §4.11).
func (c *VCPU) Regs() (Regs, error) { return get[Regs](c.fd, reqGetRegs) }

// SetRegs writes the general registers (KVM API §4.12).
func (c *VCPU) SetRegs(r *Regs) error { return set(c.fd, reqSetRegs, r) }

// Sregs reads segments and control registers (KVM API §4.13).
func (c *VCPU) Sregs() (Sregs, error) { return get[Sregs](c.fd, reqGetSregs) }

// SetSregs writes them (KVM API §4.14).
func (c *VCPU) SetSregs(s *Sregs) error { return set(c.fd, reqSetSregs, s) }

// FPU reads x87 and SSE state (KVM API §4.22).
func (c *VCPU) FPU() (FPU, error) { return get[FPU](c.fd, reqGetFPU) }

// SetFPU writes it (KVM API §4.23).
func (c *VCPU) SetFPU(f *FPU) error { return set(c.fd, reqSetFPU, f) }

// XSave reads the extended state in XSAVE's layout, 4096 bytes or what
// CapXSave2 says (KVM API §4.42 and §4.134).
func (c *VCPU) XSave() ([]byte, error) {
	size, err := c.xsaveSize()
	if err != nil {
		return nil, err
	}
	r := reqGetXSave2
	if size == 0 {
		size, r = xsaveSize, reqGetXSave
	}
	_, b := newList[struct{}, byte](size)
	if err := set(c.fd, r, &b[0]); err != nil {
		return nil, err
	}
	return b, nil
}

// SetXSave writes what XSave has returned (KVM API §4.43).
func (c *VCPU) SetXSave(b []byte) error {
	size, err := c.xsaveSize()
	if err != nil {
		return err
	}
	// The kernel reads as much as it wants: less would have it read past b.
	if size = max(size, xsaveSize); len(b) < size {
		return detail(&Error{Op: reqSetXSave.name, Err: unix.EINVAL}, "of %d bytes, need %d", len(b), size)
	}
	return set(c.fd, reqSetXSave, &b[0])
}

// xsaveSize returns the size of KVM_GET_XSAVE2's data, 0 where that is missing.
func (c *VCPU) xsaveSize() (int, error) {
	size, err := c.vm.CheckExtension(CapXSave2)
	if size > 0 {
		size = max(size, xsaveSize)
	}
	return size, err
}

// XCRS reads the extended control registers (KVM API §4.44).
func (c *VCPU) XCRS() (XCRS, error) { return get[XCRS](c.fd, reqGetXCRS) }

// SetXCRS writes them (KVM API §4.45).
func (c *VCPU) SetXCRS(x *XCRS) error { return set(c.fd, reqSetXCRS, x) }

// DebugRegs reads DR0 to DR3, DR6 and DR7 (KVM API §4.33).
func (c *VCPU) DebugRegs() (DebugRegs, error) { return get[DebugRegs](c.fd, reqGetDebugRegs) }

// SetDebugRegs writes them (KVM API §4.34).
func (c *VCPU) SetDebugRegs(d *DebugRegs) error { return set(c.fd, reqSetDebugRegs, d) }

// Events reads exceptions, interrupts and NMIs that are under way (KVM API §4.31).
func (c *VCPU) Events() (VCPUEvents, error) { return get[VCPUEvents](c.fd, reqGetVCPUEvents) }

// SetEvents writes them (KVM API §4.32).
func (c *VCPU) SetEvents(e *VCPUEvents) error { return set(c.fd, reqSetVCPUEvents, e) }

// MPState reads whether the vCPU runs, halts, or waits to be started (KVM API §4.38).
func (c *VCPU) MPState() (MPState, error) { return get[MPState](c.fd, reqGetMPState) }

// SetMPState writes it (KVM API §4.39).
func (c *VCPU) SetMPState(m *MPState) error { return set(c.fd, reqSetMPState, m) }

// LAPIC reads the local APIC's registers (KVM API §4.57).
func (c *VCPU) LAPIC() (LAPICState, error) { return get[LAPICState](c.fd, reqGetLAPIC) }

// SetLAPIC writes them (KVM API §4.58).
func (c *VCPU) SetLAPIC(l *LAPICState) error { return set(c.fd, reqSetLAPIC, l) }

// NMI queues a non-maskable interrupt (KVM API §4.64). It may be called from any
// goroutine.
func (c *VCPU) NMI() error {
	_, err := ioctl(c.fd, reqNMI, 0)
	return err
}

// Interrupt injects a vector, in a VM without a local APIC in the kernel and
// when ReadyForInterrupt (KVM API §4.16).
func (c *VCPU) Interrupt(vector uint8) error {
	irq := uint32(vector)
	return detail(set(c.fd, reqInterrupt, &irq), "vector %#x", vector)
}

// ReadyForInterrupt says whether the guest would take an Interrupt, as of the
// last Run (KVM API §5, ready_for_interrupt_injection).
func (c *VCPU) ReadyForInterrupt() bool { return c.run[offReadyForInterrupt] != 0 }

// Translate walks the guest's page tables for a linear address (KVM API §4.15).
// A miss is a Translation with Valid 0, not an error.
func (c *VCPU) Translate(addr uint64) (Translation, error) {
	t := Translation{LinearAddress: addr}
	err := set(c.fd, reqTranslate, &t)
	return t, detail(err, "%#x", addr)
}

// The bits of GuestDebug.Control.
const (
	DebugEnable     uint32 = 1 << 0  // KVM_GUESTDBG_ENABLE
	DebugSingleStep uint32 = 1 << 1  // KVM_GUESTDBG_SINGLESTEP
	DebugSWBreak    uint32 = 1 << 16 // KVM_GUESTDBG_USE_SW_BP: INT3 is a DebugExit
	DebugHWBreak    uint32 = 1 << 17 // KVM_GUESTDBG_USE_HW_BP: DebugReg is used
	DebugInjectDB   uint32 = 1 << 18 // KVM_GUESTDBG_INJECT_DB
	DebugInjectBP   uint32 = 1 << 19 // KVM_GUESTDBG_INJECT_BP
	DebugBlockIRQ   uint32 = 1 << 20 // KVM_GUESTDBG_BLOCKIRQ: no interrupts while stepping
)

// GuestDebug is struct kvm_guest_debug (KVM API §4.87).
type GuestDebug struct {
	Control  uint32
	_        uint32
	DebugReg [8]uint64 // DR0 to DR7
}

// SetGuestDebug sets what ends in a DebugExit; a zero GuestDebug, nothing (KVM
// API §4.87).
func (c *VCPU) SetGuestDebug(g *GuestDebug) error {
	return detail(set(c.fd, reqSetGuestDebug, g), "control %#x", g.Control)
}

// signalMask is struct kvm_signal_mask with the kernel's sigset.
type signalMask struct {
	len uint32
	set [8]uint8
}

// SetSignalMask sets the signals that are blocked during Run: bit n-1 of mask is
// signal n (KVM API §4.21).
func (c *VCPU) SetSignalMask(mask uint64) error {
	s := signalMask{len: 8}
	for i := range s.set {
		s.set[i] = uint8(mask >> (8 * i))
	}
	return detail(set(c.fd, reqSetSignalMask, &s), "%#x", mask)
}
