// Package boot boots stock kernels with bin/husk, and checks what a user sees:
// the console, the exit code, what is on stderr. It needs a KVM on which a stock
// kernel runs, as in the lab: make lab-test.
package boot

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// sees is on the console once husk-init runs.
const sees = "kernel   Linux"

func TestKernelsAndMachines(t *testing.T) {
	for _, c := range []struct {
		kernel, flavour string
		cpus, memory    string
	}{
		{"vmlinuz", "cloud", "1", "128M"},
		{"vmlinuz", "cloud", "4", "512M"},
		{"vmlinuz", "cloud", "4", "5G"},
		{"vmlinuz", "generic", "1", "512M"},
		{"vmlinux", "cloud", "1", "512M"},
		{"vmlinux", "cloud", "4", "5G"},
		{"vmlinux", "generic", "4", "512M"},
	} {
		t.Run(strings.Join([]string{c.flavour, c.kernel, c.cpus, c.memory}, " "), func(t *testing.T) {
			t.Parallel()
			r := boot(t, c.flavour, c.kernel, "poweroff", "-c", c.cpus, "-m", c.memory, "-a", "loglevel=7")
			r.wantCode(t, 0)
			require.Contains(t, r.stdout, "Hypervisor detected: KVM")
			require.Contains(t, r.stdout, "TSC deadline timer available")
			require.Regexp(t, `Brought up 1 node, `+c.cpus+` CPU`, r.stdout)
			require.Contains(t, r.stdout, "reboot: Power down")
			require.Regexp(t, `ttyS0 at I/O 0x3f8 .* is a 16550A`, r.stdout)
			require.Contains(t, r.stdout, "i8042: PNP: PS/2 Controller")
			require.Contains(t, r.stdout, "registered as rtc0")
			require.NotRegexp(t, `ACPI.*(Error|Warning|BUG)|Firmware (Bug|Warn)`, r.stdout)
			require.NotRegexp(t, `WARNING: |BUG: |XSAVE consistency`, r.stdout, "no complaint of the kernel's about its processor")
			require.Regexp(t, `(MMCONFIG|ECAM).* reserved`, r.stdout, "PCI's configuration space is found and believed")
			require.Contains(t, r.stdout, "PCI: Using host bridge windows from ACPI")
			require.Contains(t, r.stdout, "[1b36:0008]", "the host bridge itself")
			require.NotContains(t, r.stdout, "Calibrating delay loop...", "the frequencies are told, not measured")

			want, err := strconv.Atoi(strings.TrimRight(c.memory, "MG"))
			require.NoError(t, err)
			if strings.HasSuffix(c.memory, "G") {
				want *= 1024
			}
			m := regexp.MustCompile(`Memory: \d+K/(\d+)K available`).FindStringSubmatch(r.stdout)
			require.NotNil(t, m, "the kernel says what it has")
			got, err := strconv.Atoi(m[1])
			require.NoError(t, err)
			require.InDelta(t, want*1024, got, 1024, "KiB of RAM, less what lies under 1 MiB")
		})
	}
}

// TestProcessorsAndBackings: every kind of processor and of memory boots.
func TestProcessorsAndBackings(t *testing.T) {
	for name, flags := range map[string][]string{
		"max-migratable":  {"--cpu", "max-migratable"},
		"without x2apic":  {"--cpu", "host,-x2apic,-tsc_deadline_timer", "-c", "2"},
		"shared memory":   {"--memory-backing", "shared"},
		"reserved memory": {"--memory-backing", "hugetlb"},
		"no console":      {"--serial", "none"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if name == "reserved memory" {
				reserveHugePages(t, 128)
			}
			r := boot(t, "cloud", "vmlinuz", "poweroff", flags...)
			r.wantCode(t, 0)
			if name == "no console" {
				require.Empty(t, r.stdout)
				return
			}
			require.Contains(t, r.stdout, sees)
		})
	}
}

// TestELFByItsOwnEntry: a vmlinux without the note of PVH is entered in 64-bit mode.
func TestELFByItsOwnEntry(t *testing.T) {
	t.Parallel()
	need(t)
	b, err := os.ReadFile(kernel(t, "cloud", "vmlinux"))
	require.NoError(t, err)
	note := bytes.Index(b, []byte("\x12\x00\x00\x00Xen\x00"))
	require.Positive(t, note)
	b[note] = 0x63 // of no known type
	path := filepath.Join(t.TempDir(), "vmlinux")
	require.NoError(t, os.WriteFile(path, b, 0o600))

	plan := husk(t, nil, "boot", "--dry-run", "-k", path)
	require.Contains(t, plan.stdout, "64-bit")
	require.NotContains(t, plan.stdout, "PVH")
	r := husk(t, nil, "boot", "--accel=kvm", "-k", path, "-i", initrd(t, "cloud"), "-m", "256M", "-a", "quiet husk.do=poweroff")
	r.wantCode(t, 0)
	require.Contains(t, r.stdout, sees)
}

