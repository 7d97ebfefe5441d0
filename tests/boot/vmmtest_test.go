package boot

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/devices/disk"
	"github.com/huskvm/husk/vmm"
	"github.com/huskvm/husk/vmm/vmmtest"
)

// TestDebianInATest: a whole system is started, looked at and ended by a Go test, which
// knows nothing of it but its file.
func TestDebianInATest(t *testing.T) {
	need(t)
	vm := vmmtest.Start(t, vmmtest.Config{VMM: vmm.Config{
		Disks:  []disk.Spec{{File: debianFile(t, "debian.raw"), Snapshot: true}},
		Memory: 1 << 30,
	}})
	vm.Expect(`login:`)
	out := vm.Run(t.Context(), "sh", "-c", "cat /etc/os-release; hostname")
	require.Zero(t, out.Code, "%v", out)
	require.Contains(t, out.Stdout, "Debian")
	require.Contains(t, out.Stdout, "husk-debian\n")
	vm.Copy(t.Context(), "vmmtest_test.go", "/root/source/here.go")
	require.Contains(t, vm.Run(t.Context(), "wc", "-l", "/root/source/here.go").Stdout, "here.go")
	vm.PowerOff()
	require.Contains(t, vm.Serial(), "reboot: Power down")
}
