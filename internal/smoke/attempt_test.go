package smoke

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/huskvm/husk/internal/smoke/process"
	"github.com/huskvm/husk/internal/smoke/result"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A fakeMachine's guest is a function; what it prints is on the console at once. When
// it is closed, it says a last word.
type fakeMachine struct {
	events chan process.Event
	typed  chan string
	button chan struct{}
	closed chan struct{} // by Close
	told   chan struct{} // closed when all events are taken
	ended  bool
	deaf   atomic.Bool
	once   sync.Once
	start  time.Time
}

const lastWord = "the last word"

func (m *fakeMachine) Events() <-chan process.Event { return m.events }

func (m *fakeMachine) Send(p []byte) error {
	if m.deaf.Load() {
		return errors.New("a full socket")
	}
	m.typed <- string(p)
	return nil
}

func (m *fakeMachine) PowerButton() error { close(m.button); return nil }

func (m *fakeMachine) Dump() error {
	m.tell(process.Event{Dump: &process.Dump{VCPUs: []result.VCPU{{RIP: 0x1234, Symbol: "spin+0x1/0x2"}}, Error: "no more symbols"}})
	return nil
}

func (m *fakeMachine) Close() error {
	m.once.Do(func() { close(m.closed) })
	<-m.told
	return nil
}

func (m *fakeMachine) tell(e process.Event) {
	e.At = time.Since(m.start)
	m.events <- e
}

func (m *fakeMachine) print(text string) { m.tell(process.Event{Console: []byte(text)}) }

func (m *fakeMachine) end(e process.End) {
	m.ended = true
	m.tell(process.Event{End: &e})
}

func (m *fakeMachine) endBy(outcome string) {
	m.end(process.End{Guest: &result.Guest{Outcome: outcome}})
}

// launches starts machines whose guests are the function, one boot after the other.
func launches(guest func(m *fakeMachine, boot int)) Launch {
	boots := 0
	return func([]string, int, []string, string) (Machine, error) {
		boots++
		boot := boots
		m := &fakeMachine{
			events: make(chan process.Event, 64), typed: make(chan string, 8), button: make(chan struct{}),
			closed: make(chan struct{}), told: make(chan struct{}), start: time.Now(),
		}
		go func() {
			defer close(m.told)
			defer close(m.events)
			m.tell(process.Event{Entered: true})
			guest(m, boot)
			if m.ended {
				return
			}
			<-m.closed
			m.print(lastWord)
			m.end(process.End{})
		}()
		return m, nil
	}
}

type silentProgress struct{}

func (silentProgress) CaseStarted(string)                         {}
func (silentProgress) StageReached(string, string, time.Duration) {}
func (silentProgress) CaseDone(*result.Case)                      {}

// run tries a case with a guest. Time passes only while everybody waits for it.
func run(t *testing.T, c Case, guest func(m *fakeMachine, boot int)) (r result.Case) {
	t.Helper()
	c.Name = "case"
	synctest.Test(t, func(t *testing.T) {
		runner := Runner{Launch: launches(guest), Progress: silentProgress{}}
		results, err := runner.Run(t.Context(), []Case{c})
		require.NoError(t, err)
		require.Len(t, results, 1)
		r = results[0]
	})
	return r
}

// attempted is the one attempt of a case.
func attempted(t *testing.T, c Case, guest func(m *fakeMachine)) result.Attempt {
	t.Helper()
	r := run(t, c, func(m *fakeMachine, _ int) { guest(m) })
	require.Len(t, r.Attempts, 1)
	require.Equal(t, r.Attempts[0].Verdict, r.Verdict)
	return r.Attempts[0]
}

const banner = "[    0.000000] Linux version 6.1.0\r\n[    0.000000] Kernel command line: console=ttyS0\r\n"

