package acpi

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// A block's resources as ACPICA's resource manager, which is Linux's, finds them.
func TestInterpreterFindsVirtioResources(t *testing.T) {
	acpiexec := acpica(t, "acpiexec")
	t.Parallel()
	tables, err := Build(machines()["virtio-mmio"])
	require.NoError(t, err)
	dir, _ := unpack(t, tables)
	said := run(t, dir, acpiexec, "-r", "-b", `evaluate \_SB.V010._HID; evaluate \_SB.V010._UID; resources \_SB.V010`, "DSDT.dat")
	require.Contains(t, said, `"LNRO0005"`)
	require.Regexp(t, `\[Integer\] = 0000000000000010`, said)
	require.Regexp(t, fmt.Sprintf(`32-Bit Fixed Memory Range Resource\n[^\[]*Write Protect : ReadWrite\n[^\[]*Address : %08X\n[^\[]*Address Length : 00000200`,
		0xD0000000+16*0x200), said)
	require.Regexp(t, `Triggering : Level\s+Polarity : ActiveHigh\s+Sharing : Exclusive`, said)
	require.Regexp(t, `Dword00 : 00000020`, said)
}
