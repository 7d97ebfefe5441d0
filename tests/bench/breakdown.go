package main

import (
	"errors"
	"fmt"

	"github.com/huskvm/husk/tests/bench/ktrace"
)

// A counted event, the fields it is counted by, and where it goes.
type counted struct {
	event, keys string
	into        func(b *breakdown) map[string]uint64
	name        func(keys []uint64) string
}

// pageMask leaves a page's address.
const pageMask = ^uint64(0xfff)

func countedEvents() []counted {
	return []counted{
		{
			"kvm/kvm_exit", "isa,exit_reason",
			func(b *breakdown) map[string]uint64 { return b.Exits },
			func(k []uint64) string { return reasonName(k[0], k[1]) },
		},
		{
			"kvm/kvm_pio", "port,rw",
			func(b *breakdown) map[string]uint64 { return b.PIO },
			func(k []uint64) string { return fmt.Sprintf("%#x %s", k[0], [2]string{"in", "out"}[k[1]&1]) },
		},
		{
			"kvm/kvm_msr", "ecx,write",
			func(b *breakdown) map[string]uint64 { return b.MSR },
			func(k []uint64) string { return msrName(k[0], k[1]) },
		},
		{
			"kvm/kvm_cpuid", "function",
			func(b *breakdown) map[string]uint64 { return b.CPUID },
			func(k []uint64) string { return cpuidName(k[0]) },
		},
		{
			"kvm/kvm_mmio", "gpa,type",
			func(b *breakdown) map[string]uint64 { return b.MMIO },
			func(k []uint64) string {
				return fmt.Sprintf("%#x %s", k[0]&pageMask, [3]string{"unsatisfied read", "read", "write"}[k[1]%3])
			},
		},
		{
			"kvm/kvm_page_fault", "error_code",
			func(b *breakdown) map[string]uint64 { return b.Fault },
			func(k []uint64) string { return fmt.Sprintf("%#x", k[0]) },
		},
	}
}

func msrName(index, write uint64) string {
	return fmt.Sprintf("%#x %s", index, [2]string{"read", "write"}[write&1])
}

// cpuidName names a leaf. Linux looks for each hypervisor's signature at every
// 0x100th leaf up to 0x4000ff00 (arch/x86/include/asm/processor.h); these are
// one thing.
func cpuidName(leaf uint64) string {
	if leaf > 0x40000000 && leaf <= 0x4000ff00 && leaf&0xff == 0 {
		return "search for a hypervisor"
	}
	return fmt.Sprintf("%#x", leaf)
}

// startTrace is a tracer of all that a breakdown has, and of the CPU time.
func startTrace(tid int) (*ktrace.Instance, error) {
	i, err := ktrace.New(tid)
	if err != nil {
		return nil, err
	}
	for _, c := range countedEvents() {
		if err := i.Count(c.event, c.keys); err != nil {
			return nil, errors.Join(err, i.Close())
		}
	}
	if err := i.WatchCPU(); err != nil {
		return nil, errors.Join(err, i.Close())
	}
	return i, nil
}

// readBreakdown reads what has been counted.
func readBreakdown(i *ktrace.Instance) (*breakdown, error) {
	b := newBreakdown()
	for _, c := range countedEvents() {
		counts, err := i.Counts(c.event)
		if err != nil {
			return nil, err
		}
		into := c.into(b)
		for _, n := range counts {
			into[c.name(n.Keys)] += n.N
		}
	}
	return b, nil
}

func newBreakdown() *breakdown {
	return &breakdown{
		Exits: map[string]uint64{}, PIO: map[string]uint64{}, MSR: map[string]uint64{},
		CPUID: map[string]uint64{}, MMIO: map[string]uint64{}, Fault: map[string]uint64{},
	}
}
