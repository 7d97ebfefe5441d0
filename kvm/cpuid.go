package kvm

import (
	"errors"

	"golang.org/x/sys/unix"
)

// listHeader starts struct kvm_cpuid2, kvm_msrs and kvm_irq_routing.
type listHeader struct {
	n uint32
	_ uint32
}

// CPUIDSignificantIndex in CPUIDEntry.Flags says that ECX chooses the entry
// (KVM_CPUID_FLAG_SIGNIFCANT_INDEX).
const CPUIDSignificantIndex uint32 = 1 << 0

// A CPUIDEntry is struct kvm_cpuid_entry2: what CPUID returns for Function in
// EAX and, when Flags has CPUIDSignificantIndex, Index in ECX (KVM API §4.46).
type CPUIDEntry struct {
	Function uint32
	Index    uint32
	Flags    uint32
	EAX      uint32
	EBX      uint32
	ECX      uint32
	EDX      uint32
	_        [3]uint32
}

// SupportedCPUID returns what this host's processor and KVM can give a guest
// (KVM API §4.46).
func (s *System) SupportedCPUID() ([]CPUIDEntry, error) {
	return cpuidEntries(s.fd, reqGetSupportedCPUID)
}

// EmulatedCPUID returns the features that KVM emulates without the processor's
// help (KVM API §4.88). They are slow, and not meant to be passed on as a whole.
func (s *System) EmulatedCPUID() ([]CPUIDEntry, error) {
	return cpuidEntries(s.fd, reqGetEmulatedCPUID)
}

// SetCPUID sets what CPUID returns in the guest, before the first Run (KVM API
// §4.20).
func (c *VCPU) SetCPUID(entries []CPUIDEntry) error {
	head, e := newList[listHeader, CPUIDEntry](len(entries))
	head.n = uint32(len(entries))
	copy(e, entries)
	if err := set(c.fd, reqSetCPUID2, head); err != nil {
		return detail(err, "vCPU %d, %d entries", c.id, len(entries))
	}
	c.cpuids = len(entries)
	return nil
}

// CPUID returns what was set, as KVM has adjusted it (KVM API §4.20).
func (c *VCPU) CPUID() ([]CPUIDEntry, error) {
	// Older KVM (seen on Linux 6.1) does not say how many it has filled: only
	// exactly as much room as there are entries is safe.
	head, entries := newList[listHeader, CPUIDEntry](c.cpuids)
	head.n = uint32(c.cpuids)
	if err := set(c.fd, reqGetCPUID2, head); err != nil {
		return nil, detail(err, "vCPU %d, %d entries", c.id, c.cpuids)
	}
	return entries, nil
}

// cpuidEntries asks with ever more room: KVM says that it was too little, and
// not how much it needs.
func cpuidEntries(fd int, r request) ([]CPUIDEntry, error) {
	const most = 1 << 14
	for n := 64; ; n *= 2 {
		head, entries := newList[listHeader, CPUIDEntry](n)
		head.n = uint32(n)
		err := set(fd, r, head)
		switch {
		case err == nil:
			return entries[:min(int(head.n), n)], nil
		case !errors.Is(err, unix.E2BIG) || n >= most:
			return nil, err
		}
	}
}