func TestSteps(t *testing.T) {
	c := Case{Steps: []Step{{Kind: Expect, Text: "login: "}, {Kind: Send, Text: "root\n"}, {Kind: Expect, Text: "/welcome (\\w+)/"}, {Kind: Sleep, For: time.Millisecond}, {Kind: PowerOff}}}
	a := attempted(t, c, func(m *fakeMachine) {
		m.print(banner)
		m.print("host lo")
		m.print("gin: ")
		m.print(<-m.typed + "welcome root\r\n")
		<-m.button
		m.print("off\r\n")
		m.endBy("power-off")
	})
	require.Equal(t, result.Pass, a.Verdict, a.Reason)
	require.Equal(t, "step 5", a.Stage)
	require.Len(t, a.Steps, 5)
	require.Equal(t, "power-off", a.Guest.Outcome)
	require.Equal(t, "off", a.Console[len(a.Console)-1].Text)
	require.Equal(t, "step 1", a.Phases[len(a.Phases)-5].Name)
}

func TestVerdicts(t *testing.T) {
	expect := []Step{{Kind: Expect, Text: "login:"}}
	trace := "[    1.000000] ------------[ cut here ]------------\r\n[    1.000000] WARNING: CPU: 0 PID: 1 at fs/x.c:12 f+0x1/0x2\r\n[    1.000001] Call Trace:\r\n[    1.000002]  g+0x1/0x2\r\n[    1.000003] ---[ end trace 0000000000000000 ]---\r\n"
	tests := []struct {
		name    string
		c       Case
		guest   func(m *fakeMachine)
		verdict result.Verdict
		reason  string
	}{
		{"no expectation, power-off", Case{}, func(m *fakeMachine) { m.print(banner); m.endBy("power-off") }, result.Pass, ""},
		{"no expectation, a panic later", Case{}, func(m *fakeMachine) {
			m.print(banner + "[    1.000000] Run /init as init process\r\n")
			time.Sleep(50 * time.Millisecond)
			m.print("[    1.000000] Kernel panic - not syncing: later\r\n")
			m.endBy("guest-panic")
		}, result.Detected, "panic: Kernel panic - not syncing: later"},
		{"no expectation, first process", Case{}, func(m *fakeMachine) { m.print(banner + "[    1.000000] Run /init as init process\r\n") }, result.Pass, ""},
		{"no expectation, exit code", Case{}, func(m *fakeMachine) { m.end(process.End{Guest: &result.Guest{Outcome: "debug-exit", Code: 3}}) }, result.Fail, "the guest ended with exit code 3 before the end of boot to the first process"},
		{"power-off too early", Case{Steps: expect}, func(m *fakeMachine) { m.endBy("power-off") }, result.Fail, "the guest powered off before the end of step 1 (expect login:)"},
		{"reboot", Case{Steps: expect}, func(m *fakeMachine) { m.endBy("reboot") }, result.Fail, "the guest rebooted before the end of step 1 (expect login:)"},
		{"reboot loop", Case{Steps: expect, Reboots: 2}, func(m *fakeMachine) { m.endBy("reboot") }, result.Detected, "reboot-loop: the guest rebooted 3 times"},
		{"reboot loop that is not looked for", Case{Steps: expect, Reboots: 2, NoDetect: []string{"reboot-loop"}}, func(m *fakeMachine) { m.endBy("reboot") }, result.Fail, "the guest rebooted before the end of step 1"},
		{"a panic that is expected", Case{Steps: []Step{{Kind: Expect, Text: "sysrq triggered crash"}}, NoDetect: []string{"panic"}}, func(m *fakeMachine) {
			m.print("[    1.000000] Kernel panic - not syncing: sysrq triggered crash\r\n")
			time.Sleep(10 * time.Millisecond)
			m.endBy("guest-panic")
		}, result.Pass, ""},
		{"a panic that is not what was expected", Case{Steps: expect, Allow: []string{"panic=sysrq"}}, func(m *fakeMachine) {
			m.print("[    1.000000] Kernel panic - not syncing: sysrq triggered crash\r\n")
			m.endBy("guest-panic")
		}, result.Fail, "the guest's kernel panicked before the end of step 1"},
		{"a triple fault that is not looked for", Case{Steps: expect, NoDetect: []string{"triple-fault"}}, func(m *fakeMachine) { m.endBy("triple-fault") }, result.Fail, "the guest took a triple fault before"},
		{"a machine that does not listen", Case{Steps: []Step{{Kind: Expect, Text: "ready"}, {Kind: Send, Text: "x"}}}, func(m *fakeMachine) { m.deaf.Store(true); m.print("ready") }, result.VMM, "does not answer"},
		{"silence to the end of the time", Case{Steps: expect, Timeout: 30 * time.Second}, func(m *fakeMachine) { m.print(banner) }, result.Hang, "not done after 30s, and no output for the last 30s"},
		{"panic without a word", Case{Steps: expect}, func(m *fakeMachine) { m.endBy("guest-panic") }, result.Detected, "panic: the kernel has said so by pvpanic"},
		{"panic", Case{Steps: expect}, func(m *fakeMachine) {
			m.print("[    1.000000] Kernel panic - not syncing: sysrq triggered crash\r\n[    1.000001] CPU: 0 PID: 1\r\n")
			m.endBy("guest-panic")
		}, result.Detected, "panic: Kernel panic - not syncing: sysrq triggered crash"},
		{"triple fault", Case{Steps: expect}, func(m *fakeMachine) { m.endBy("triple-fault") }, result.VMM, "triple-fault"},
		{"triple fault after the last step", Case{Steps: []Step{{Kind: Expect, Text: "login:"}}}, func(m *fakeMachine) { m.print("login:"); <-m.closed; m.endBy("triple-fault") }, result.VMM, "triple-fault"},
		{"husk fails", Case{Steps: expect}, func(m *fakeMachine) { m.end(process.End{Error: "out of memory"}) }, result.VMM, "out of memory"},
		{"husk cannot start", Case{Steps: expect}, func(m *fakeMachine) { m.end(process.End{Error: "no KVM", Unstarted: true}) }, result.Infrastructure, "no KVM"},
		{"silence", Case{Steps: expect, NoOutput: 50 * time.Millisecond}, func(m *fakeMachine) { m.print(banner) }, result.Hang, "no output for 50ms, in step 1 (expect login:)"},
		{"time", Case{Steps: expect, Timeout: 100 * time.Millisecond}, func(m *fakeMachine) { talk(m) }, result.Timeout, "not done after 100ms, in step 1 (expect login:)"},
		{"a step's time", Case{Steps: []Step{{Kind: Expect, Text: "login:", Timeout: 50 * time.Millisecond}}}, func(m *fakeMachine) { talk(m) }, result.Fail, "step 1 (expect login:): it was not done within 50ms"},
		{"not expected", Case{Steps: expect, ExpectNot: []string{"/seg.*fault/"}}, func(m *fakeMachine) { m.print("x: seg"); m.print("mentation fault\r\n") }, result.Fail, "/seg.*fault/ came on the console, which must not"},
		{"not expected, when husk ends it", Case{Steps: []Step{{Kind: Sleep, For: time.Second}}, ExpectNot: []string{"last word"}}, func(*fakeMachine) {}, result.Fail, "last word came on the console"},
		{"not expected, at the end", Case{Steps: []Step{{Kind: PowerOff}}, ExpectNot: []string{"bad"}}, func(m *fakeMachine) { <-m.button; m.print("bad"); m.endBy("power-off") }, result.Fail, "bad came on the console"},
		{"warning", Case{Steps: expect}, func(m *fakeMachine) { m.print(trace) }, result.Detected, "warning: WARNING: CPU: 0 PID: 1 at fs/x.c:12 f+0x1/0x2"},
		{"warning that is allowed", Case{Steps: expect, Allow: []string{`warning=/fs\/x\.c/`}}, func(m *fakeMachine) { m.print(trace + "login:") }, result.Pass, ""},
		{"warning that its trace allows", Case{Steps: expect, Allow: []string{"warning=g+0x1"}}, func(m *fakeMachine) {
			for _, line := range strings.SplitAfter(trace, "\n") {
				m.print(line)
				time.Sleep(10 * time.Millisecond)
			}
			m.print("login:")
		}, result.Pass, ""},
		{"warning that is not looked for", Case{Steps: expect, NoDetect: []string{"warning"}}, func(m *fakeMachine) { m.print(trace + "login:") }, result.Pass, ""},
		{"exit code", Case{Steps: []Step{{Kind: Exit, Code: 3}}}, func(m *fakeMachine) { m.end(process.End{Guest: &result.Guest{Outcome: "debug-exit", Code: 3}}) }, result.Pass, ""},
		{"another exit code", Case{Steps: []Step{{Kind: Exit, Code: 3}}}, func(m *fakeMachine) { m.end(process.End{Guest: &result.Guest{Outcome: "debug-exit", Code: 4}}) }, result.Fail, "step 1 (exit 3): the guest's exit code is 4"},
		{"slow boot", Case{MaxBoot: 500 * time.Millisecond}, func(m *fakeMachine) {
			m.print(banner)
			time.Sleep(700 * time.Millisecond)
			m.print("[    1.000000] Run /init as init process\r\n")
		}, result.Fail, "the boot took 700ms, more than --max-boot 500ms"},
		{"tests in the guest", Case{Steps: []Step{{Kind: Expect, Text: "done"}}}, func(m *fakeMachine) { m.print("TAP version 13\r\n1..2\r\nok 1 a\r\nnot ok 2 b\r\ndone\r\n") }, result.Fail, "1 of 2 tests in the guest failed: b"},
		{"tests in the guest that were cut off", Case{Steps: []Step{{Kind: Expect, Text: "ok 1 a"}}}, func(m *fakeMachine) { m.print("TAP version 13\r\n1..2\r\nok 1 a\r\n") }, result.Pass, ""},
		{"little output time", Case{NoOutput: 3 * time.Second}, func(m *fakeMachine) { m.print(banner + "[    1.000000] Run /init as init process\r\nhello\r\n") }, result.Pass, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.c.Retries = 0
			a := attempted(t, tt.c, tt.guest)
			require.Equal(t, tt.verdict, a.Verdict, a.Reason)
			require.Contains(t, a.Reason, tt.reason)
			if tt.verdict == result.Hang || tt.verdict == result.Timeout {
				require.Equal(t, "spin+0x1/0x2", a.VCPUs[0].Symbol)
				require.Equal(t, "no more symbols", a.Unnamed)
			}
			if tt.name == "warning" {
				require.Len(t, a.Findings, 1)
				require.Len(t, a.Findings[0].Trace, 5)
			}
		})
	}
}

