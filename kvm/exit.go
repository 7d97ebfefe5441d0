package kvm

import (
	"encoding/binary"
	"fmt"
)

// Where struct kvm_run keeps what we use (KVM API §5). The union of the exits
// starts at offUnion.
const (
	offRequestInterruptWindow       = 0
	offImmediateExit                = 1
	offExitReason                   = 8
	offReadyForInterrupt            = 12
	offUnion                        = 32
	unionSize                       = 256
	runSize                         = offUnion + unionSize // the least that a mapping must have
	maxData                         = 16                   // words of an internal error or system event
	flagInstructionBytes            = 1 << 0               // KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES
	ioIn                      uint8 = 0                    // KVM_EXIT_IO_IN
)

// The exit reasons of KVM_RUN that have a type of their own (KVM API §5).
const (
	exitUnknown       = 0
	exitIO            = 2
	exitDebug         = 4
	exitHalt          = 5
	exitMMIO          = 6
	exitIRQWindow     = 7
	exitShutdown      = 8
	exitFailEntry     = 9
	exitInternalError = 17
	exitSystemEvent   = 24
	exitIOAPICEOI     = 26
)

// An Exit is why Run has returned: one of the types *…Exit of this package.
type Exit interface {
	// Reason is a short constant name for the kind of exit, fit for counting: "io".
	Reason() string
	sealed()
}

// An IOExit is an access to ports (KVM_EXIT_IO). A string instruction with REP
// may bring several elements at once, all for the same port.
type IOExit struct {
	In    bool
	Size  int // bytes of an element: 1, 2 or 4
	Port  uint16
	Count int // of elements
	// Data has Size*Count bytes, little-endian, in memory shared with the
	// kernel. For In it is to be filled before the next Run.
	Data []byte
}

// An MMIOExit is an access to an address without memory (KVM_EXIT_MMIO).
type MMIOExit struct {
	Addr  uint64 // guest-physical
	Write bool
	// Data has the 1 to 8 bytes of the access, in memory shared with the
	// kernel. For a read it is to be filled before the next Run.
	Data []byte
}

// A HaltExit is HLT in a VM without a local APIC in the kernel (KVM_EXIT_HLT).
type HaltExit struct{}

// A ShutdownExit is a triple fault (KVM_EXIT_SHUTDOWN).
type ShutdownExit struct{}

// A FailEntryExit says that the processor refused the guest's state
// (KVM_EXIT_FAIL_ENTRY).
type FailEntryExit struct {
	HardwareReason uint64 // as the processor's manual has it
	CPU            uint32 // the host's processor
}

// The suberrors of an InternalErrorExit.
const (
	InternalErrorEmulation      uint32 = 1 // KVM_INTERNAL_ERROR_EMULATION
	InternalErrorSimultaneousEx uint32 = 2 // KVM_INTERNAL_ERROR_SIMUL_EX
	InternalErrorDelivery       uint32 = 3 // KVM_INTERNAL_ERROR_DELIVERY_EV
	InternalErrorUnexpectedExit uint32 = 4 // KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON
)

// An InternalErrorExit says that KVM cannot go on (KVM_EXIT_INTERNAL_ERROR).
type InternalErrorExit struct {
	Suberror uint32
	Data     []uint64 // what KVM says in addition, at most 16 words
	// Instruction has the bytes at RIP that KVM could not emulate, when
	// Suberror is InternalErrorEmulation and KVM tells.
	Instruction []byte

	data        [maxData]uint64
	instruction [15]byte
}

// String names the suberror and has the instruction's bytes.
func (e *InternalErrorExit) String() string {
	name := "unknown"
	switch e.Suberror {
	case InternalErrorEmulation:
		name = "instruction could not be emulated"
	case InternalErrorSimultaneousEx:
		name = "simultaneous exceptions"
	case InternalErrorDelivery:
		name = "exit while delivering an event"
	case InternalErrorUnexpectedExit:
		name = "unexpected exit of the processor"
	}
	s := fmt.Sprintf("suberror %d (%s), data %#x", e.Suberror, name, e.Data)
	if len(e.Instruction) > 0 {
		s += fmt.Sprintf(", instruction % x", e.Instruction)
	}
	return s
}