func TestExitCodes(t *testing.T) {
	for _, c := range []struct {
		name  string
		do    string
		flags []string
		code  int
		out   string // on the console
		err   string // on stderr
	}{
		{"power off", "poweroff", nil, 0, "reboot: Power down", ""},
		{"reboot", "reboot", nil, 0, "reboot: Restarting system", ""},
		{"reboot is a failure", "reboot", []string{"--on-reboot=fail"}, 121, "reboot: Restarting system", "reboot"},
		{"panic, told by pvpanic", "panic", nil, 123, "Kernel panic - not syncing", "sysrq triggered crash"},
		{"panic that does not reboot", "panic", []string{"-a", "panic=0"}, 123, "Kernel panic - not syncing", "panicked"},
		{"triple fault", "triple-fault", nil, 122, "", "RIP="},
		{"timeout", "idle", []string{"--timeout", "20s"}, 124, "", "timeout"},
		{"timeout of a busy guest", "spin", []string{"--timeout", "20s"}, 124, "", "timeout"},
		{"debug-exit", "exit", []string{"--debug-exit", "-a", "husk.code=42"}, 42, sees, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := boot(t, "cloud", "vmlinuz", c.do, c.flags...)
			r.wantCode(t, c.code)
			require.Contains(t, r.stdout, c.out)
			require.Contains(t, r.stderr, c.err)
		})
	}
}

// TestPanicWithoutTheDriver: a kernel with no root panics before any module of
// an initramfs could be loaded.
func TestPanicWithoutTheDriver(t *testing.T) {
	t.Parallel()
	r := husk(t, nil, "boot", "--accel=kvm", "-k", kernel(t, "cloud", "vmlinuz"), "-a", "quiet")
	r.wantCode(t, 123)
	require.Contains(t, r.stderr, "Unable to mount root")
}

func TestSignalsPressThePowerButton(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(sig.String(), func(t *testing.T) {
			t.Parallel()
			g := start(t, "cloud", "husk.do=idle")
			g.waitFor(t, sees)
			require.NoError(t, g.cmd.Process.Signal(sig))
			r := g.wait(t)
			r.wantCode(t, 0)
			require.Contains(t, r.stdout, "reboot: Power down")
		})
	}
}

func TestASecondSignalEndsAtOnce(t *testing.T) {
	t.Parallel()
	g := start(t, "cloud", "husk.do=spin")
	g.waitFor(t, sees)
	require.NoError(t, g.cmd.Process.Signal(syscall.SIGTERM))
	g.waitForError(t, "SIGTERM")
	require.NoError(t, g.cmd.Process.Signal(syscall.SIGTERM))
	g.wait(t).wantCode(t, 128+int(syscall.SIGTERM))
}

// TestTheConsoleWorksBothWays: each line that goes in comes out twice, echoed by
// the guest's terminal and written by cat. One at a time: Linux gives up echoes
// when they come faster than the line takes them.
func TestTheConsoleWorksBothWays(t *testing.T) {
	t.Parallel()
	g := start(t, "cloud", "husk.run=cat")
	g.waitFor(t, "to this line\r\n\r\n") // the last that husk-init says
	var want strings.Builder
	for i := range 50 {
		line := "line " + strconv.Itoa(i) + " of what goes in must come out"
		want.WriteString(line + "\r\n" + line + "\r\n")
		_, err := g.stdin.Write([]byte(line + "\n"))
		require.NoError(t, err)
		g.waitFor(t, line+"\r\n"+line+"\r\n")
	}
	_, err := g.stdin.Write([]byte{4}) // end of file, on a terminal
	require.NoError(t, err)
	r := g.wait(t)
	r.wantCode(t, 0)
	require.Contains(t, r.stdout, want.String())
	require.True(t, strings.HasSuffix(r.stdout, "reboot: Power down\r\n"), tail(r.stdout))
}

func TestStatsTellTheBoot(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "stats.json")
	boot(t, "cloud", "vmlinuz", "poweroff", "--stats", file, "-a", "husk.marker=7").wantCode(t, 0)
	b, err := os.ReadFile(file)
	require.NoError(t, err)
	var s struct {
		Exits   map[string]uint64
		KVM     map[string]uint64
		PIO     map[string]struct{ Reads, Writes uint64 }
		Markers []struct{ Name string }
		Memory  struct {
			VMM uint64 `json:"vmm_resident"`
		}
	}
	require.NoError(t, json.Unmarshal(b, &s), "%s", b)
	require.Positive(t, s.Exits["io"])
	require.Greater(t, s.KVM["exits"], s.Exits["io"])
	require.Positive(t, s.PIO["0x3f8"].Writes)
	require.Positive(t, s.Memory.VMM)
	var names []string
	for _, m := range s.Markers {
		names = append(names, m.Name)
	}
	require.ElementsMatch(t, []string{"created", "first-run", "first-console-byte", "guest-7", "stopped"}, names)
	require.Equal(t, []string{"created", "first-run"}, names[:2])
	require.Equal(t, "stopped", names[4])
}

// TestTheGuestKnowsTheTime: the guest's time is the host's.
func TestTheGuestKnowsTheTime(t *testing.T) {
	t.Parallel()
	before := time.Now().Add(-time.Minute)
	r := boot(t, "cloud", "vmlinuz", "poweroff", "-a", "loglevel=7")
	m := regexp.MustCompile(`rtc_cmos .*setting system clock to (\S+) UTC`).FindStringSubmatch(r.stdout)
	require.NotNil(t, m, "%s", r.stdout)
	at, err := time.Parse("2006-01-02T15:04:05", m[1])
	require.NoError(t, err)
	require.WithinRange(t, at, before.UTC(), time.Now().Add(time.Minute).UTC())
}
