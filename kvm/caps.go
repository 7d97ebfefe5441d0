package kvm

import (
	"strconv"

	"github.com/bobuhiro11/gokvm/kvm"
	"golang.org/x/sys/unix"
)

// A Cap is an extension of the KVM API that a kernel may have (KVM API §4.4).
type Cap uint32

// The extensions that matter on x86. Where the doc says "enable", the extension
// is off until EnableCap (KVM API §6 and §7).
const (
	CapIRQChip              = Cap(kvm.CapIRQChip)
	CapUserMemory           = Cap(kvm.CapUserMemory)
	CapSetTSSAddr           = Cap(kvm.CapSetTSSAddr)
	CapExtCPUID             = Cap(kvm.CapEXTCPUID)
	CapNRVCPUs              = Cap(kvm.CapNRVCPUS)    // recommended number of vCPUs
	CapNRMemSlots           = Cap(kvm.CapNRMemSlots) // number of memory slots
	CapMPState              = Cap(kvm.CapMPState)
	CapCoalescedMMIO        = Cap(kvm.CapCoalescedMMIO) // page of the ring in a vCPU's mapping
	CapUserNMI              = Cap(kvm.CapUserNMI)
	CapSetGuestDebug        = Cap(kvm.CapSetGuestDebug)
	CapIRQRouting           = Cap(kvm.CapIRQRouting) // number of routes
	CapMCE                  = Cap(kvm.CapMCE)
	CapIRQFD                = Cap(kvm.CapIRQFD)
	CapPIT2                 = Cap(kvm.CapPIT2)
	CapSetBootCPUID         = Cap(kvm.CapSetBootCPUID)
	CapPITState2            = Cap(kvm.CapPITState2)
	CapIOEventFD            = Cap(kvm.CapIOEventFD)
	CapSetIdentityMapAddr   = Cap(kvm.CapSetIdentityMapAddr)
	CapAdjustClock          = Cap(kvm.CapAdjustClock) // clock flags that SetClock takes
	CapInternalErrorData    = Cap(kvm.CapInternalErrorData)
	CapVCPUEvents           = Cap(kvm.CapVCPUEvents)
	CapDebugRegs            = Cap(kvm.CapDebugRegs)
	CapEnableCap            = Cap(kvm.CapEnableCap)
	CapXSave                = Cap(kvm.CapXSave)
	CapXCRS                 = Cap(kvm.CapXCRS)
	CapTSCControl           = Cap(kvm.CapTSCControl)
	CapGetTSCKHz            = Cap(kvm.CapGetTSCkHz)
	CapMaxVCPUs             = Cap(kvm.CapMAXVCPUS) // largest number of vCPUs
	CapTSCDeadlineTimer     = Cap(kvm.CapTSCDeadlineTimer)
	CapSyncRegs             = Cap(kvm.CapSyncRegs)
	CapKVMClockCtrl         = Cap(kvm.CapKVMClockCtrl)
	CapSignalMSI            = Cap(kvm.CapSignalMSI)
	CapReadOnlyMem          = Cap(kvm.CapReadOnlyMEM)
	CapIRQFDResample        = Cap(kvm.CapIRQFDResample)
	CapExtEmulCPUID         = Cap(kvm.CapEXTEmulCPUID)
	CapEnableCapVM          = Cap(kvm.CapEnableCAPVM)
	CapIOEventFDNoLength    = Cap(kvm.CapIOEVENTFDNoLength)
	CapCheckExtensionVM     = Cap(kvm.CapCheckExtentionVM)
	CapDisableQuirks        = Cap(kvm.CapDisableQuirks) // enable
	CapX86SMM               = Cap(kvm.CapX86SMM)
	CapSplitIRQChip         = Cap(kvm.CapSplitIRQChip) // enable
	CapIOEventFDAnyLength   = Cap(kvm.CapIOEventFDAnyLength)
	CapMaxVCPUID            = Cap(kvm.CapMAXVCPUID)
	CapX2APICAPI            = Cap(kvm.CapX2APICAPI) // enable
	CapImmediateExit        = Cap(kvm.CapImmediateExit)
	CapX86DisableExits      = Cap(kvm.CapX86DisableExits) // enable
	CapGetMSRFeatures       = Cap(kvm.CapGETMSRFeatures)
	CapNestedState          = Cap(kvm.CapNestedState)
	CapCoalescedPIO         = Cap(kvm.CapCoalescedPIO)
	CapExceptionPayload     = Cap(kvm.CapExceptionPayload)       // enable
	CapManualDirtyLog2      = Cap(kvm.CapManualDirtyLogProtect2) // enable
	CapPMUEventFilter       = Cap(kvm.CapPMUEventFilter)
	CapHaltPoll             = Cap(kvm.CapHALTPoll) // enable
	CapAsyncPFInt           = Cap(kvm.CapASYNCPFInt)
	CapSmallerMaxPhyAddr    = Cap(kvm.CapSmallerMaxPhyAddr)
	CapStealTime            = Cap(kvm.CapStealTime)
	CapX86UserSpaceMSR      = Cap(kvm.CapX86UserSpaceMSR) // enable
	CapX86MSRFilter         = Cap(kvm.CapX86MSRFilter)
	CapDirtyLogRing         = Cap(kvm.CapDirtyLogRing)
	CapX86BusLockExit       = Cap(kvm.CapX86BusLockExit)
	CapSetGuestDebug2       = Cap(kvm.CapSetGuestDebug2) // Debug flags that SetGuestDebug takes
	CapSregs2               = Cap(kvm.CapSREGS2)
	CapBinaryStatsFD        = Cap(kvm.CapBinaryStatsFD)
	CapExitOnEmulationFault = Cap(kvm.CapExitOnEmulationFailure) // enable
	CapVMGPABits            = Cap(kvm.CapVMGPABits)
	CapXSave2               = Cap(kvm.CapXSave2) // bytes of an XSave
	CapSysAttributes        = Cap(kvm.CapSysAttributes)
	CapPMUCapability        = Cap(kvm.CapPMUCapability)
	CapDisableQuirks2       = Cap(kvm.CapDisableQuirks2) // enable
	CapVMTSCControl         = Cap(kvm.CapVMTSCControl)
	CapX86TripleFaultEvent  = Cap(kvm.CapX86TripleFaultEvent) // enable
	CapX86NotifyVMExit      = Cap(kvm.CapX86NotifyVMExit)     // enable

	// Newer than gokvm's list.
	CapMemoryFaultInfo    Cap = 232
	CapMemoryAttributes   Cap = 233
	CapGuestMemFD         Cap = 234
	CapVMTypes            Cap = 235
	CapPreFaultMemory     Cap = 236
	CapX86APICBusCyclesNS Cap = 237 // enable
)

