// Package cpuid makes the CPUID leaves of each virtual processor from what KVM
// supports on this host and what the machine is: its topology, its clocks and
// the features that its user adds or takes away.
//
// It is pure: leaves in, leaves out. Leaf numbers are those of Intel SDM vol. 2
// "CPUID", AMD APM vol. 3 appendix E, and for 0x4000_00xx of the kernel's
// Documentation/virt/kvm/x86/cpuid.rst.
package cpuid

import (
	"math/bits"
	"slices"

	"github.com/huskvm/husk/kvm"
)

// A Machine is what the leaves must say of the machine.
type Machine struct {
	CPUs   int    // virtual processors: one package, one thread a core
	TSCkHz uint32 // the time-stamp counter's frequency, 0 when unknown
	// TSCDeadline says that KVM's local APIC has the TSC deadline timer: KVM
	// leaves that bit to the VMM (KVM API §4.46, KVM_CAP_TSC_DEADLINE_TIMER).
	TSCDeadline bool
}

const (
	leafVendor     = 0x0
	leafFeatures   = 0x1
	leafCaches     = 0x4
	leafTopology   = 0xb
	leafPMU        = 0xa
	leafXSAVE      = 0xd
	leafSGX        = 0x12
	leafTrace      = 0x14
	leafTSC        = 0x15
	leafFrequency  = 0x16
	leafTopologyV2 = 0x1f
	leafHypervisor = 0x4000_0000
	leafParavirt   = 0x4000_0001
	leafTiming     = 0x4000_0010
	leafExtFeature = 0x8000_0001
	leafPower      = 0x8000_0007
	leafSizes      = 0x8000_0008
	leafAMDCaches  = 0x8000_001d
	leafAMDTopo    = 0x8000_001e

	flagIndex = kvm.CPUIDSignificantIndex // the subleaf matters

	// apicBusHz is the frequency of KVM's local APIC timer before its divider
	// (the kernel's APIC_BUS_CYCLE_NS, 1 ns).
	apicBusHz = 1_000_000_000
)

// A Table is the CPUID of a machine, made ready for each of its processors by For.
type Table struct {
	entries []kvm.CPUIDEntry
	machine Machine
}

// New makes the table of m from the leaves KVM supports, which it does not
// change (KVM_GET_SUPPORTED_CPUID, KVM API §4.46).
func New(supported []kvm.CPUIDEntry, model Model, m Machine) (*Table, error) {
	t := &Table{entries: slices.Clone(supported), machine: m}
	if m.TSCDeadline {
		t.update(leafFeatures, func(e *kvm.CPUIDEntry) { e.ECX |= 1 << 24 })
	}
	if err := t.apply(model); err != nil {
		return nil, err
	}
	t.update(leafFeatures, func(e *kvm.CPUIDEntry) { e.ECX |= 1 << 31 }) // a hypervisor is present
	t.clocks()
	return t, nil
}

// PhysicalBits is the width of a guest-physical address (leaf 0x8000_0008).
func (t *Table) PhysicalBits() int {
	if e := t.find(leafSizes, 0); e != nil && e.EAX&0xff != 0 {
		return int(e.EAX & 0xff)
	}
	return 36
}

// For is the table of processor i, whose APIC id is i.
func (t *Table) For(i int) []kvm.CPUIDEntry {
	p := &Table{entries: slices.Clone(t.entries), machine: t.machine}
	p.topology(uint32(i))
	return p.entries
}

