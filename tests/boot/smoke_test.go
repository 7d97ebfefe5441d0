package boot

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/internal/smoke/result"
)

// smoke runs husk smoke with flags, and gives what it has found.
func smoke(t *testing.T, flags ...string) (run, result.Run) {
	t.Helper()
	need(t)
	file := filepath.Join(t.TempDir(), "results.json")
	r := husk(t, nil, append([]string{"smoke", "--accel=kvm", "--json", file}, flags...)...)
	return r, resultsIn(t, r, file)
}

func resultsIn(t *testing.T, r run, file string) (results result.Run) {
	t.Helper()
	b, err := os.ReadFile(file)
	require.NoError(t, err, r.stderr)
	require.NoError(t, json.Unmarshal(b, &results))
	return results
}

// machine are flags for the cloud kernel with husk-init, which does what do says.
func machine(t *testing.T, do string, more ...string) []string {
	t.Helper()
	need(t)
	return append([]string{"-k", kernel(t, "cloud", "vmlinuz"), "-i", initrd(t, "cloud"), "-m", "256M", "-a", "watchdog_thresh=60 husk.do=" + do}, more...)
}

// TestSmokeVerdicts: kernels that fail on purpose, each in its own way.
func TestSmokeVerdicts(t *testing.T) {
	need(t)
	bare := []string{"-k", kernel(t, "cloud", "vmlinuz"), "-m", "256M"}
	for _, tt := range []struct {
		name   string
		flags  []string
		code   int
		reason string
		stage  string
		finds  string // kinds of findings, joined
		trace  string // in the first one's trace
	}{
		{"pass without steps", machine(t, "poweroff"), 0, "", "init", "", ""},
		{"pass by steps", machine(t, "shell", "--expect", "husk# ", "--send", `echo hel''lo\n`, "--expect", "/^hello$/", "--poweroff"), 0, "", "step 4", "", ""},
		{"pass quietly", machine(t, "poweroff", "-a", "quiet"), 0, "", "init", "", ""},
		{"panic by sysrq", machine(t, "panic", "--expect", "never"), 3, "panic: Kernel panic - not syncing: sysrq triggered crash", "init", "panic", "sysrq_handle_crash"},
		{"no root", bare, 3, "no-root: VFS: ", "drivers", "no-root", "Kernel panic - not syncing: VFS: Unable to mount root fs"},
		{"init exits", machine(t, "exit-init", "--expect", "never"), 3, "init-killed: ", "init", "init-killed", "do_exit"},
		{"reboot loop", machine(t, "reboot", "--expect", "never"), 3, "reboot-loop: the guest rebooted 3 times", "init", "reboot-loop", ""},
		{"one reboot", machine(t, "reboot", "--expect", "never", "--reboots", "0"), 1, "the guest rebooted before the end of step 1", "init", "", ""},
		{"silence", machine(t, "idle", "--expect", "never", "--no-output", "45s"), 4, "no output for 45s, in step 1 (expect never)", "init", "", ""},
		{"a loop", machine(t, "spin", "--expect", "cpus  ", "--expect", "never", "--within", "5s"), 1, "step 2 (expect never): it was not done within 5s", "step 1", "", ""},
		{"triple fault", machine(t, "triple-fault", "--expect", "never"), 6, "triple-fault", "init", "triple-fault", ""},
		{"wrong path", []string{"-k", "/nowhere/bzImage"}, 7, "/nowhere/bzImage", "", "", ""},
		{"too much memory", append(bare[:2:2], "-m", "1000000G"), 7, "more than KVM takes", "", "", ""},
		{"too slow", machine(t, "poweroff", "--max-boot", "1ms"), 1, "more than --max-boot 1ms", "init", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, results := smoke(t, append(tt.flags, "--retries", "0")...)
			r.wantCode(t, tt.code)
			require.Equal(t, 1, len(results.Cases))
			require.Equal(t, 1, len(results.Cases[0].Attempts))
			a := results.Cases[0].Attempts[0]
			require.Contains(t, a.Reason, tt.reason)
			if tt.stage != "" {
				require.Equal(t, tt.stage, a.Stage)
			}
			var kinds []string
			for _, f := range a.Findings {
				kinds = append(kinds, f.Kind)
			}
			require.Equal(t, tt.finds, strings.Join(kinds, " "))
			if tt.trace != "" {
				require.Contains(t, strings.Join(a.Findings[0].Trace, "\n"), tt.trace)
			}
			if tt.code != 0 {
				require.Contains(t, r.stdout, tt.reason, "the report says it")
				require.Contains(t, r.stdout, "husk smoke --accel kvm --name smoke")
			}
			switch tt.name {
			case "silence":
				require.Equal(t, 0, a.VCPUs[0].CPU)
				require.Contains(t, a.VCPUs[0].Symbol, "halt")
				require.Contains(t, strings.Join(a.VCPUs[0].Backtrace, "\n"), "do_idle")
			case "a loop":
				require.Contains(t, a.VCPUs[0].Registers, "RIP")
			case "triple fault":
				require.NotEmpty(t, a.VCPUs)
			}
		})
	}
}

