package cpuid

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/kvm"
)

func leaf(fn, idx, a, b, c, d uint32) kvm.CPUIDEntry {
	e := kvm.CPUIDEntry{Function: fn, Index: idx, EAX: a, EBX: b, ECX: c, EDX: d}
	switch fn {
	case 0x4, 0x7, 0xb, 0xd, 0x8000_001d:
		e.Flags = flagIndex
	}
	return e
}

// amd is what KVM tells of an AMD host, with its own topology still in it.
func amd() []kvm.CPUIDEntry {
	return []kvm.CPUIDEntry{
		leaf(0, 0, 0xd, 0x68747541, 0x444d4163, 0x69746e65),
		leaf(1, 0, 0x00a00f11, 0x07080800, 0x7ef83203, 0x078bfbff),
		leaf(7, 0, 0, 0x219c91a9, 0x0040069c, 0),
		leaf(0xb, 0, 1, 2, 0x100, 7), leaf(0xb, 1, 7, 16, 0x201, 7),
		leaf(0xd, 0, 7, 0x240, 0x340, 0), leaf(0xd, 1, 0xf, 0x240, 0, 0),
		leaf(0x4000_0000, 0, 0x4000_0001, 0x4b4d564b, 0x564b4d56, 0x4d),
		leaf(0x4000_0001, 0, 0x0100_7afb, 0, 0, 0),
		leaf(0x8000_0001, 0, 0x00a00f11, 0, 0x00c003f7, 0x2fd3fbff),
		leaf(0x8000_0007, 0, 0, 0, 0, 0x100),
		leaf(0x8000_0008, 0, 0x3030, 0x0100_0205, 0x700f, 0),
		leaf(0x8000_001d, 0, 0x4121, 0x1c0003f, 0x3f, 0), leaf(0x8000_001d, 3, 0x3c163, 0x3c0003f, 0x7fff, 1), leaf(0x8000_001d, 4, 0, 0, 0, 0),
		leaf(0x8000_001e, 0, 7, 0x103, 0x100, 0),
	}
}

// intel is what KVM tells of an Intel host.
func intel() []kvm.CPUIDEntry {
	return []kvm.CPUIDEntry{
		leaf(0, 0, 0x1f, 0x756e6547, 0x6c65746e, 0x49656e69),
		leaf(1, 0, 0x606a6, 0x05200800, 0x77fafbff, 0xbfebfbff),
		leaf(4, 0, 0x7c004121, 0x2c0003f, 0x3f, 0), leaf(4, 1, 0x7c07c163, 0x4c0003f, 0x8fff, 4), leaf(4, 2, 0, 0, 0, 0),
		leaf(0xa, 0, 0x08300805, 0, 0xf, 0x8604),
		leaf(0x4000_0000, 0, 0x4000_0001, 0x4b4d564b, 0x564b4d56, 0x4d),
		leaf(0x8000_0001, 0, 0, 0, 0x121, 0x2c100800),
		leaf(0x8000_0007, 0, 0, 0, 0, 0x100),
		leaf(0x8000_0008, 0, 0x302e, 0, 0, 0),
	}
}

func build(t *testing.T, supported []kvm.CPUIDEntry, m Machine, model Model) *Table {
	t.Helper()
	table, err := New(supported, model, m)
	require.NoError(t, err)
	return table
}

