package faults

import (
	"bytes"
	"debug/elf"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/boot/modules"
)

// victim is Debian's, where make kernels has fetched it.
func victim(t testing.TB) []byte {
	t.Helper()
	tree, err := modules.For("../../build/kernels/cloud/vmlinuz", "")
	if err != nil {
		t.Skip("make kernels fetches the kernel: ", err)
	}
	list, err := tree.Resolve(Victim)
	require.NoError(t, err)
	require.Len(t, list, 1, "it depends on nothing")
	ko, err := list[0].Read()
	require.NoError(t, err)
	return ko
}

func TestModule(t *testing.T) {
	ko := victim(t)
	for _, fault := range All() {
		m, err := Module(ko, fault)
		require.NoError(t, err, fault)
		require.NotContains(t, string(m), "Module signature appended")
		f, err := elf.NewFile(bytes.NewReader(m))
		require.NoError(t, err)
		text, err := f.Section(".init.text").Data()
		require.NoError(t, err)
		require.True(t, bytes.HasPrefix(text[5:], code[fault]), "%s: % x", fault, text[:20])
		for _, s := range f.Sections {
			if strings.HasSuffix(s.Name, ".return_sites") { // what relocates it, too
				require.Zero(t, s.Size)
			}
		}
	}
	again := victim(t)
	require.True(t, bytes.Equal(ko, again), "it is left as it was")
	_, err := Module(ko, "none")
	require.ErrorIs(t, err, ErrModule)
	for _, b := range [][]byte{nil, []byte("\x7fELF"), ko[:4096]} {
		_, err := Module(b, Bug)
		require.ErrorIs(t, err, ErrModule)
	}
}