// The types of a SystemEventExit.
const (
	SystemEventShutdown uint32 = 1 // KVM_SYSTEM_EVENT_SHUTDOWN
	SystemEventReset    uint32 = 2 // KVM_SYSTEM_EVENT_RESET
	SystemEventCrash    uint32 = 3 // KVM_SYSTEM_EVENT_CRASH
)

// A SystemEventExit asks for something to happen to the whole machine
// (KVM_EXIT_SYSTEM_EVENT).
type SystemEventExit struct {
	Type uint32
	Data []uint64 // at most 16 words

	data [maxData]uint64
}

// A DebugExit is a breakpoint or step that SetGuestDebug asked for (KVM_EXIT_DEBUG).
type DebugExit struct {
	Exception uint32 // vector: 1 is #DB, 3 is #BP
	PC        uint64 // linear address
	DR6, DR7  uint64
}

// An InterruptWindowExit answers RequestInterruptWindow (KVM_EXIT_IRQ_WINDOW_OPEN).
type InterruptWindowExit struct{}

// An IOAPICEOIExit is the end of a level triggered interrupt, for the I/O APIC
// that SplitIRQChip leaves to the VMM (KVM_EXIT_IOAPIC_EOI).
type IOAPICEOIExit struct {
	Vector uint8
}

// An UnknownExit is any other.
type UnknownExit struct {
	Code     uint32 // KVM_EXIT_*
	Hardware uint64 // for code 0, KVM_EXIT_UNKNOWN: the processor's reason
}

// Reason returns "io".
func (*IOExit) Reason() string { return "io" }

// Reason returns "mmio".
func (*MMIOExit) Reason() string { return "mmio" }

// Reason returns "hlt".
func (*HaltExit) Reason() string { return "hlt" }

// Reason returns "shutdown".
func (*ShutdownExit) Reason() string { return "shutdown" }

// Reason returns "fail-entry".
func (*FailEntryExit) Reason() string { return "fail-entry" }

// Reason returns "internal-error".
func (*InternalErrorExit) Reason() string { return "internal-error" }

// Reason returns "system-event".
func (*SystemEventExit) Reason() string { return "system-event" }

// Reason returns "debug".
func (*DebugExit) Reason() string { return "debug" }

// Reason returns "irq-window".
func (*InterruptWindowExit) Reason() string { return "irq-window" }

// Reason returns "ioapic-eoi".
func (*IOAPICEOIExit) Reason() string { return "ioapic-eoi" }

// Reason returns "unknown".
func (*UnknownExit) Reason() string { return "unknown" }

func (*IOExit) sealed()              {}
func (*MMIOExit) sealed()            {}
func (*HaltExit) sealed()            {}
func (*ShutdownExit) sealed()        {}
func (*FailEntryExit) sealed()       {}
func (*InternalErrorExit) sealed()   {}
func (*SystemEventExit) sealed()     {}
func (*DebugExit) sealed()           {}
func (*InterruptWindowExit) sealed() {}
func (*IOAPICEOIExit) sealed()       {}
func (*UnknownExit) sealed()         {}

// exits has one exit of each kind: a VCPU's Run fills one and returns it.
type exits struct {
	io            IOExit
	mmio          MMIOExit
	halt          HaltExit
	shutdown      ShutdownExit
	failEntry     FailEntryExit
	internalError InternalErrorExit
	systemEvent   SystemEventExit
	debug         DebugExit
	irqWindow     InterruptWindowExit
	ioapicEOI     IOAPICEOIExit
	unknown       UnknownExit
}