func TestTopologyOfEachProcessor(t *testing.T) {
	for _, n := range []int{1, 2, 3, 4, 8, 33, 64} {
		for name, supported := range map[string][]kvm.CPUIDEntry{"amd": amd(), "intel": intel()} {
			table := build(t, supported, Machine{CPUs: n}, Model{})
			width := uint32(math.Ceil(math.Log2(float64(n))))
			for i := range n {
				t.Run(fmt.Sprintf("%s %d of %d", name, i, n), func(t *testing.T) {
					p := &Table{entries: table.For(i)}
					id := uint32(i)
					one := p.find(leafFeatures, 0)
					require.Equal(t, id, one.EBX>>24, "initial APIC id")
					require.EqualValues(t, n, one.EBX>>16&0xff, "logical processors")
					require.EqualValues(t, 8, one.EBX>>8&0xff, "CLFLUSH size stays")
					require.Equal(t, n > 1, one.EDX>>28&1 == 1, "HTT")

					threads, cores, end := p.find(leafTopology, 0), p.find(leafTopology, 1), p.find(leafTopology, 2)
					require.EqualValues(t, 0, threads.EAX)
					require.EqualValues(t, 1, threads.EBX)
					require.EqualValues(t, 0x100, threads.ECX)
					require.Equal(t, width, cores.EAX, "bits to shift an APIC id by for the package")
					require.EqualValues(t, n, cores.EBX)
					require.EqualValues(t, 0x201, cores.ECX)
					require.Zero(t, end.EBX)
					for _, e := range []*kvm.CPUIDEntry{threads, cores, end} {
						require.Equal(t, id, e.EDX)
					}
					require.Equal(t, name == "intel", p.find(leafTopologyV2, 0) != nil, "0x1f only up to the highest leaf")

					sizes := p.find(leafSizes, 0)
					require.EqualValues(t, n-1, sizes.ECX&0xff)
					require.Equal(t, width, sizes.ECX>>12&0xf)

					if name == "amd" {
						require.Equal(t, id, p.find(leafAMDTopo, 0).EAX)
						require.Equal(t, id, p.find(leafAMDTopo, 0).EBX)
						require.Zero(t, p.find(leafAMDTopo, 0).ECX)
						require.Equal(t, n > 1, p.find(leafExtFeature, 0).ECX>>1&1 == 1)
						require.Zero(t, p.find(leafAMDCaches, 0).EAX>>14&0xfff, "level 1 is a core's own")
						require.EqualValues(t, 1<<width-1, p.find(leafAMDCaches, 3).EAX>>14&0xfff, "level 3 is shared")
						require.Zero(t, p.find(leafAMDCaches, 4).EAX)
					} else {
						require.Zero(t, p.find(leafCaches, 0).EAX>>14&0xfff)
						require.EqualValues(t, 1<<width-1, p.find(leafCaches, 0).EAX>>26)
						require.EqualValues(t, 1<<width-1, p.find(leafCaches, 1).EAX>>14&0xfff)
						require.Zero(t, p.find(leafCaches, 2).EAX, "the end of the list stays the end")
					}
				})
			}
		}
	}
}

func TestTheHypervisorIsThere(t *testing.T) {
	table := build(t, amd(), Machine{CPUs: 1, TSCDeadline: true}, Model{})
	one := table.find(leafFeatures, 0)
	require.EqualValues(t, 1, one.ECX>>31)
	require.EqualValues(t, 1, one.ECX>>24&1, "TSC deadline")
	require.Zero(t, build(t, amd(), Machine{CPUs: 1}, Model{}).find(leafFeatures, 0).ECX>>24&1)
	require.Equal(t, 48, table.PhysicalBits())
}

func TestClocksAreTold(t *testing.T) {
	for _, khz := range []uint32{2_445_427, 999_999, 1_000_000, 3_700_000, 2_100_001, 5_500_123} {
		table := build(t, amd(), Machine{CPUs: 1, TSCkHz: khz}, Model{})
		require.GreaterOrEqual(t, table.find(leafVendor, 0).EAX, uint32(leafFrequency))
		tsc := table.find(leafTSC, 0)
		require.EqualValues(t, 1_000_000_000, tsc.ECX, "the crystal is the APIC's bus")

		// As Linux computes it (arch/x86/kernel/tsc.c native_calibrate_tsc): in 32 bits.
		product := uint64(tsc.ECX/1000) * uint64(tsc.EBX)
		require.LessOrEqual(t, product, uint64(math.MaxUint32))
		got := float64(product) / float64(tsc.EAX)
		// Convergents with a numerator of at most 4294 are no farther off than 1/4294.
		require.InEpsilon(t, float64(khz), got, 1.0/4294, "TSC of %d kHz as %d/%d", khz, tsc.EBX, tsc.EAX)

		require.Equal(t, khz/1000, table.find(leafFrequency, 0).EAX)
		require.EqualValues(t, leafTiming, table.find(leafHypervisor, 0).EAX)
		require.Equal(t, khz, table.find(leafTiming, 0).EAX)
		require.EqualValues(t, 1_000_000, table.find(leafTiming, 0).EBX, "APIC bus in kHz")
	}
	require.Nil(t, build(t, amd(), Machine{CPUs: 1}, Model{}).find(leafTSC, 0), "an unknown frequency is not told")
}

