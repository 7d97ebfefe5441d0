// Package process is a virtual machine in a process of its own. A machine that
// dies, or is killed, takes one case of a smoke test with it and not the others,
// nor the verdict on it.
//
// The process is husk itself, by a hidden verb. Between the two goes one socket with
// JSON values: requests to the machine, events from it. Its end, on either side, is
// the end of the machine.
package process

import (
	"time"

	"github.com/huskvm/husk/internal/smoke/result"
)

// FD is the machine's end of the socket, in its process.
const FD = 3

// request is what a machine is asked for. One field is set.
type request struct {
	Send  []byte `json:"send,omitempty"`  // for the serial port
	Power bool   `json:"power,omitempty"` // press the power button
	Dump  bool   `json:"dump,omitempty"`  // say where the processors are
}

// An Event is what a machine tells.
type Event struct {
	// At is when, since the machine's start, by the host's monotonic clock.
	At time.Duration `json:"at"`
	// Console is what the guest has sent.
	Console []byte `json:"console,omitempty"`
	// Entered says that the guest's processors begin to run: once for each boot.
	Entered bool `json:"entered,omitempty"`
	// Dump answers a request.
	Dump *Dump `json:"dump,omitempty"`
	// End is the last event.
	End *End `json:"end,omitempty"`
}

// A Dump is where a machine's processors are.
type Dump struct {
	VCPUs []result.VCPU `json:"vcpus"`
	Error string        `json:"error,omitempty"` // why there are none, or not all there could be
}

// An End is how a machine ended. At most one of Guest and Error is set; neither is
// where husk has ended it.
type End struct {
	// Guest is how the guest ended it.
	Guest *result.Guest `json:"guest,omitempty"`
	// Error is why husk failed.
	Error string `json:"error,omitempty"`
	// Unstarted tells that it failed before the guest ran.
	Unstarted bool `json:"unstarted,omitempty"`
	// VCPUs is the processor that ended it, where one did.
	VCPUs []result.VCPU `json:"vcpus,omitempty"`
}