// decode reads the exit out of the pages shared with the kernel, which are at
// least runSize bytes.
func (x *exits) decode(run []byte) (Exit, error) {
	le := binary.LittleEndian
	u := run[offUnion : offUnion+unionSize]
	switch reason := le.Uint32(run[offExitReason:]); reason {
	case exitIO:
		return x.decodeIO(run, u)
	case exitMMIO:
		n := le.Uint32(u[16:])
		if n == 0 || n > 8 {
			return nil, &Error{Op: reqRun.name, Err: fmt.Errorf("%w: MMIO access of %d bytes", ErrExit, n)}
		}
		x.mmio = MMIOExit{Addr: le.Uint64(u), Write: u[20] != 0, Data: u[8 : 8+n : 8+n]}
		return &x.mmio, nil
	case exitHalt:
		return &x.halt, nil
	case exitShutdown:
		return &x.shutdown, nil
	case exitFailEntry:
		x.failEntry = FailEntryExit{HardwareReason: le.Uint64(u), CPU: le.Uint32(u[8:])}
		return &x.failEntry, nil
	case exitInternalError:
		return x.decodeInternalError(u), nil
	case exitSystemEvent:
		e := &x.systemEvent
		e.Type = le.Uint32(u)
		e.Data = words(e.data[:], u[8:], le.Uint32(u[4:]))
		return e, nil
	case exitDebug:
		x.debug = DebugExit{
			Exception: le.Uint32(u),
			PC:        le.Uint64(u[8:]),
			DR6:       le.Uint64(u[16:]),
			DR7:       le.Uint64(u[24:]),
		}
		return &x.debug, nil
	case exitIRQWindow:
		return &x.irqWindow, nil
	case exitIOAPICEOI:
		x.ioapicEOI = IOAPICEOIExit{Vector: u[0]}
		return &x.ioapicEOI, nil
	default:
		x.unknown = UnknownExit{Code: reason}
		if reason == exitUnknown {
			x.unknown.Hardware = le.Uint64(u)
		}
		return &x.unknown, nil
	}
}

func (x *exits) decodeIO(run, u []byte) (Exit, error) {
	le := binary.LittleEndian
	size, count, off := u[1], le.Uint32(u[4:]), le.Uint64(u[8:])
	// size is at most 255 and count 32 bits: no overflow in 64 bits.
	n := uint64(size) * uint64(count)
	if size != 1 && size != 2 && size != 4 || count == 0 || off > uint64(len(run)) || n > uint64(len(run))-off {
		return nil, &Error{
			Op:  reqRun.name,
			Err: fmt.Errorf("%w: port access of %d×%d bytes at offset %#x of %#x", ErrExit, count, size, off, len(run)),
		}
	}
	x.io = IOExit{
		In:    u[0] == ioIn,
		Size:  int(size),
		Port:  le.Uint16(u[2:]),
		Count: int(count),
		Data:  run[off : off+n : off+n],
	}
	return &x.io, nil
}

func (x *exits) decodeInternalError(u []byte) Exit {
	le := binary.LittleEndian
	e := &x.internalError
	e.Suberror = le.Uint32(u)
	e.Data = words(e.data[:], u[8:], le.Uint32(u[4:]))
	e.Instruction = nil
	// struct emulation_failure lies over the data: flags, then a size and 15 bytes.
	if e.Suberror == InternalErrorEmulation && len(e.Data) >= 3 && e.Data[0]&flagInstructionBytes != 0 {
		copy(e.instruction[:], u[17:32])
		e.Instruction = e.instruction[:min(int(u[16]), len(e.instruction))]
	}
	return e
}

// words reads n words, as many as dst holds.
func words(dst []uint64, src []byte, n uint32) []uint64 {
	dst = dst[:min(int(n), len(dst))]
	for i := range dst {
		dst[i] = binary.LittleEndian.Uint64(src[8*i:])
	}
	return dst
}
