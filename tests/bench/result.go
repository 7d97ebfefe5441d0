package main

import "time"

// A result is one run of the program: all that is needed to judge the figures,
// and all of them.
type result struct {
	Taken    time.Time `json:"taken"`
	Host     host      `json:"host"`
	LabHost  *host     `json:"lab_host,omitempty"` // what the lab ran on
	Kernel   string    `json:"kernel"`
	Cmdline  string    `json:"cmdline"`
	Memory   int       `json:"memory_mib"`
	Rounds   int       `json:"rounds"`
	Monitors []monitor `json:"monitors"`
	Skipped  []string  `json:"skipped,omitempty"` // programs that were not found
	Samples  []sample  `json:"samples,omitempty"`

	// Disk and network, each load for LoadSeconds.
	LoadSeconds float64    `json:"load_seconds"`
	IOMonitors  []monitor  `json:"io_monitors,omitempty"`
	IOSamples   []ioSample `json:"io_samples,omitempty"`
}

// A sample is one boot of one monitor. What could not be measured is absent.
type sample struct {
	Monitor string `json:"monitor"`
	Round   int    `json:"round"`
	Error   string `json:"error,omitempty"` // why there are no figures

	// SecondsToInit is from starting the program to the marker's line.
	SecondsToInit float64 `json:"seconds_to_init"`
	// CPUToFirstRun is CPU time, in seconds, until the first entry into the guest.
	CPUToFirstRun *float64 `json:"cpu_seconds_to_first_run,omitempty"`
	// Memory is what is resident at the marker, in bytes.
	Memory *memory `json:"memory,omitempty"`
	// KVM has KVM's own counters of the machine: "exits", "io_exits", "pf_fixed".
	KVM map[string]uint64 `json:"kvm,omitempty"`
	// Traced has the exits by reason, and what they were about.
	Traced *breakdown `json:"traced,omitempty"`
}

// A breakdown says what the exits were, each by its name.
type breakdown struct {
	Exits map[string]uint64 `json:"exits"` // by reason
	PIO   map[string]uint64 `json:"pio"`   // "0x3f8 out"
	MSR   map[string]uint64 `json:"msr"`   // "0x6e0 write"
	CPUID map[string]uint64 `json:"cpuid"` // by leaf
	MMIO  map[string]uint64 `json:"mmio"`  // "0xfee00000 write", by page
	Fault map[string]uint64 `json:"fault"` // nested page faults by error code
}

// exits is the number of all exits, and whether it is known.
func (s sample) exits() (float64, bool) { return s.counter("exits") }

// counter is one of KVM's counters, and whether it is known.
func (s sample) counter(name string) (float64, bool) {
	n, ok := s.KVM[name]
	return float64(n), ok
}

// steady is the number of exits without those that only follow the time that
// the boot takes: the host's interrupts (its timer ticks, and those of the
// guest's timer), the waits for the moment to inject one, the guest's setting
// of its timer, and its waiting.
func (s sample) steady() (float64, bool) {
	if s.Traced == nil {
		return 0, false
	}
	var n uint64
	for _, count := range s.Traced.Exits {
		n += count
	}
	for _, reason := range []string{reasonInterrupt, reasonWindow, reasonPreemption, reasonHalt} {
		n -= s.Traced.Exits[reason]
	}
	return float64(n - s.Traced.MSR[msrName(msrDeadline, 1)]), true
}