// TestSmokeAKilledMachine: what kills husk's process for a machine is no fault of the
// kernel's.
func TestSmokeAKilledMachine(t *testing.T) {
	file := filepath.Join(t.TempDir(), "results.json")
	cmd := exec.Command(need(t), append([]string{"smoke", "--accel=kvm", "--json", file}, machine(t, "idle", "--expect", "never")...)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	var child int
	require.Eventually(t, func() bool {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", cmd.Process.Pid, cmd.Process.Pid))
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", cmd.Process.Pid))
		for _, task := range tasks {
			more, _ := os.ReadFile(task)
			b = append(b, more...)
		}
		words := strings.Fields(string(b))
		if len(words) == 0 {
			return false
		}
		child, _ = strconv.Atoi(words[0])
		return true
	}, deadline, 20*time.Millisecond)
	time.Sleep(time.Second) // it may be anywhere in its boot
	require.NoError(t, syscall.Kill(child, syscall.SIGKILL))
	_ = cmd.Wait()
	r := run{cmd.ProcessState.ExitCode(), out.String(), ""}
	r.wantCode(t, 6)
	require.Contains(t, resultsIn(t, r, file).Cases[0].Attempts[0].Reason, "signal: killed")
}

// TestSmokeRunsCommands in the guest, with nothing but vsock.
func TestSmokeRunsCommands(t *testing.T) {
	need(t)
	kernelOnly := []string{"-k", kernel(t, "cloud", "vmlinuz"), "-m", "256M", "-a", "quiet"}
	r, results := smoke(t, append(kernelOnly,
		"--run", "uname -r", "--run-stdout", `/^\d+\.\d+/`, "--run", "cat /nowhere", "--run-code", "1", "--run-stderr", "nowhere", "--poweroff")...)
	r.wantCode(t, 0)
	a := results.Cases[0].Attempts[0]
	require.Len(t, a.Steps, 3)
	require.Regexp(t, `^\d+\.\d+`, a.Steps[0].Command.Stdout)
	require.Equal(t, "power-off", a.Guest.Outcome)

	r, results = smoke(t, append(kernelOnly, "--run", "cat /nowhere")...)
	r.wantCode(t, 1)
	require.Contains(t, results.Cases[0].Attempts[0].Reason, "step 1 (run cat /nowhere): its exit code is 1, and not 0")
}

// TestSmokeManyAtOnce: twenty cases of a file in parallel, whose results are in order.
func TestSmokeManyAtOnce(t *testing.T) {
	need(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "cases.yaml")
	text := fmt.Sprintf(`
defaults:
  kernel: %q
  initrd: %q
  append: quiet
  timeout: 20m
  no-output: 10m
  reboots: 0
  retries: 0
  # Twenty on one processor: a guest that waits for its turn is right to complain.
  no-detect: [rcu-stall, soft-lockup, hung-task]
  matrix: {cpus: [1, 2], memory: [128M, 192M]}
cases:
  - {name: ends, append: husk.do=poweroff, steps: [poweroff]}
  - {name: panics, append: husk.do=panic, steps: [expect: never]}
  - {name: exits, append: husk.do=exit husk.code=0, steps: [exit: 0]}
  - {name: crashes, append: husk.do=triple-fault, steps: [expect: never]}
  - {name: reboots, append: husk.do=reboot, steps: [expect: never]}
`, kernel(t, "cloud", "vmlinuz"), initrd(t, "cloud"))
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	out := filepath.Join(dir, "out")
	r, results := smoke(t, "-j", "20", "--out", out, "--junit", filepath.Join(dir, "junit.xml"), "--tap", filepath.Join(dir, "tap"), file)
	r.wantCode(t, 6)
	require.Equal(t, 20, len(results.Cases))
	for i, c := range results.Cases {
		want := []result.Verdict{result.Pass, result.Detected, result.Pass, result.VMM, result.Fail}[i/4]
		require.Equal(t, want, c.Verdict, "%s: %s", c.Name, c.Attempts[0].Reason)
		require.FileExists(t, filepath.Join(c.Attempts[0].Dir, "console.log"))
	}
	for _, name := range []string{"junit.xml", "tap"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		require.Contains(t, string(b), "panics [cpus=2, memory=192M]")
	}
}

// TestSmokeTheWholeConsole: every byte that the guest prints is there, to the last.
func TestSmokeTheWholeConsole(t *testing.T) {
	wholeConsole(t)
}

// TestSoakTheWholeConsole is that for the time of SOAK, at least once.
func TestSoakTheWholeConsole(t *testing.T) {
	length, err := time.ParseDuration(os.Getenv("SOAK"))
	if err != nil {
		t.Skip("make soak runs this")
	}
	n := 0
	for end := time.Now().Add(length); n == 0 || time.Now().Before(end); n++ {
		wholeConsole(t)
	}
	t.Logf("the console was complete to its last byte %d times of %[1]d", n)
}

func wholeConsole(t *testing.T) {
	t.Helper()
	const lines = 500
	out := filepath.Join(t.TempDir(), "out")
	r, results := smoke(t, machine(t, "lines", "-a", fmt.Sprintf("quiet husk.count=%d", lines), "--out", out)...)
	r.wantCode(t, 0)
	b, err := os.ReadFile(filepath.Join(results.Cases[0].Attempts[0].Dir, "console.log"))
	require.NoError(t, err)
	for i := 1; i <= lines; i++ {
		require.Contains(t, string(b), fmt.Sprintf("line %d of %d ", i, lines))
	}
}
