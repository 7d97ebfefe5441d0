package report

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/internal/smoke/result"
)

var update = flag.Bool("update", false, "write the golden files instead of comparing with them")

// golden compares with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(got), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), got, "%s; -update writes it anew", path)
}

// began is when the sample's run began.
var began = time.Date(2026, 3, 14, 15, 9, 26, 535897000, time.UTC)

// onConsole makes lines of a console: with the kernel's stamps.
func onConsole(lines ...string) []result.Line {
	var out []result.Line
	for i, text := range lines {
		at := time.Duration(i+1) * 1234567 * time.Nanosecond
		out = append(out, result.Line{Start: 300*time.Millisecond + at, End: 300*time.Millisecond + at, Kernel: at, Text: text})
	}
	return out
}

func machine() result.Machine {
	return result.Machine{Kernel: "bzImage", Initrds: []string{"initrd.img"}, Append: "console=ttyS0 panic=-1", CPUs: 2, Memory: 512 << 20}
}

// sample is a run with a case of every kind, and with text that no format likes.
func sample() *result.Run {
	phases := []result.Phase{{Name: "entry", At: time.Millisecond}, {Name: "init", At: 800 * time.Millisecond}}
	passed := result.Attempt{
		Verdict: result.Pass, Stage: "step 2", Started: began, Duration: 1240 * time.Millisecond, Phases: phases,
		Steps: []result.Step{
			{Name: "expect /login:/", Verdict: result.Pass, Start: 800 * time.Millisecond, Duration: 240 * time.Millisecond},
			{Name: "poweroff", Verdict: result.Pass, Start: 1040 * time.Millisecond, Duration: 200 * time.Millisecond},
		},
		Guest:   &result.Guest{Outcome: "power-off"},
		Console: onConsole("Linux version 6.1.0", "Run /init as init process", "debian login:"),
		Dir:     "/tmp/husk-smoke/1",
	}
	flaky := passed
	lost := result.Attempt{
		Verdict: result.Infrastructure, Reason: "open /dev/kvm: device or resource busy", Started: began,
		Duration: 3 * time.Millisecond,
	}

	run := &result.Run{
		Schema: result.Schema, Husk: "v0.9.0", Host: "builder", Accel: "kvm", Started: began, Duration: 64100 * time.Millisecond,
		Cases: []result.Case{
			{Name: "plain/cpus=2", Machine: machine(), Verdict: result.Pass, Attempts: []result.Attempt{passed}, Reproduce: "husk smoke --case plain/cpus=2 boot.yaml"},
			{Name: "retried", Machine: machine(), Verdict: result.Pass, Flaky: true, Attempts: []result.Attempt{lost, flaky}, Reproduce: "husk smoke -k bzImage"},
			detected(), hung(), tested(), mistyped(),
			{
				Name: "no kvm", Machine: result.Machine{Kernel: "missing", CPUs: 1, Memory: 1 << 30}, Verdict: result.Infrastructure,
				Attempts: []result.Attempt{lost, {
					Verdict: result.Infrastructure, Reason: "kernel missing: no such file", Started: began, Duration: 2 * time.Millisecond,
				}},
				Reproduce: "husk smoke -k missing", File: "boot.yaml", Line: 31,
			},
			{Name: "broken", Machine: machine(), Verdict: result.VMM, Attempts: []result.Attempt{{
				Verdict: result.VMM, Reason: "triple fault", Stage: "entry", Started: began, Duration: 21 * time.Millisecond,
				VCPUs: []result.VCPU{{CPU: 0, RIP: 0x1000200, Registers: "RAX=0000000000000000 RBX=0000000000000000\nCR3=0000000000001000"}},
			}}, Reproduce: "husk smoke -k broken"},
			{Name: "not begun", Machine: machine(), Verdict: result.Skipped, Reproduce: "husk smoke -k bzImage"},
		},
	}
	return run
}

