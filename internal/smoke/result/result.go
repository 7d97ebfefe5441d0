// Package result is what a smoke test has found: plain data, which the reports
// are made from and --json prints.
package result

import (
	"time"

	"github.com/huskvm/husk/internal/smoke/console"
)

// Schema is the version of the JSON form of a Run.
const Schema = 1

// A Verdict says how an attempt, or a case, ended.
type Verdict string

// The verdicts.
const (
	Pass           Verdict = "pass"
	Fail           Verdict = "fail"           // an expectation was not met, or a budget was exceeded
	Detected       Verdict = "detected"       // the kernel panicked, or a detector found something
	Hang           Verdict = "hang"           // no output for too long
	Timeout        Verdict = "timeout"        // the case's time was up, and there was output
	VMM            Verdict = "vmm"            // triple fault, KVM could not go on, or husk's own machine died
	Infrastructure Verdict = "infrastructure" // the test could not be made: no KVM, a missing file
	Skipped        Verdict = "skipped"        // it was not begun: the run was interrupted
)

// ExitCode is husk's for the verdict.
func (v Verdict) ExitCode() int {
	switch v {
	case Pass:
		return 0
	case Fail:
		return 1
	case Detected:
		return 3
	case Hang:
		return 4
	case Timeout:
		return 5
	case VMM:
		return 6
	}
	return 7
}

// A Run is all cases of one command.
type Run struct {
	Schema   int           `json:"schema"`
	Husk     string        `json:"husk"`  // its version
	Host     string        `json:"host"`  // its name
	Accel    string        `json:"accel"` // "kvm", or "lab": its times are no machine's
	Started  time.Time     `json:"started"`
	Duration time.Duration `json:"duration_ns"`
	Cases    []Case        `json:"cases"` // in the order of the file
}

// A Case is one machine, and what was tried on it. Its verdict is that of its last
// attempt.
type Case struct {
	Name     string    `json:"name"`
	Machine  Machine   `json:"machine"`
	Verdict  Verdict   `json:"verdict"`
	Flaky    bool      `json:"flaky,omitempty"` // it passed, but not at once
	Attempts []Attempt `json:"attempts"`
	// Reproduce is the command that makes this case alone again, for a shell.
	Reproduce string `json:"reproduce"`
	// File and Line are where the case is written; "" and 0 for one made of flags.
	File string `json:"file,omitempty"`
	Line int    `json:"line,omitempty"`
}

// A Machine is what the case booted.
type Machine struct {
	Kernel  string   `json:"kernel,omitempty"`
	Initrds []string `json:"initrds,omitempty"`
	Append  string   `json:"append,omitempty"`
	CPUs    int      `json:"cpus"`
	Memory  uint64   `json:"memory"` // bytes
	Disks   []string `json:"disks,omitempty"`
}

// An Attempt is one boot of a case.
type Attempt struct {
	Verdict Verdict `json:"verdict"`
	// Reason is one line for people; empty where the verdict is Pass.
	Reason string `json:"reason,omitempty"`
	// Stage is the last one that the guest has reached; "" where it never ran.
	Stage    string        `json:"stage"`
	Started  time.Time     `json:"started"`
	Duration time.Duration `json:"duration_ns"`
	Phases   []Phase       `json:"phases"` // the stages that the last boot has reached, in the order of time
	// Guest is how the guest itself ended; nil where husk ended it.
	Guest    *Guest    `json:"guest,omitempty"`
	Steps    []Step    `json:"steps"`
	Findings []Finding `json:"findings,omitempty"`
	Subtests []Subtest `json:"subtests,omitempty"` // KTAP from the guest, flattened
	// Problems are what was wrong with that KTAP itself, one line each: a plan that
	// was not kept, a test reported twice.
	Problems []string `json:"problems,omitempty"`
	VCPUs    []VCPU   `json:"vcpus,omitempty"` // on a hang, a timeout or a crash
	// Unnamed is why places in the kernel have no names there; "" where they have.
	Unnamed string `json:"unnamed,omitempty"`
	Console []Line `json:"console"`
	// Dir has the case's files: console.log, husk.log; "" where they were not kept.
	Dir string `json:"dir,omitempty"`
}

// Line is a line of the console.
type Line = console.Line

// A Phase is a stage of the boot, and when the guest reached it since the machine's start.
type Phase struct {
	Name string        `json:"name"`
	At   time.Duration `json:"at_ns"`
}

// A Guest is how a guest ended by itself.
type Guest struct {
	Outcome string `json:"outcome"` // as vmm has them: power-off, reboot, debug-exit…
	// Code is the guest's own exit code, by the debug-exit device; 0 elsewhere.
	Code   int    `json:"code"`
	Detail string `json:"detail,omitempty"`
}

// A Step is one step of a case.
type Step struct {
	Name     string        `json:"name"` // as "expect /login:/"
	Verdict  Verdict       `json:"verdict"`
	Reason   string        `json:"reason,omitempty"`
	Start    time.Duration `json:"start_ns"` // since the machine's start
	Duration time.Duration `json:"duration_ns"`
	Command  *Command      `json:"command,omitempty"`
}

// A Command is what a run step has run in the guest.
type Command struct {
	Argv   []string `json:"argv"`
	Code   int      `json:"code"`
	Stdout string   `json:"stdout"`
	Stderr string   `json:"stderr"`
}

// A Finding is what a detector has found on the console, or the machine has seen.
type Finding struct {
	Kind string `json:"kind"` // as "oops"
	// Event is the same number, from 1, for findings that are one event, as an oops and
	// the panic it led to; the first of them is the cause.
	Event   int           `json:"event"`
	At      time.Duration `json:"at_ns"`
	Summary string        `json:"summary"` // its first line
	Trace   []string      `json:"trace"`   // all of its lines; none where only the machine has seen it
}

// A Subtest is a test that the guest has reported by KTAP.
type Subtest struct {
	Name   string `json:"name"` // of the suites it is in, and its own, joined by "."
	OK     bool   `json:"ok"`
	Skip   bool   `json:"skip,omitempty"`
	Todo   bool   `json:"todo,omitempty"`
	Detail string `json:"detail,omitempty"` // diagnostics, and the reason of a directive
	// At is when its result came, since the machine's start; Duration the time since
	// the result before it in its suite, or since the suite's start. Both are by the
	// host's clock, and 0 where no result came.
	At       time.Duration `json:"at_ns,omitempty"`
	Duration time.Duration `json:"duration_ns,omitempty"`
}

// Failed tells whether the test counts against the case. One that is to do (TODO,
// XFAIL) does not, whatever it says of itself.
func (s *Subtest) Failed() bool { return !s.OK && !s.Skip && !s.Todo }

// A VCPU is where a virtual processor was.
type VCPU struct {
	CPU       int      `json:"cpu"`
	RIP       uint64   `json:"rip"`
	Symbol    string   `json:"symbol,omitempty"`    // as "native_halt+0xb/0x10"
	Backtrace []string `json:"backtrace,omitempty"` // symbols of its callers, the innermost first
	Registers string   `json:"registers"`           // for people, some lines
}
