package vmm

import "fmt"

// An Outcome is how a machine's run ended.
type Outcome string

// The outcomes.
const (
	PowerOff      Outcome = "power-off"      // the guest switched the machine off
	Reboot        Outcome = "reboot"         // the guest asked for a reset
	DebugExit     Outcome = "debug-exit"     // the guest wrote its exit code to port 0xf4
	GuestPanic    Outcome = "guest-panic"    // the guest's kernel panicked
	TripleFault   Outcome = "triple-fault"   // a vCPU shut down
	InternalError Outcome = "internal-error" // KVM could not go on
	Cancelled     Outcome = "cancelled"      // Run's context ended first
)

// A Result says how a run ended.
type Result struct {
	Outcome Outcome `json:"outcome"`
	// Code is the value that the guest wrote to the debug-exit port.
	Code int `json:"code"`
	// Detail is one line for people.
	Detail string `json:"detail,omitempty"`
	// Dump is the state of the processor that ended the run, where one did.
	Dump *Dump `json:"dump,omitempty"`
}

func (r Result) String() string {
	s := string(r.Outcome)
	if r.Outcome == DebugExit {
		s = fmt.Sprintf("%s %d", s, r.Code)
	}
	if r.Detail != "" {
		s += ": " + r.Detail
	}
	return s
}