// talk prints for ever.
func talk(m *fakeMachine) {
	for {
		select {
		case <-time.After(5 * time.Millisecond):
			m.print("still here\r\n")
		case <-m.closed:
			return
		}
	}
}

// TestSilenceIsRightWhileASleepIs: the no-output time is for a guest that should talk.
func TestSilenceIsRightWhileASleepIs(t *testing.T) {
	a := attempted(t, Case{NoOutput: 30 * time.Millisecond, Steps: []Step{{Kind: Sleep, For: 200 * time.Millisecond}}}, func(*fakeMachine) {})
	require.Equal(t, result.Pass, a.Verdict, a.Reason)
}

// TestAWholeTrace: a case ends when what was found is there as a whole.
func TestAWholeTrace(t *testing.T) {
	a := attempted(t, Case{Steps: []Step{{Kind: Expect, Text: "never"}}}, func(m *fakeMachine) {
		m.print("[    1.000000] ------------[ cut here ]------------\r\n[    1.000000] kernel BUG at mm/x.c:3!\r\n")
		for range 5 {
			time.Sleep(20 * time.Millisecond)
			m.print("[    1.000000]  f+0x1/0x2\r\n")
		}
		m.print("[    1.000001] ---[ end trace 0000000000000000 ]---\r\n")
	})
	require.Equal(t, result.Detected, a.Verdict)
	require.Contains(t, strings.Join(a.Findings[0].Trace, "\n"), "end trace")
}