// capNames are the names of the kernel's headers.
var capNames = [...]string{
	CapIRQChip:              "KVM_CAP_IRQCHIP",
	CapUserMemory:           "KVM_CAP_USER_MEMORY",
	CapSetTSSAddr:           "KVM_CAP_SET_TSS_ADDR",
	CapExtCPUID:             "KVM_CAP_EXT_CPUID",
	CapNRVCPUs:              "KVM_CAP_NR_VCPUS",
	CapNRMemSlots:           "KVM_CAP_NR_MEMSLOTS",
	CapMPState:              "KVM_CAP_MP_STATE",
	CapCoalescedMMIO:        "KVM_CAP_COALESCED_MMIO",
	CapUserNMI:              "KVM_CAP_USER_NMI",
	CapSetGuestDebug:        "KVM_CAP_SET_GUEST_DEBUG",
	CapIRQRouting:           "KVM_CAP_IRQ_ROUTING",
	CapMCE:                  "KVM_CAP_MCE",
	CapIRQFD:                "KVM_CAP_IRQFD",
	CapPIT2:                 "KVM_CAP_PIT2",
	CapSetBootCPUID:         "KVM_CAP_SET_BOOT_CPU_ID",
	CapPITState2:            "KVM_CAP_PIT_STATE2",
	CapIOEventFD:            "KVM_CAP_IOEVENTFD",
	CapSetIdentityMapAddr:   "KVM_CAP_SET_IDENTITY_MAP_ADDR",
	CapAdjustClock:          "KVM_CAP_ADJUST_CLOCK",
	CapInternalErrorData:    "KVM_CAP_INTERNAL_ERROR_DATA",
	CapVCPUEvents:           "KVM_CAP_VCPU_EVENTS",
	CapDebugRegs:            "KVM_CAP_DEBUGREGS",
	CapEnableCap:            "KVM_CAP_ENABLE_CAP",
	CapXSave:                "KVM_CAP_XSAVE",
	CapXCRS:                 "KVM_CAP_XCRS",
	CapTSCControl:           "KVM_CAP_TSC_CONTROL",
	CapGetTSCKHz:            "KVM_CAP_GET_TSC_KHZ",
	CapMaxVCPUs:             "KVM_CAP_MAX_VCPUS",
	CapTSCDeadlineTimer:     "KVM_CAP_TSC_DEADLINE_TIMER",
	CapSyncRegs:             "KVM_CAP_SYNC_REGS",
	CapKVMClockCtrl:         "KVM_CAP_KVMCLOCK_CTRL",
	CapSignalMSI:            "KVM_CAP_SIGNAL_MSI",
	CapReadOnlyMem:          "KVM_CAP_READONLY_MEM",
	CapIRQFDResample:        "KVM_CAP_IRQFD_RESAMPLE",
	CapExtEmulCPUID:         "KVM_CAP_EXT_EMUL_CPUID",
	CapEnableCapVM:          "KVM_CAP_ENABLE_CAP_VM",
	CapIOEventFDNoLength:    "KVM_CAP_IOEVENTFD_NO_LENGTH",
	CapCheckExtensionVM:     "KVM_CAP_CHECK_EXTENSION_VM",
	CapDisableQuirks:        "KVM_CAP_DISABLE_QUIRKS",
	CapX86SMM:               "KVM_CAP_X86_SMM",
	CapSplitIRQChip:         "KVM_CAP_SPLIT_IRQCHIP",
	CapIOEventFDAnyLength:   "KVM_CAP_IOEVENTFD_ANY_LENGTH",
	CapMaxVCPUID:            "KVM_CAP_MAX_VCPU_ID",
	CapX2APICAPI:            "KVM_CAP_X2APIC_API",
	CapImmediateExit:        "KVM_CAP_IMMEDIATE_EXIT",
	CapX86DisableExits:      "KVM_CAP_X86_DISABLE_EXITS",
	CapGetMSRFeatures:       "KVM_CAP_GET_MSR_FEATURES",
	CapNestedState:          "KVM_CAP_NESTED_STATE",
	CapCoalescedPIO:         "KVM_CAP_COALESCED_PIO",
	CapExceptionPayload:     "KVM_CAP_EXCEPTION_PAYLOAD",
	CapManualDirtyLog2:      "KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2",
	CapPMUEventFilter:       "KVM_CAP_PMU_EVENT_FILTER",
	CapHaltPoll:             "KVM_CAP_HALT_POLL",
	CapAsyncPFInt:           "KVM_CAP_ASYNC_PF_INT",
	CapSmallerMaxPhyAddr:    "KVM_CAP_SMALLER_MAXPHYADDR",
	CapStealTime:            "KVM_CAP_STEAL_TIME",
	CapX86UserSpaceMSR:      "KVM_CAP_X86_USER_SPACE_MSR",
	CapX86MSRFilter:         "KVM_CAP_X86_MSR_FILTER",
	CapDirtyLogRing:         "KVM_CAP_DIRTY_LOG_RING",
	CapX86BusLockExit:       "KVM_CAP_X86_BUS_LOCK_EXIT",
	CapSetGuestDebug2:       "KVM_CAP_SET_GUEST_DEBUG2",
	CapSregs2:               "KVM_CAP_SREGS2",
	CapBinaryStatsFD:        "KVM_CAP_BINARY_STATS_FD",
	CapExitOnEmulationFault: "KVM_CAP_EXIT_ON_EMULATION_FAILURE",
	CapVMGPABits:            "KVM_CAP_VM_GPA_BITS",
	CapXSave2:               "KVM_CAP_XSAVE2",
	CapSysAttributes:        "KVM_CAP_SYS_ATTRIBUTES",
	CapPMUCapability:        "KVM_CAP_PMU_CAPABILITY",
	CapDisableQuirks2:       "KVM_CAP_DISABLE_QUIRKS2",
	CapVMTSCControl:         "KVM_CAP_VM_TSC_CONTROL",
	CapX86TripleFaultEvent:  "KVM_CAP_X86_TRIPLE_FAULT_EVENT",
	CapX86NotifyVMExit:      "KVM_CAP_X86_NOTIFY_VMEXIT",
	CapMemoryFaultInfo:      "KVM_CAP_MEMORY_FAULT_INFO",
	CapMemoryAttributes:     "KVM_CAP_MEMORY_ATTRIBUTES",
	CapGuestMemFD:           "KVM_CAP_GUEST_MEMFD",
	CapVMTypes:              "KVM_CAP_VM_TYPES",
	CapPreFaultMemory:       "KVM_CAP_PRE_FAULT_MEMORY",
	CapX86APICBusCyclesNS:   "KVM_CAP_X86_APIC_BUS_CYCLES_NS",
}

// String returns the name in the kernel's headers: "KVM_CAP_IRQCHIP".
func (c Cap) String() string {
	if int64(c) < int64(len(capNames)) && capNames[c] != "" {
		return capNames[c]
	}
	return "KVM_CAP_" + strconv.FormatUint(uint64(c), 10)
}

// enableCap is struct kvm_enable_cap.
type enableCap struct {
	cap   uint32
	flags uint32
	args  [4]uint64
	_     [64]uint8
}

func enable(fd int, c Cap, flags uint32, args []uint64) error {
	e := enableCap{cap: uint32(c), flags: flags}
	if len(args) > len(e.args) {
		return &Error{Op: reqEnableCap.name, Detail: c.String(), Err: unix.E2BIG}
	}
	copy(e.args[:], args)
	return detail(set(fd, reqEnableCap, &e), "%v %#x", c, args)
}