// detected is a panic with text to be escaped.
func detected() result.Case {
	trace := []string{
		"Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100",
		"CPU: 1 PID: 1 Comm: init Not tainted 6.1.0 #1",
		"Call Trace:", " <TASK>", " dump_stack_lvl+0x48/0x5d", " panic+0x10a/0x2f0", " </TASK>",
	}
	return result.Case{
		Name: "init | <exits> #1", Machine: machine(), Verdict: result.Detected, File: "ci/boot,all.yaml", Line: 12,
		Attempts: []result.Attempt{{
			Verdict: result.Detected, Reason: "kernel panic: Attempted to kill init! exitcode=0x00000100", Stage: "init",
			Started: began, Duration: 3200 * time.Millisecond, Guest: &result.Guest{Outcome: "panic", Detail: "by pvpanic"},
			Steps: []result.Step{
				{Name: "expect `login: *`", Verdict: result.Skipped, Reason: "the case ended before it"},
			},
			Findings: []result.Finding{{Kind: "panic", At: 2900 * time.Millisecond, Summary: trace[0], Trace: trace}},
			Console:  onConsole(append([]string{"Run /init as init process", "bell \a, escape \x1b[31m, latin-1 \xe9, ]]> & <b>, \ufffe \u202e"}, trace...)...),
			Dir:      "/tmp/husk-smoke/3",
		}},
		Reproduce: `husk smoke -k bzImage -a 'init=/bin/false "x" | y'`,
	}
}

// hung stopped to say anything, after more lines than are told.
func hung() result.Case {
	var lines []string
	for i := range 40 {
		lines = append(lines, fmt.Sprintf("pci 0000:00:%02x.0: enabled", i))
	}
	return result.Case{
		Name: "hangs", Machine: machine(), Verdict: result.Hang, Attempts: []result.Attempt{{
			Verdict: result.Hang, Reason: "no output for 30 s", Stage: "drivers", Started: began, Duration: 33*time.Second + 400*time.Millisecond,
			Steps: []result.Step{
				{Name: "expect /login:/", Verdict: result.Hang, Reason: "no output for 30 s", Start: time.Second, Duration: 32 * time.Second},
				{Name: "run uname -a", Verdict: result.Skipped},
			},
			Console: onConsole(lines...),
			VCPUs: []result.VCPU{
				{CPU: 0, RIP: 0xffffffff81c0ffee, Symbol: "native_halt+0xb/0x10", Backtrace: []string{"default_idle+0x5/0x20", "do_idle+0x1f2/0x2a0"}, Registers: "RAX=0000000000000001 RBX=ffff888003a00000"},
				{CPU: 1, RIP: 0xffffffff81012345, Symbol: "delay_tsc+0x33/0x60", Registers: "RAX=00000000deadbeef RBX=0000000000000000"},
			},
		}}, Reproduce: "husk smoke -k bzImage",
	}
}

// tested is a guest that reports tests.
func tested() result.Case {
	return result.Case{
		Name: "kunit", Machine: machine(), Verdict: result.Fail, Attempts: []result.Attempt{{
			Verdict: result.Fail, Reason: "1 of 5 tests of the guest failed", Stage: "step 1", Started: began, Duration: 9*time.Second + 996*time.Millisecond,
			Steps: []result.Step{{Name: "expect /ok 1 example/", Verdict: result.Pass, Duration: 9 * time.Second}},
			Subtests: []result.Subtest{
				{Name: "example.simple", OK: true, At: time.Second, Duration: 120 * time.Microsecond},
				{Name: "example.broken #2", Detail: "EXPECTATION FAILED at lib/example.c:30\n    1 + 1 == 2\n    3 == 3", At: 2 * time.Second, Duration: time.Second},
				{Name: "example.skipped", OK: true, Skip: true, Detail: "needs <numa>"},
				{Name: "example.known", Todo: true, Detail: "fix it"},
				{Name: "example.known by now", OK: true, Todo: true},
			},
			Problems: []string{"example: planned 6, saw 5"},
			Console:  onConsole("KTAP version 1", "1..1"),
		}}, Reproduce: "husk smoke -k bzImage kunit",
	}
}

// mistyped is a command that failed in the guest.
func mistyped() result.Case {
	return result.Case{
		Name: "command", Machine: machine(), Verdict: result.Fail, Attempts: []result.Attempt{{
			Verdict: result.Fail, Reason: "run false: exit code 3, wanted 0", Stage: "step 1", Started: began, Duration: 2 * time.Second,
			Steps: []result.Step{
				{
					Name: "run sh -c 'echo hi; exit 3'", Verdict: result.Fail, Reason: "exit code 3, wanted 0", Duration: 50 * time.Millisecond,
					Command: &result.Command{Argv: []string{"sh", "-c", "echo hi; exit 3"}, Code: 3, Stdout: "hi\n", Stderr: "\x1b[1moops\n"},
				},
				{Name: "expect /never/", Verdict: result.Skipped, Reason: "a step before it failed"},
			},
			Console: onConsole("Run /init as init process"),
		}}, Reproduce: "husk smoke -k bzImage",
	}
}
