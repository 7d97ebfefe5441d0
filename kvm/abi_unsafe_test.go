package kvm

import (
	"testing"
	"unsafe"

	"github.com/bobuhiro11/gokvm/kvm"
	"github.com/stretchr/testify/require"
)

// What Go makes of the structures must be what the kernel's headers say. golden
// was made from them by testdata/abi.c.
func TestABI(t *testing.T) {
	require.Equal(t, golden, ours())
}

// ours has our side of everything in golden.
func ours() map[string]uintptr {
	var (
		regs                  Regs
		segment               Segment
		dtable                Descriptor
		sregs                 Sregs
		fpu                   FPU
		xcrs                  XCRS
		debugregs             DebugRegs
		vcpuEvents            VCPUEvents
		translation           Translation
		guestDebug            GuestDebug
		enableCap             enableCap
		cpuidEntry2           CPUIDEntry
		msrEntry              MSR
		userspaceMemoryRegion UserspaceMemoryRegion
		dirtyLog              dirtyLog
		clearDirtyLog         clearDirtyLog
		coalescedMMIOZone     coalescedZone
		irqchip               IRQChip
		irqLevel              irqLevel
		irqRoutingEntry       routeEntry
		msi                   msi
		irqfd                 irqfd
		ioeventfd             ioeventfd
		pitConfig             pitConfig
		pitState2             PITState2
		clockData             ClockData
		xcr                   kvm.XRC
		pitChannel            kvm.PITChannelState
		sigmask               signalMask
	)
	m := map[string]uintptr{
		"sizeof kvm_regs": unsafe.Sizeof(regs),
		"kvm_regs.rax":    unsafe.Offsetof(regs.RAX),
		"kvm_regs.rbx":    unsafe.Offsetof(regs.RBX),
		"kvm_regs.rcx":    unsafe.Offsetof(regs.RCX),
		"kvm_regs.rdx":    unsafe.Offsetof(regs.RDX),
		"kvm_regs.rsi":    unsafe.Offsetof(regs.RSI),
		"kvm_regs.rdi":    unsafe.Offsetof(regs.RDI),
		"kvm_regs.rsp":    unsafe.Offsetof(regs.RSP),
		"kvm_regs.rbp":    unsafe.Offsetof(regs.RBP),
		"kvm_regs.r8":     unsafe.Offsetof(regs.R8),
		"kvm_regs.r9":     unsafe.Offsetof(regs.R9),
		"kvm_regs.r10":    unsafe.Offsetof(regs.R10),
		"kvm_regs.r11":    unsafe.Offsetof(regs.R11),
		"kvm_regs.r12":    unsafe.Offsetof(regs.R12),
		"kvm_regs.r13":    unsafe.Offsetof(regs.R13),
		"kvm_regs.r14":    unsafe.Offsetof(regs.R14),
		"kvm_regs.r15":    unsafe.Offsetof(regs.R15),
		"kvm_regs.rip":    unsafe.Offsetof(regs.RIP),
		"kvm_regs.rflags": unsafe.Offsetof(regs.RFLAGS),

		"sizeof kvm_segment":   unsafe.Sizeof(segment),
		"kvm_segment.base":     unsafe.Offsetof(segment.Base),
		"kvm_segment.limit":    unsafe.Offsetof(segment.Limit),
		"kvm_segment.selector": unsafe.Offsetof(segment.Selector),
		"kvm_segment.type":     unsafe.Offsetof(segment.Typ),
		"kvm_segment.present":  unsafe.Offsetof(segment.Present),
		"kvm_segment.dpl":      unsafe.Offsetof(segment.DPL),
		"kvm_segment.db":       unsafe.Offsetof(segment.DB),
		"kvm_segment.s":        unsafe.Offsetof(segment.S),
		"kvm_segment.l":        unsafe.Offsetof(segment.L),
		"kvm_segment.g":        unsafe.Offsetof(segment.G),
		"kvm_segment.avl":      unsafe.Offsetof(segment.AVL),
		"kvm_segment.unusable": unsafe.Offsetof(segment.Unusable),

		"sizeof kvm_dtable": unsafe.Sizeof(dtable),
		"kvm_dtable.base":   unsafe.Offsetof(dtable.Base),
		"kvm_dtable.limit":  unsafe.Offsetof(dtable.Limit),

		"sizeof kvm_sregs":           unsafe.Sizeof(sregs),
		"kvm_sregs.cs":               unsafe.Offsetof(sregs.CS),
		"kvm_sregs.ds":               unsafe.Offsetof(sregs.DS),
		"kvm_sregs.es":               unsafe.Offsetof(sregs.ES),
		"kvm_sregs.fs":               unsafe.Offsetof(sregs.FS),
		"kvm_sregs.gs":               unsafe.Offsetof(sregs.GS),
		"kvm_sregs.ss":               unsafe.Offsetof(sregs.SS),
		"kvm_sregs.tr":               unsafe.Offsetof(sregs.TR),
		"kvm_sregs.ldt":              unsafe.Offsetof(sregs.LDT),
		"kvm_sregs.gdt":              unsafe.Offsetof(sregs.GDT),
		"kvm_sregs.idt":              unsafe.Offsetof(sregs.IDT),
		"kvm_sregs.cr0":              unsafe.Offsetof(sregs.CR0),
		"kvm_sregs.cr2":              unsafe.Offsetof(sregs.CR2),
		"kvm_sregs.cr3":              unsafe.Offsetof(sregs.CR3),
		"kvm_sregs.cr4":              unsafe.Offsetof(sregs.CR4),
		"kvm_sregs.cr8":              unsafe.Offsetof(sregs.CR8),
		"kvm_sregs.efer":             unsafe.Offsetof(sregs.EFER),
		"kvm_sregs.apic_base":        unsafe.Offsetof(sregs.ApicBase),
		"kvm_sregs.interrupt_bitmap": unsafe.Offsetof(sregs.InterruptBitmap),

		"sizeof kvm_fpu":      unsafe.Sizeof(fpu),
		"kvm_fpu.fpr":         unsafe.Offsetof(fpu.FPR),
		"kvm_fpu.fcw":         unsafe.Offsetof(fpu.FCW),
		"kvm_fpu.fsw":         unsafe.Offsetof(fpu.FSW),
		"kvm_fpu.ftwx":        unsafe.Offsetof(fpu.FTWX),
		"kvm_fpu.last_opcode": unsafe.Offsetof(fpu.LastOpcode),
		"kvm_fpu.last_ip":     unsafe.Offsetof(fpu.LastIP),
		"kvm_fpu.last_dp":     unsafe.Offsetof(fpu.LastDP),
		"kvm_fpu.xmm":         unsafe.Offsetof(fpu.XMM),
		"kvm_fpu.mxcsr":       unsafe.Offsetof(fpu.MXCSR),

		"sizeof kvm_lapic_state": unsafe.Sizeof(LAPICState{}),

		"sizeof kvm_xcr": unsafe.Sizeof(xcr),
		"kvm_xcr.xcr":    unsafe.Offsetof(xcr.XRC),
		"kvm_xcr.value":  unsafe.Offsetof(xcr.Value),

		"sizeof kvm_xcrs":  unsafe.Sizeof(xcrs),
		"kvm_xcrs.nr_xcrs": unsafe.Offsetof(xcrs.NrXRCS),
		"kvm_xcrs.flags":   unsafe.Offsetof(xcrs.Flags),
		"kvm_xcrs.xcrs":    unsafe.Offsetof(xcrs.Registers),

		"sizeof kvm_debugregs": unsafe.Sizeof(debugregs),
		"kvm_debugregs.db":     unsafe.Offsetof(debugregs.DB),
		"kvm_debugregs.dr6":    unsafe.Offsetof(debugregs.DR6),
		"kvm_debugregs.dr7":    unsafe.Offsetof(debugregs.DR7),
		"kvm_debugregs.flags":  unsafe.Offsetof(debugregs.Flags),

		"sizeof kvm_mp_state": unsafe.Sizeof(MPState{}),

		"sizeof kvm_vcpu_events":                   unsafe.Sizeof(vcpuEvents),
		"kvm_vcpu_events.exception":                unsafe.Offsetof(vcpuEvents.E),
		"kvm_vcpu_events.exception.nr":             unsafe.Offsetof(vcpuEvents.E) + unsafe.Offsetof(vcpuEvents.E.Nr),
		"kvm_vcpu_events.exception.has_error_code": unsafe.Offsetof(vcpuEvents.E) + unsafe.Offsetof(vcpuEvents.E.HadErrorCode),
		"kvm_vcpu_events.exception.pending":        unsafe.Offsetof(vcpuEvents.E) + unsafe.Offsetof(vcpuEvents.E.Pending),
		"kvm_vcpu_events.exception.error_code":     unsafe.Offsetof(vcpuEvents.E) + unsafe.Offsetof(vcpuEvents.E.ErrorCode),
		"kvm_vcpu_events.interrupt":                unsafe.Offsetof(vcpuEvents.I),
		"kvm_vcpu_events.interrupt.nr":             unsafe.Offsetof(vcpuEvents.I) + unsafe.Offsetof(vcpuEvents.I.Nr),
		"kvm_vcpu_events.interrupt.soft":           unsafe.Offsetof(vcpuEvents.I) + unsafe.Offsetof(vcpuEvents.I.Soft),
		"kvm_vcpu_events.interrupt.shadow":         unsafe.Offsetof(vcpuEvents.I) + unsafe.Offsetof(vcpuEvents.I.Shadow),
		"kvm_vcpu_events.nmi":                      unsafe.Offsetof(vcpuEvents.N),
		"kvm_vcpu_events.nmi.pending":              unsafe.Offsetof(vcpuEvents.N) + unsafe.Offsetof(vcpuEvents.N.Pending),
		"kvm_vcpu_events.nmi.masked":               unsafe.Offsetof(vcpuEvents.N) + unsafe.Offsetof(vcpuEvents.N.Masked),
		"kvm_vcpu_events.sipi_vector":              unsafe.Offsetof(vcpuEvents.SipiVector),
		"kvm_vcpu_events.flags":                    unsafe.Offsetof(vcpuEvents.Flags),
		"kvm_vcpu_events.smi":                      unsafe.Offsetof(vcpuEvents.S),
		"kvm_vcpu_events.smi.latched_init":         unsafe.Offsetof(vcpuEvents.S) + unsafe.Offsetof(vcpuEvents.S.LatchedInit),
		"kvm_vcpu_events.triple_fault":             unsafe.Offsetof(vcpuEvents.TripleFault),
		"kvm_vcpu_events.exception_has_payload":    unsafe.Offsetof(vcpuEvents.ExceptionHasPayload),
		"kvm_vcpu_events.exception_payload":        unsafe.Offsetof(vcpuEvents.ExceptionPayload),

		"sizeof kvm_translation":           unsafe.Sizeof(translation),
		"kvm_translation.linear_address":   unsafe.Offsetof(translation.LinearAddress),
		"kvm_translation.physical_address": unsafe.Offsetof(translation.PhysicalAddress),
		"kvm_translation.valid":            unsafe.Offsetof(translation.Valid),
		"kvm_translation.writeable":        unsafe.Offsetof(translation.Writeable),
		"kvm_translation.usermode":         unsafe.Offsetof(translation.Usermode),

		"sizeof kvm_interrupt": unsafe.Sizeof(uint32(0)),

		"sizeof kvm_guest_debug":  unsafe.Sizeof(guestDebug),
		"kvm_guest_debug.control": unsafe.Offsetof(guestDebug.Control),
		"kvm_guest_debug.arch":    unsafe.Offsetof(guestDebug.DebugReg),

		"sizeof kvm_enable_cap": unsafe.Sizeof(enableCap),
		"kvm_enable_cap.cap":    unsafe.Offsetof(enableCap.cap),
		"kvm_enable_cap.flags":  unsafe.Offsetof(enableCap.flags),
		"kvm_enable_cap.args":   unsafe.Offsetof(enableCap.args),

		"sizeof kvm_cpuid2": unsafe.Sizeof(listHeader{}),

		"sizeof kvm_cpuid_entry2":   unsafe.Sizeof(cpuidEntry2),
		"kvm_cpuid_entry2.function": unsafe.Offsetof(cpuidEntry2.Function),
		"kvm_cpuid_entry2.index":    unsafe.Offsetof(cpuidEntry2.Index),
		"kvm_cpuid_entry2.flags":    unsafe.Offsetof(cpuidEntry2.Flags),
		"kvm_cpuid_entry2.eax":      unsafe.Offsetof(cpuidEntry2.EAX),
		"kvm_cpuid_entry2.ebx":      unsafe.Offsetof(cpuidEntry2.EBX),
		"kvm_cpuid_entry2.ecx":      unsafe.Offsetof(cpuidEntry2.ECX),
		"kvm_cpuid_entry2.edx":      unsafe.Offsetof(cpuidEntry2.EDX),

		"sizeof kvm_msrs": unsafe.Sizeof(listHeader{}),

		"sizeof kvm_msr_entry": unsafe.Sizeof(msrEntry),
		"kvm_msr_entry.index":  unsafe.Offsetof(msrEntry.Index),
		"kvm_msr_entry.data":   unsafe.Offsetof(msrEntry.Data),

		"sizeof kvm_msr_list": unsafe.Sizeof(msrListHeader{}),

		"sizeof kvm_userspace_memory_region":          unsafe.Sizeof(userspaceMemoryRegion),
		"kvm_userspace_memory_region.slot":            unsafe.Offsetof(userspaceMemoryRegion.Slot),
		"kvm_userspace_memory_region.flags":           unsafe.Offsetof(userspaceMemoryRegion.Flags),
		"kvm_userspace_memory_region.guest_phys_addr": unsafe.Offsetof(userspaceMemoryRegion.GuestPhysAddr),
		"kvm_userspace_memory_region.memory_size":     unsafe.Offsetof(userspaceMemoryRegion.MemorySize),
		"kvm_userspace_memory_region.userspace_addr":  unsafe.Offsetof(userspaceMemoryRegion.UserspaceAddr),

		"sizeof kvm_dirty_log":       unsafe.Sizeof(dirtyLog),
		"kvm_dirty_log.slot":         unsafe.Offsetof(dirtyLog.slot),
		"kvm_dirty_log.dirty_bitmap": unsafe.Offsetof(dirtyLog.bitmap),

		"sizeof kvm_clear_dirty_log":       unsafe.Sizeof(clearDirtyLog),
		"kvm_clear_dirty_log.slot":         unsafe.Offsetof(clearDirtyLog.slot),
		"kvm_clear_dirty_log.num_pages":    unsafe.Offsetof(clearDirtyLog.pages),
		"kvm_clear_dirty_log.first_page":   unsafe.Offsetof(clearDirtyLog.first),
		"kvm_clear_dirty_log.dirty_bitmap": unsafe.Offsetof(clearDirtyLog.bitmap),

		"sizeof kvm_coalesced_mmio_zone": unsafe.Sizeof(coalescedMMIOZone),
		"kvm_coalesced_mmio_zone.addr":   unsafe.Offsetof(coalescedMMIOZone.addr),
		"kvm_coalesced_mmio_zone.size":   unsafe.Offsetof(coalescedMMIOZone.size),
		"kvm_coalesced_mmio_zone.pio":    unsafe.Offsetof(coalescedMMIOZone.pio),

		"sizeof kvm_irqchip":  unsafe.Sizeof(irqchip),
		"kvm_irqchip.chip_id": unsafe.Offsetof(irqchip.ChipID),
		"kvm_irqchip.chip":    unsafe.Offsetof(irqchip.Chip),

		"sizeof kvm_irq_level": unsafe.Sizeof(irqLevel),
		"kvm_irq_level.irq":    unsafe.Offsetof(irqLevel.irq),
		"kvm_irq_level.level":  unsafe.Offsetof(irqLevel.level),

		"sizeof kvm_irq_routing": unsafe.Sizeof(listHeader{}),

		"sizeof kvm_irq_routing_entry": unsafe.Sizeof(irqRoutingEntry),
		"kvm_irq_routing_entry.gsi":    unsafe.Offsetof(irqRoutingEntry.gsi),
		"kvm_irq_routing_entry.type":   unsafe.Offsetof(irqRoutingEntry.kind),
		"kvm_irq_routing_entry.u":      unsafe.Offsetof(irqRoutingEntry.u),

		"sizeof kvm_msi":     unsafe.Sizeof(msi),
		"kvm_msi.address_lo": unsafe.Offsetof(msi.addressLo),
		"kvm_msi.address_hi": unsafe.Offsetof(msi.addressHi),
		"kvm_msi.data":       unsafe.Offsetof(msi.data),

		"sizeof kvm_irqfd":     unsafe.Sizeof(irqfd),
		"kvm_irqfd.fd":         unsafe.Offsetof(irqfd.fd),
		"kvm_irqfd.gsi":        unsafe.Offsetof(irqfd.gsi),
		"kvm_irqfd.flags":      unsafe.Offsetof(irqfd.flags),
		"kvm_irqfd.resamplefd": unsafe.Offsetof(irqfd.resampleFD),

		"sizeof kvm_ioeventfd":    unsafe.Sizeof(ioeventfd),
		"kvm_ioeventfd.datamatch": unsafe.Offsetof(ioeventfd.datamatch),
		"kvm_ioeventfd.addr":      unsafe.Offsetof(ioeventfd.addr),
		"kvm_ioeventfd.len":       unsafe.Offsetof(ioeventfd.len),
		"kvm_ioeventfd.fd":        unsafe.Offsetof(ioeventfd.fd),
		"kvm_ioeventfd.flags":     unsafe.Offsetof(ioeventfd.flags),

		"sizeof kvm_pit_config": unsafe.Sizeof(pitConfig),
		"kvm_pit_config.flags":  unsafe.Offsetof(pitConfig.flags),

		"sizeof kvm_pit_state2": unsafe.Sizeof(pitState2),
		"kvm_pit_state2.flags":  unsafe.Offsetof(pitState2.Flags),

		"sizeof kvm_clock_data":   unsafe.Sizeof(clockData),
		"kvm_clock_data.clock":    unsafe.Offsetof(clockData.Clock),
		"kvm_clock_data.flags":    unsafe.Offsetof(clockData.Flags),
		"kvm_clock_data.realtime": unsafe.Offsetof(clockData.Realtime),
		"kvm_clock_data.host_tsc": unsafe.Offsetof(clockData.HostTSC),

		"kvm_cpuid2.entries":      unsafe.Sizeof(listHeader{}),
		"kvm_msrs.entries":        unsafe.Sizeof(listHeader{}),
		"kvm_irq_routing.flags":   4,
		"kvm_irq_routing.entries": unsafe.Sizeof(listHeader{}),
		"kvm_msr_list.indices":    unsafe.Sizeof(msrListHeader{}),
		"sizeof kvm_signal_mask":  unsafe.Offsetof(sigmask.set),
		"kvm_signal_mask.sigset":  unsafe.Offsetof(sigmask.set),
		"sizeof kvm_xsave":        xsaveSize,

		"sizeof kvm_pit_channel_state":          unsafe.Sizeof(pitChannel),
		"kvm_pit_channel_state.latched_count":   unsafe.Offsetof(pitChannel.LatchedCount),
		"kvm_pit_channel_state.count_latched":   unsafe.Offsetof(pitChannel.CountLatched),
		"kvm_pit_channel_state.mode":            unsafe.Offsetof(pitChannel.Mode),
		"kvm_pit_channel_state.gate":            unsafe.Offsetof(pitChannel.Gate),
		"kvm_pit_channel_state.count_load_time": unsafe.Offsetof(pitChannel.CountLoadTime),

		// SetGSIRouting fills these words of routeEntry.u.
		"sizeof kvm_irq_routing_irqchip":  2 * 4,
		"kvm_irq_routing_irqchip.irqchip": 0 * 4,
		"kvm_irq_routing_irqchip.pin":     1 * 4,
		"sizeof kvm_irq_routing_msi":      4 * 4,
		"kvm_irq_routing_msi.address_lo":  0 * 4,
		"kvm_irq_routing_msi.address_hi":  1 * 4,
		"kvm_irq_routing_msi.data":        2 * 4,

		// coalescedStore reads these.
		"sizeof kvm_coalesced_mmio":              coalescedSize,
		"kvm_coalesced_mmio.phys_addr":           0,
		"kvm_coalesced_mmio.len":                 8,
		"kvm_coalesced_mmio.pio":                 12,
		"kvm_coalesced_mmio.data":                16,
		"sizeof kvm_coalesced_mmio_ring":         offCoalescedRing - offCoalesced,
		"kvm_coalesced_mmio_ring.first":          0,
		"kvm_coalesced_mmio_ring.last":           offCoalescedLast - offCoalesced,
		"kvm_coalesced_mmio_ring.coalesced_mmio": offCoalescedRing - offCoalesced,

		// Stats.parse reads these.
		"sizeof kvm_stats_header":      statHeaderSize,
		"kvm_stats_header.name_size":   4,
		"kvm_stats_header.num_desc":    8,
		"kvm_stats_header.desc_offset": 16,
		"kvm_stats_header.data_offset": 20,
		"sizeof kvm_stats_desc":        statDescSize,
		"kvm_stats_desc.size":          6,
		"kvm_stats_desc.offset":        8,
		"kvm_stats_desc.name":          statDescSize,

		// exits.decode reads these.
		"kvm_run.request_interrupt_window":      offRequestInterruptWindow,
		"kvm_run.immediate_exit":                offImmediateExit,
		"kvm_run.exit_reason":                   offExitReason,
		"kvm_run.ready_for_interrupt_injection": offReadyForInterrupt,
		"kvm_run.hw":                            offUnion,
		"kvm_run.hw.hardware_exit_reason":       offUnion,
		"kvm_run.kvm_valid_regs":                runSize,
		"kvm_run.io.direction":                  offUnion,
		"kvm_run.io.size":                       offUnion + 1,
		"kvm_run.io.port":                       offUnion + 2,
		"kvm_run.io.count":                      offUnion + 4,
		"kvm_run.io.data_offset":                offUnion + 8,
		"kvm_run.mmio.phys_addr":                offUnion,
		"kvm_run.mmio.data":                     offUnion + 8,
		"kvm_run.mmio.len":                      offUnion + 16,
		"kvm_run.mmio.is_write":                 offUnion + 20,

		"kvm_run.fail_entry.hardware_entry_failure_reason": offUnion,

		"kvm_run.fail_entry.cpu":               offUnion + 8,
		"kvm_run.internal.suberror":            offUnion,
		"kvm_run.internal.ndata":               offUnion + 4,
		"kvm_run.internal.data":                offUnion + 8,
		"kvm_run.emulation_failure.flags":      offUnion + 8,
		"kvm_run.emulation_failure.insn_size":  offUnion + 16,
		"kvm_run.emulation_failure.insn_bytes": offUnion + 17,
		"kvm_run.system_event.type":            offUnion,
		"kvm_run.system_event.ndata":           offUnion + 4,
		"kvm_run.system_event.data":            offUnion + 8,
		"kvm_run.debug.arch.exception":         offUnion,
		"kvm_run.debug.arch.pc":                offUnion + 8,
		"kvm_run.debug.arch.dr6":               offUnion + 16,
		"kvm_run.debug.arch.dr7":               offUnion + 24,
		"kvm_run.eoi.vector":                   offUnion,

		"KVM_API_VERSION":                apiVersion,
		"KVM_COALESCED_MMIO_PAGE_OFFSET": offCoalesced / pageSize,
		"KVM_EXIT_IO_IN":                 uintptr(ioIn),

		"KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES": flagInstructionBytes,

		"KVM_INTERNAL_ERROR_EMULATION":              uintptr(InternalErrorEmulation),
		"KVM_INTERNAL_ERROR_SIMUL_EX":               uintptr(InternalErrorSimultaneousEx),
		"KVM_INTERNAL_ERROR_DELIVERY_EV":            uintptr(InternalErrorDelivery),
		"KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON": uintptr(InternalErrorUnexpectedExit),
		"KVM_SYSTEM_EVENT_SHUTDOWN":                 uintptr(SystemEventShutdown),
		"KVM_SYSTEM_EVENT_RESET":                    uintptr(SystemEventReset),
		"KVM_SYSTEM_EVENT_CRASH":                    uintptr(SystemEventCrash),
		"KVM_MEM_LOG_DIRTY_PAGES":                   uintptr(MemLogDirtyPages),
		"KVM_MEM_READONLY":                          uintptr(MemReadOnly),
		"KVM_CLOCK_TSC_STABLE":                      uintptr(ClockTSCStable),
		"KVM_CLOCK_REALTIME":                        uintptr(ClockRealtime),
		"KVM_CLOCK_HOST_TSC":                        uintptr(ClockHostTSC),
		"KVM_IRQCHIP_PIC_MASTER":                    uintptr(ChipPICMaster),
		"KVM_IRQCHIP_PIC_SLAVE":                     uintptr(ChipPICSlave),
		"KVM_IRQCHIP_IOAPIC":                        uintptr(ChipIOAPIC),
		"KVM_PIT_SPEAKER_DUMMY":                     uintptr(PITSpeakerDummy),
		"KVM_IRQ_ROUTING_IRQCHIP":                   routeIRQChip,
		"KVM_IRQ_ROUTING_MSI":                       routeMSI,
		"KVM_IRQFD_FLAG_DEASSIGN":                   irqfdDeassign,
		"KVM_IRQFD_FLAG_RESAMPLE":                   irqfdResample,
		"KVM_IOEVENTFD_FLAG_DATAMATCH":              ioeventfdDatamatch,
		"KVM_IOEVENTFD_FLAG_PIO":                    ioeventfdPIO,
		"KVM_IOEVENTFD_FLAG_DEASSIGN":               ioeventfdDeassign,
		"KVM_CPUID_FLAG_SIGNIFCANT_INDEX":           uintptr(CPUIDSignificantIndex),
		"KVM_GUESTDBG_ENABLE":                       uintptr(DebugEnable),
		"KVM_GUESTDBG_SINGLESTEP":                   uintptr(DebugSingleStep),
		"KVM_GUESTDBG_USE_SW_BP":                    uintptr(DebugSWBreak),
		"KVM_GUESTDBG_USE_HW_BP":                    uintptr(DebugHWBreak),
		"KVM_GUESTDBG_INJECT_DB":                    uintptr(DebugInjectDB),
		"KVM_GUESTDBG_INJECT_BP":                    uintptr(DebugInjectBP),
		"KVM_GUESTDBG_BLOCKIRQ":                     uintptr(DebugBlockIRQ),
		"KVM_MP_STATE_RUNNABLE":                     uintptr(MPRunnable),
		"KVM_MP_STATE_UNINITIALIZED":                uintptr(MPUninitialized),
		"KVM_MP_STATE_INIT_RECEIVED":                uintptr(MPInitReceived),
		"KVM_MP_STATE_HALTED":                       uintptr(MPHalted),
		"KVM_MP_STATE_SIPI_RECEIVED":                uintptr(MPSIPIReceived),

		"KVM_EXIT_UNKNOWN":         exitUnknown,
		"KVM_EXIT_IO":              exitIO,
		"KVM_EXIT_DEBUG":           exitDebug,
		"KVM_EXIT_HLT":             exitHalt,
		"KVM_EXIT_MMIO":            exitMMIO,
		"KVM_EXIT_IRQ_WINDOW_OPEN": exitIRQWindow,
		"KVM_EXIT_SHUTDOWN":        exitShutdown,
		"KVM_EXIT_FAIL_ENTRY":      exitFailEntry,
		"KVM_EXIT_INTERNAL_ERROR":  exitInternalError,
		"KVM_EXIT_SYSTEM_EVENT":    exitSystemEvent,
		"KVM_EXIT_IOAPIC_EOI":      exitIOAPICEOI,
	}
	for c, name := range capNames {
		if name != "" {
			m[name] = uintptr(c)
		}
	}
	for _, r := range []request{
		reqGetAPIVersion, reqCreateVM, reqGetMSRIndexList, reqCheckExtension, reqGetVCPUMmapSize,
		reqGetSupportedCPUID, reqGetEmulatedCPUID, reqGetMSRFeatureIndexList, reqCreateVCPU,
		reqGetDirtyLog, reqSetUserMemoryRegion, reqSetTSSAddr, reqSetIdentityMapAddr, reqCreateIRQChip,
		reqIRQLine, reqGetIRQChip, reqSetIRQChip, reqRegisterCoalesced, reqUnregisterCoalesced,
		reqSetGSIRouting, reqIRQFD, reqCreatePIT2, reqSetBootCPUID, reqIOEventFD, reqSetClock, reqGetClock,
		reqGetPIT2, reqSetPIT2, reqSignalMSI, reqClearDirtyLog, reqRun, reqGetRegs, reqSetRegs,
		reqGetSregs, reqSetSregs, reqTranslate, reqInterrupt, reqGetMSRs, reqSetMSRs, reqSetSignalMask,
		reqGetFPU, reqSetFPU, reqGetLAPIC, reqSetLAPIC, reqSetCPUID2, reqGetCPUID2, reqGetMPState,
		reqSetMPState, reqNMI, reqSetGuestDebug, reqGetVCPUEvents, reqSetVCPUEvents, reqGetDebugRegs,
		reqSetDebugRegs, reqSetTSCKHz, reqGetTSCKHz, reqEnableCap, reqGetXSave, reqSetXSave, reqGetXCRS,
		reqSetXCRS, reqKVMClockCtrl, reqGetStatsFD, reqGetXSave2,
	} {
		m[r.name] = r.num
	}
	return m
}