func TestRetries(t *testing.T) {
	starts := func(m *fakeMachine, boot int) {
		if boot < 3 {
			m.end(process.End{Error: "busy", Unstarted: true})
			return
		}
		m.endBy("power-off")
	}
	r := run(t, Case{Retries: 2}, starts)
	require.Equal(t, result.Pass, r.Verdict)
	require.True(t, r.Flaky)
	require.Len(t, r.Attempts, 3)
	require.Equal(t, result.Infrastructure, r.Attempts[0].Verdict)

	r = run(t, Case{Retries: 1}, starts)
	require.Equal(t, result.Infrastructure, r.Verdict)
	require.Len(t, r.Attempts, 2)

	fails := func(m *fakeMachine, _ int) { m.endBy("reboot") }
	r = run(t, Case{Retries: 2}, fails)
	require.Len(t, r.Attempts, 1, "a kernel's failure is no reason to try again")
	r = run(t, Case{Retries: 2, RetryOn: []string{"fail"}}, fails)
	require.Len(t, r.Attempts, 3)
	require.False(t, r.Flaky)
}

func TestAnInterruption(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	r := Runner{Jobs: 1, Progress: silentProgress{}, Launch: launches(func(m *fakeMachine, _ int) {
		m.print(banner)
		cancel(errors.New("enough"))
	})}
	results, err := r.Run(ctx, []Case{{Name: "a", Steps: []Step{{Kind: Expect, Text: "never"}}}, {Name: "b"}})
	require.NoError(t, err)
	require.Equal(t, result.Skipped, results[0].Verdict)
	require.Len(t, results[0].Attempts, 1)
	for _, s := range results[0].Attempts[0].Steps {
		require.Equal(t, result.Skipped, s.Verdict)
	}
	require.Equal(t, result.Skipped, results[1].Verdict)
	require.Empty(t, results[1].Attempts)
}

