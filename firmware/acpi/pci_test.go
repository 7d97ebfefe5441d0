package acpi

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The routing and the windows as ACPICA's resource manager, which is Linux's,
// finds them.
func TestInterpreterFindsPCIResources(t *testing.T) {
	acpiexec := acpica(t, "acpiexec")
	t.Parallel()
	c := full(1)
	c.PCI.INTx = []uint32{16, 17, 18}
	tables, err := Build(c)
	require.NoError(t, err)
	dir, _ := unpack(t, tables)
	said := run(t, dir, acpiexec, "-r", "-b", `resources \_SB.PCI0; resources \_SB.ECAM`, "DSDT.dat")
	// It tries _SRS too, which is for resources that can be changed.
	requireContent(t, strings.ReplaceAll(said, "AcpiSetCurrentResources failed: AE_NOT_FOUND", ""))

	require.Equal(t, 32*4, strings.Count(said, "PCI IRQ Routing Table Package"))
	for slot := range 32 {
		for pin := range 4 {
			require.Regexp(t, fmt.Sprintf(`Address : %016X\s+Pin : %08X\s+Source : \[NULL NAMESTRING\]\s+Source Index : %08X\n`,
				slot<<16|0xFFFF, pin, 16+(slot+pin)%3), said)
		}
	}
	for _, w := range []struct{ kind, use, first, last, length string }{
		{"Bus Number Range", "Producer", "0000", "00FF", "0100"},
		{"I/O Range", "Producer", "1000", "FFFF", "F000"},
		{"Memory Range", "Producer", "C0000000", "DFFFFFFF", "20000000"},
		{"Memory Range", "Producer", "0000004000000000", "0000005FFFFFFFFF", "0000002000000000"},
		{"Memory Range", "Consumer", "00000000E0000000", "00000000EFFFFFFF", "0000000010000000"},
	} {
		require.Regexp(t, `Resource Type : `+w.kind+`\n[^\[]*Resource`+w.use+`\n[^\[]*Minimum : `+w.first+
			`\n[^\[]*Maximum : `+w.last+`\n[^\[]*Length : `+w.length+`\n`, said)
	}
}

// The guest gets what it asks for, and an error for what is not asked rightly
// (PCI Firmware Specification 3.3 §4.5.1).
func TestInterpreterRunsOSC(t *testing.T) {
	acpiexec := acpica(t, "acpiexec")
	tables, err := Build(full(1))
	require.NoError(t, err)
	const words = "1F 01 00 00 1D 00 00 00"
	for _, tt := range []struct{ name, uuid, revision, status string }{
		{"granted", "5B 4D DB 33 F7 1F 1C 40 96 57 74 41 C0 3D D7 66", "1", "01"},
		{"revision", "5B 4D DB 33 F7 1F 1C 40 96 57 74 41 C0 3D D7 66", "2", "09"},
		{"UUID", "5B 4D DB 33 F7 1F 1C 40 96 57 74 41 C0 3D D7 67", "1", "05"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir, _ := unpack(t, tables)
			said := run(t, dir, acpiexec, "-r", "-b",
				fmt.Sprintf(`evaluate \_SB.PCI0._OSC (%s) %s 3 (01 00 00 00 %s)`, tt.uuid, tt.revision, words), "DSDT.dat")
			requireContent(t, said)
			require.Regexp(t, `\[Buffer\] Length 0C =\s+0000: `+tt.status+` 00 00 00 `+words, said)
		})
	}
}
