package ksym_test

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/boot/payload"
	"github.com/huskvm/husk/internal/ksym"
)

// TestDistributionKernels finds the symbols of those that make kernels has fetched,
// where it has. tests/boot compares them with what a kernel says of itself.
func TestDistributionKernels(t *testing.T) {
	for _, flavour := range []string{"cloud", "generic"} {
		t.Run(flavour, func(t *testing.T) {
			if testing.Short() {
				t.Skip("it unpacks a whole kernel")
			}
			image, err := os.ReadFile("../../build/kernels/" + flavour + "/vmlinuz")
			if os.IsNotExist(err) {
				t.Skip("no kernel is there; make kernels fetches it")
			}
			require.NoError(t, err)
			vmlinux, err := payload.Unpack(image)
			require.NoError(t, err)
			table, err := open(t, vmlinux)
			require.NoError(t, err)
			require.Greater(t, table.Len(), 50_000)
			for _, name := range []string{"entry_SYSCALL_64", "do_idle", "default_idle", "asm_exc_page_fault"} {
				addr, ok := table.Address(name)
				require.True(t, ok, name)
				l, ok := table.Lookup(addr + 1)
				require.True(t, ok, name)
				require.Equal(t, ksym.Location{Name: name, Offset: 1, Size: l.Size}, l)
				require.Less(t, l.Size, uint64(0x1000))
			}
		})
	}
}