// TestKeep: the files of attempts are where they were asked for, and nothing else is left.
func TestKeep(t *testing.T) {
	dir, tmp := t.TempDir(), t.TempDir()
	t.Setenv("TMPDIR", tmp)
	r := Runner{Keep: dir, Progress: silentProgress{}, Launch: launches(func(m *fakeMachine, _ int) {
		m.print(banner + "\x1b[1mhello\x1b[0m\r\n")
		m.endBy("power-off")
	})}
	results, err := r.Run(t.Context(), []Case{{Name: "a/b [cpus=1]"}})
	require.NoError(t, err)
	kept := results[0].Attempts[0].Dir
	require.Equal(t, dir+"/1-a_b__cpus=1_", kept)
	raw, err := os.ReadFile(kept + "/console.log")
	require.NoError(t, err)
	require.Equal(t, banner+"\x1b[1mhello\x1b[0m\r\n", string(raw))
	stamped, err := os.ReadFile(kept + "/console-stamped.log")
	require.NoError(t, err)
	require.Regexp(t, `(?s)^ +0\.\d{6}  \[ +0\.000000\] Linux version 6\.1\.0\n[^\n]*console=ttyS0\n +0\.\d{6}  hello\n$`, string(stamped))
	left, err := os.ReadDir(tmp)
	require.NoError(t, err)
	require.Empty(t, left)
}

// TestRoom: no more machines at a time than there is room for, and a big one alone.
func TestRoom(t *testing.T) {
	r := newRoom(2)
	r.memory = 1 << 30
	one, err := r.admit(t.Context(), needs{memory: 400 << 20, cpus: 1})
	require.NoError(t, err)
	two, err := r.admit(t.Context(), needs{memory: 400 << 20, cpus: 1})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err = r.admit(ctx, needs{memory: 1 << 20, cpus: 1})
	require.Error(t, err, "two are enough")
	one()
	ctx, cancel = context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err = r.admit(ctx, needs{memory: 900 << 20, cpus: 1})
	require.Error(t, err, "the memory does not do")
	two()
	three, err := r.admit(t.Context(), needs{memory: 64 << 30, cpus: 1})
	require.NoError(t, err, "it is alone")
	three()
	require.Zero(t, r.used.memory)
}