// topology says that all processors are cores of one package, in every form
// that kernels look at.
func (t *Table) topology(apicID uint32) {
	n := uint32(t.machine.CPUs)
	width := uint32(bits.Len32(n - 1)) // bits of an APIC id that number the core

	t.update(leafFeatures, func(e *kvm.CPUIDEntry) {
		e.EBX = e.EBX&0x0000_ffff | n<<16 | apicID<<24
		setBit(&e.EDX, 28, n > 1) // HTT: EBX[23:16] counts
	})
	// In both vendors' cache leaves EAX[7:5] is the level, EAX[25:14] how many
	// APIC ids share the cache, less one. Level 3 is shared by all.
	shareCaches := func(e *kvm.CPUIDEntry) {
		e.EAX &^= 0xfff << 14
		if e.EAX>>5&7 >= 3 {
			e.EAX |= (1<<width - 1) << 14
		}
	}
	t.update(leafCaches, func(e *kvm.CPUIDEntry) {
		if e.EAX&0x1f == 0 {
			return // no more caches
		}
		shareCaches(e)
		e.EAX = e.EAX&^(0x3f<<26) | (1<<width-1)<<26 // cores in the package
	})
	t.update(leafAMDCaches, func(e *kvm.CPUIDEntry) {
		if e.EAX&0x1f != 0 {
			shareCaches(e)
		}
	})

	maxLeaf := t.find(leafVendor, 0)
	for _, leaf := range []uint32{leafTopology, leafTopologyV2} {
		if maxLeaf == nil || maxLeaf.EAX < leaf {
			continue
		}
		t.remove(leaf)
		t.entries = append(t.entries,
			// Level 1, threads: one in a core. Level 2, cores.
			kvm.CPUIDEntry{Function: leaf, Index: 0, Flags: flagIndex, EAX: 0, EBX: 1, ECX: 1 << 8, EDX: apicID},
			kvm.CPUIDEntry{Function: leaf, Index: 1, Flags: flagIndex, EAX: width, EBX: n, ECX: 2<<8 | 1, EDX: apicID},
			kvm.CPUIDEntry{Function: leaf, Index: 2, Flags: flagIndex, ECX: 2, EDX: apicID})
	}

	amd := t.find(leafAMDTopo, 0) != nil
	t.update(leafExtFeature, func(e *kvm.CPUIDEntry) {
		setBit(&e.ECX, 1, amd && n > 1) // CmpLegacy: leaf 1's count is of cores, not threads
	})
	t.update(leafSizes, func(e *kvm.CPUIDEntry) {
		e.ECX = e.ECX&^0xf0ff | (n - 1) | width<<12
	})
	t.update(leafAMDTopo, func(e *kvm.CPUIDEntry) {
		e.EAX = apicID
		e.EBX = apicID // core id; threads per core less one: 0
		e.ECX = 0      // node 0 of one
	})
}

// clocks tells the frequencies, so that no kernel measures them against a timer
// chip, at thousands of exits a measurement.
func (t *Table) clocks() {
	if t.machine.TSCkHz == 0 {
		return
	}
	// Linux takes the "core crystal" of leaf 0x15 for the local APIC timer's
	// clock, so the crystal is the APIC's bus. It multiplies crystal kHz by the
	// numerator in 32 bits, which bounds the numerator.
	num, den := ratio(uint64(t.machine.TSCkHz)*1000, apicBusHz, (1<<32-1)/(apicBusHz/1000))
	mhz := t.machine.TSCkHz / 1000
	t.set(kvm.CPUIDEntry{Function: leafTSC, EAX: den, EBX: num, ECX: apicBusHz})
	t.set(kvm.CPUIDEntry{Function: leafFrequency, EAX: mhz, EBX: mhz, ECX: 100})
	t.update(leafVendor, func(e *kvm.CPUIDEntry) { e.EAX = max(e.EAX, leafFrequency) })

	if t.find(leafHypervisor, 0) != nil {
		t.set(kvm.CPUIDEntry{Function: leafTiming, EAX: t.machine.TSCkHz, EBX: apicBusHz / 1000})
		t.update(leafHypervisor, func(e *kvm.CPUIDEntry) { e.EAX = max(e.EAX, leafTiming) })
	}
}

// ratio is the best fraction for a/b whose numerator is at most limit, by
// continued fractions.
func ratio(a, b, limit uint64) (num, den uint32) {
	var p0, q0, p1, q1 uint64 = 0, 1, 1, 0
	for b != 0 {
		k := a / b
		p2, q2 := k*p1+p0, k*q1+q0
		if p2 > limit {
			break
		}
		p0, q0, p1, q1 = p1, q1, p2, q2
		a, b = b, a%b
	}
	return uint32(p1), uint32(q1)
}

func (t *Table) find(leaf, index uint32) *kvm.CPUIDEntry {
	for i := range t.entries {
		if e := &t.entries[i]; e.Function == leaf && (e.Flags&flagIndex == 0 || e.Index == index) {
			return e
		}
	}
	return nil
}

// update calls f for every subleaf of leaf that is there.
func (t *Table) update(leaf uint32, f func(*kvm.CPUIDEntry)) {
	for i := range t.entries {
		if t.entries[i].Function == leaf {
			f(&t.entries[i])
		}
	}
}

// set puts e in the place of all subleaves of its leaf.
func (t *Table) set(e kvm.CPUIDEntry) {
	t.remove(e.Function)
	t.entries = append(t.entries, e)
}

func (t *Table) remove(leaf uint32) {
	t.entries = slices.DeleteFunc(t.entries, func(e kvm.CPUIDEntry) bool { return e.Function == leaf })
}

func setBit(r *uint32, bit int, on bool) {
	*r &^= 1 << bit
	if on {
		*r |= 1 << bit
	}
}
