package cpuid

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/kvm"
)

// has tells whether a table has a feature, by its name.
func has(t *testing.T, table *Table, name string) bool {
	t.Helper()
	f, ok := lookup(name)
	require.True(t, ok, name)
	return table.has(f)
}

func TestWhatNeedsAMissingFeatureGoesToo(t *testing.T) {
	m := Machine{CPUs: 1}
	host := build(t, amd(), m, Model{})
	for _, name := range []string{"xsave", "avx", "avx2", "fma", "f16c", "pku", "xsaves", "vaes", "sse4_2", "aes"} {
		require.True(t, has(t, host, name), name)
	}
	require.NotZero(t, host.find(leafXSAVE, 0).EAX)

	without := build(t, amd(), m, Model{Remove: []string{"xsave"}})
	for _, name := range []string{"xsave", "avx", "avx2", "fma", "f16c", "pku", "xsaves", "vaes"} {
		require.False(t, has(t, without, name), name)
	}
	require.True(t, has(t, without, "sse4_2"))
	require.True(t, has(t, without, "aes"))
	require.Zero(t, without.find(leafXSAVE, 0).EAX, "no state to save")

	noAVX := build(t, amd(), m, Model{Remove: []string{"avx"}})
	require.False(t, has(t, noAVX, "avx2"))
	require.True(t, has(t, noAVX, "xsaves"))
	require.True(t, has(t, noAVX, "pku"))

	_, err := New(amd(), Model{Remove: []string{"xsave"}, Add: []string{"avx2"}}, m)
	require.ErrorIs(t, err, ErrFeature)
	require.ErrorContains(t, err, `"avx2" needs "avx", which is missing; leave out +avx2`)
}

// TestAKVMWithoutXSAVE: KVM may report AVX where the processor under it has no
// XSAVE, as the lab's does; a kernel would crash in its first vector code.
func TestAKVMWithoutXSAVE(t *testing.T) {
	supported := amd()
	for i := range supported {
		if supported[i].Function == leafFeatures {
			supported[i].ECX &^= 1 << 26
		}
	}
	table := build(t, supported, Machine{CPUs: 1}, Model{})
	require.False(t, has(t, table, "avx"))
	require.False(t, has(t, table, "vaes"))
	require.True(t, has(t, &Table{entries: supported}, "avx"), "the caller's leaves stay")
}

// TestNeedsAreInOrder: one pass over the list is enough, and its names exist.
func TestNeedsAreInOrder(t *testing.T) {
	gone := map[string]bool{}
	for _, n := range needs {
		require.False(t, gone[n.feature], "%s was looked at before a line took it away", n.feature)
		has(t, &Table{entries: []kvm.CPUIDEntry{}}, n.feature)
		gone[n.feature] = true
		for _, user := range strings.Fields(n.users) {
			has(t, &Table{entries: []kvm.CPUIDEntry{}}, user)
			require.False(t, gone[user], "%s is taken away after it was looked at", user)
		}
	}
}