func TestFeaturesComeAndGo(t *testing.T) {
	avx2, ok := lookup("avx2")
	require.True(t, ok)
	invtsc, ok := lookup("invtsc")
	require.True(t, ok)
	x2apic, ok := lookup("x2apic")
	require.True(t, ok)
	require.Equal(t, feature{1, 0, ecx, 21}, x2apic)
	require.Equal(t, feature{7, 0, ebx, 5}, avx2)
	require.Equal(t, feature{0x8000_0007, 0, edx, 8}, invtsc)

	m := Machine{CPUs: 1}
	host := build(t, amd(), m, Model{})
	require.True(t, host.has(avx2))
	require.True(t, host.has(invtsc))

	less := build(t, amd(), m, Model{Remove: []string{"avx2", "x2apic"}})
	require.False(t, less.has(avx2))
	require.False(t, less.has(x2apic))

	migratable := build(t, amd(), m, Model{Base: "max-migratable"})
	require.False(t, migratable.has(invtsc))
	require.True(t, migratable.has(avx2))
	require.True(t, build(t, amd(), m, Model{Base: "max-migratable", Add: []string{"invtsc"}}).has(invtsc))
	require.Zero(t, build(t, intel(), m, Model{Base: "max-migratable"}).find(leafPMU, 0).EAX)
}

func TestWhatCannotBeHadIsNamed(t *testing.T) {
	for _, c := range []struct {
		model Model
		want  string
	}{
		{Model{Base: "pentium"}, `"pentium" is unknown; use one of: host, max-migratable`},
		{Model{Add: []string{"avx3"}}, `feature "avx3" is unknown`},
		{Model{Remove: []string{"sse4"}}, "did you mean sse4_1, sse4_2, sse4a?"},
		{Model{Add: []string{"avx2"}, Remove: []string{"avx2"}}, "both added and removed"},
		{Model{Add: []string{"avx512f"}}, "KVM does not support feature \"avx512f\" on this host"},
		{Model{Remove: []string{"."}}, "unknown"},
		{Model{Remove: []string{""}}, "unknown"},
	} {
		_, err := New(amd(), c.model, Machine{CPUs: 1})
		require.ErrorIs(t, err, ErrFeature)
		require.ErrorContains(t, err, c.want)
	}
}

// TestFeatureNamesAreWhereTheyBelong: a word too many or too few in the table
// would move every name after it.
func TestFeatureNamesAreWhereTheyBelong(t *testing.T) {
	for name, want := range map[string]feature{
		"pbe": {1, 0, edx, 31}, "ht": {1, 0, edx, 28}, "fxsr": {1, 0, edx, 24}, "clflush": {1, 0, edx, 19},
		"hypervisor": {1, 0, ecx, 31}, "rdrand": {1, 0, ecx, 30}, "tsc-deadline": {1, 0, ecx, 24}, "pcid": {1, 0, ecx, 17}, "vmx": {1, 0, ecx, 5},
		"avx512vl": {7, 0, ebx, 31}, "sha-ni": {7, 0, ebx, 29}, "smap": {7, 0, ebx, 20}, "erms": {7, 0, ebx, 9},
		"pks": {7, 0, ecx, 31}, "la57": {7, 0, ecx, 16}, "rdpid": {7, 0, ecx, 22}, "pku": {7, 0, ecx, 3},
		"ssbd": {7, 0, edx, 31}, "arch-capabilities": {7, 0, edx, 29}, "serialize": {7, 0, edx, 14}, "amx-int8": {7, 0, edx, 25},
		"lam": {7, 1, eax, 26}, "avx512_bf16": {7, 1, eax, 5}, "xsaves": {0xd, 1, eax, 3},
		"mwaitx": {0x8000_0001, 0, ecx, 29}, "svm": {0x8000_0001, 0, ecx, 2}, "topoext": {0x8000_0001, 0, ecx, 22},
		"lm": {0x8000_0001, 0, edx, 29}, "nx": {0x8000_0001, 0, edx, 20}, "syscall": {0x8000_0001, 0, edx, 11}, "pdpe1gb": {0x8000_0001, 0, edx, 26},
		"ibpb": {0x8000_0008, 0, ebx, 12}, "amd-ssbd": {0x8000_0008, 0, ebx, 24}, "wbnoinvd": {0x8000_0008, 0, ebx, 9},
		"vgif": {0x8000_000a, 0, edx, 16}, "avic": {0x8000_000a, 0, edx, 13},
		"kvm-pv-unhalt": {0x4000_0001, 0, eax, 7}, "kvmclock-stable-bit": {0x4000_0001, 0, eax, 24}, "kvm-msi-ext-dest-id": {0x4000_0001, 0, eax, 15},
	} {
		got, ok := lookup(name)
		require.True(t, ok, name)
		require.Equal(t, want, got, name)
	}
}
