package main

import "fmt"

// How KVM's trace events number the two instruction sets (KVM_ISA_VMX, KVM_ISA_SVM).
const (
	isaVMX = 1
	isaSVM = 2
)

// Names of exit reasons, those that a booting Linux meets: AMD's exit codes
// (AMD64 Architecture Programmer's Manual 2, appendix C) and Intel's basic exit
// reasons (Intel SDM 3, appendix C). One name for one thing, so that figures
// of both can be read alike.
var reasonNames = map[uint64]map[uint64]string{
	isaSVM: {
		0x60: reasonInterrupt, 0x61: "NMI", 0x64: reasonWindow, 0x72: "CPUID", 0x77: "PAUSE", 0x78: reasonHalt,
		0x7b: "port I/O", 0x7c: "MSR", 0x7f: "shutdown", 0x81: "hypercall", 0x8d: "XSETBV", 0x89: "WBINVD",
		0x400: "page fault", 0x401: "AVIC IPI", 0x402: "AVIC access",
		0x65: "CR write", 0x6e: "RDTSC", 0x87: "RDTSCP", 0x79: "INVLPG", 0x73: "RSM",
	},
	isaVMX: {
		0: "exception or NMI", 1: reasonInterrupt, 2: "shutdown", 7: reasonWindow, 8: "NMI window", 10: "CPUID", 12: reasonHalt,
		18: "hypercall", 28: "CR access", 29: "DR access", 30: "port I/O", 31: "MSR", 32: "MSR", 40: "PAUSE",
		44: "APIC access", 48: "page fault", 49: "page fault", 52: reasonPreemption, 54: "WBINVD", 55: "XSETBV", 56: "APIC write",
	},
}

// The reasons that follow the time a boot takes, not what the monitor and the
// guest do.
const (
	reasonInterrupt  = "interrupt of the host"
	reasonWindow     = "interrupt window"
	reasonPreemption = "preemption timer"
	reasonHalt       = "HLT"
)

// msrDeadline is IA32_TSC_DEADLINE, which sets the guest's timer (Intel SDM 4).
const msrDeadline = 0x6e0

// reasonName names an exit.
func reasonName(isa, reason uint64) string {
	if isa == isaVMX {
		reason &= 0xffff // above it are flags
	}
	if name := reasonNames[isa][reason]; name != "" {
		return name
	}
	if isa == isaSVM && reason < 0x60 {
		// Sixteen of each: CR0 to CR15, DR0 to DR15; then exceptions by vector.
		return [...]string{"CR read", "CR write", "DR read", "DR write", "exception", "exception"}[reason>>4]
	}
	return fmt.Sprintf("%#x", reason)
}
