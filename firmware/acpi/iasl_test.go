package acpi

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// acpica finds a tool of ACPICA, the reference implementation of ACPI that
// Linux runs too. It skips without it, and fails then when REQUIRE_IASL=1.
func acpica(t *testing.T, tool string) string {
	t.Helper()
	path, err := exec.LookPath(tool)
	if err != nil {
		if os.Getenv("REQUIRE_IASL") == "1" {
			t.Fatalf("%s not found: install acpica-tools", tool)
		}
		t.Skipf("%s not found: install acpica-tools", tool)
	}
	return path
}

// unpack writes each table to a file of its own, named after its signature.
func unpack(t *testing.T, tables Tables) (dir string, found map[string][]byte) {
	t.Helper()
	dir, found = t.TempDir(), walk(t, tables)
	for signature, data := range found {
		require.NoError(t, os.WriteFile(filepath.Join(dir, signature+".dat"), data, 0o644))
	}
	return dir, found
}

// run runs a command in dir and returns all it says.
func run(t *testing.T, dir, tool string, args ...string) string {
	t.Helper()
	cmd := exec.Command(tool, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return string(out)
}

// requireContent fails on anything that a tool of ACPICA complains of.
func requireContent(t *testing.T, said string) {
	t.Helper()
	said = strings.ReplaceAll(said, "0 Errors, 0 Warnings, 0 Remarks", "")
	require.NotRegexp(t, `(?i)error|warning|remark|invalid|incorrect|exception`, said)
}

// Each table is taken apart and put together again by iasl, without what it
// optimizes (-oa). It finds nothing to complain of, and the result is the table.
func TestIASL(t *testing.T) {
	iasl := acpica(t, "iasl")
	each(t, func(t *testing.T, _ Config, tables Tables) {
		dir, found := unpack(t, tables)
		for signature, data := range found {
			requireContent(t, run(t, dir, iasl, "-d", signature+".dat"))
			requireContent(t, run(t, dir, iasl, "-oa", "-p", "again", signature+".dsl"))
			again, err := os.ReadFile(filepath.Join(dir, "again.aml"))
			require.NoError(t, err)
			require.Equal(t, anonymous(data), anonymous(again), signature)
		}
	})
}

// anonymous is a table without what names its maker, as iasl puts itself
// there, and without the Online Capable flags of ACPI 6.3, which the iasl of
// 2020 drops from the MADT.
func anonymous(table []byte) []byte {
	t := bytes.Clone(table)
	t[headerChecksum] = 0
	clear(t[28:headerSize]) // creator and its revision
	if string(t[:4]) == "APIC" {
		for e := t[44:]; len(e) > 0; e = e[e[1]:] {
			switch e[0] {
			case typeLocalAPIC:
				e[4] &^= cpuOnlineCapable
			case typeLocalX2APIC:
				e[8] &^= cpuOnlineCapable
			}
		}
	}
	return t
}

// ACPICA's interpreter loads the DSDT without complaint, and without running a
// single method: nothing in it can cost an exit at boot. (acpiexec sleeps for a
// second before it ends, so these tests are few and run side by side.)
func TestInterpreterLoadsDSDT(t *testing.T) {
	acpiexec := acpica(t, "acpiexec")
	for _, name := range []string{"bare", "full-64"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tables, err := Build(machines()[name])
			require.NoError(t, err)
			dir, _ := unpack(t, tables)
			said := run(t, dir, acpiexec, "-r", "-b", `evaluate \_S5; resources \_SB.GED`, "DSDT.dat")
			requireContent(t, said)
			require.Contains(t, said, "Executed 0 _INI methods requiring 0 _STA executions")
			require.Regexp(t, `\[Package\] Contains 4 Elements:\s+\[Integer\] = 0000000000000005`, said)
			require.Regexp(t, `Triggering : Level\s+Polarity : ActiveHigh`, said)
		})
	}
}

// _EVT notifies the power button when its bit is pending, and only then. The
// interpreter's I/O ports hold what -fv says.
func TestInterpreterRunsEvent(t *testing.T) {
	acpiexec := acpica(t, "acpiexec")
	tables, err := Build(full(1))
	require.NoError(t, err)
	for events, pressed := range map[string]bool{"0x01": true, "0xFE": false} {
		t.Run(events, func(t *testing.T) {
			t.Parallel()
			dir, _ := unpack(t, tables)
			said := run(t, dir, acpiexec, "-r", "-fv", events, "-b", `evaluate \_SB.GED._EVT 9`, "DSDT.dat")
			requireContent(t, said)
			require.Equal(t, pressed, strings.Contains(said, "Received a Device Notify on [PWRB]"), said)
		})
	}
}
