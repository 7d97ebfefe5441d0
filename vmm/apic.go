package vmm

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/huskvm/husk/kvm"
)

// An APIC is what a vCPU's local APIC waits for: a halted processor that no timer and
// no interrupt is going to wake sleeps for ever.
type APIC struct {
	// Pending are the vectors that wait for the processor, InService those that it is at
	// (IRR and ISR, Intel SDM vol. 3 §11.8.4).
	Pending   []int `json:"pending,omitempty"`
	InService []int `json:"in_service,omitempty"`
	// Timer is the mode of the timer, "masked" if it makes no interrupts.
	Timer string `json:"timer"`
	// Count is what is left of a one-shot or periodic timer's count.
	Count uint32 `json:"count,omitempty"`
	// TSC is the guest's time stamp counter, and Deadline the value of it at which the
	// timer fires, 0 for never (SDM vol. 3 §11.5.4.1).
	TSC      uint64 `json:"tsc"`
	Deadline uint64 `json:"deadline,omitempty"`
}

// Registers of the local APIC (SDM vol. 3 §11.4.1), and the MSRs beside it.
const (
	apicISR      = 0x100
	apicIRR      = 0x200
	apicLVTTimer = 0x320
	apicCount    = 0x390

	lvtMasked = 1 << 16

	msrTSC         = 0x10
	msrTSCDeadline = 0x6e0
)

// newAPIC reads the state of a local APIC.
func newAPIC(s *kvm.LAPICState, tsc, deadline uint64) *APIC {
	register := func(at int) uint32 { return binary.LittleEndian.Uint32(s.Regs[at:]) }
	vectors := func(at int) (set []int) {
		for v := range 256 {
			if register(at+v/32*0x10)>>(v%32)&1 != 0 {
				set = append(set, v)
			}
		}
		return set
	}
	a := &APIC{Pending: vectors(apicIRR), InService: vectors(apicISR), Count: register(apicCount), TSC: tsc, Deadline: deadline}
	lvt := register(apicLVTTimer)
	a.Timer = [4]string{"one-shot", "periodic", "deadline", "reserved"}[lvt>>17&3]
	if lvt&lvtMasked != 0 {
		a.Timer = "masked"
	}
	return a
}

func (a *APIC) String() string {
	s := "timer " + a.Timer
	switch {
	case a.Timer != "deadline":
		s += fmt.Sprintf(", count %d", a.Count)
	case a.Deadline == 0:
		s += ", not armed"
	case a.Deadline > a.TSC:
		s += fmt.Sprintf(", in %d cycles", a.Deadline-a.TSC)
	default:
		s += fmt.Sprintf(", passed %d cycles ago", a.TSC-a.Deadline)
	}
	list := func(name string, vectors []int) {
		if len(vectors) > 0 {
			s += fmt.Sprintf("; %s: %s", name, strings.Trim(fmt.Sprint(vectors), "[]"))
		}
	}
	list("vectors pending", a.Pending)
	list("in service", a.InService)
	return s
}
