package smoke

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/huskvm/husk/internal/smoke/detect"
	"github.com/huskvm/husk/internal/smoke/process"
	"github.com/huskvm/husk/internal/smoke/result"
	"github.com/huskvm/husk/internal/smoke/stage"
	"github.com/huskvm/husk/vmm"
)

// theEnd is how the machine has ended; nil while it has not.
func (a *attempt) theEnd() *process.End {
	select {
	case <-a.ended:
		return a.ending
	default:
		return nil
	}
}

// endOfGuest is how the guest has ended by itself, "" if it has not.
func endOfGuest(end *process.End) vmm.Outcome {
	if end == nil || end.Guest == nil {
		return ""
	}
	return vmm.Outcome(end.Guest.Outcome)
}

// judge gives the verdict: what comes first is what the rest follows from. failed is
// the step that failed, if one did.
func (a *attempt) judge(ctx context.Context, failed *stepFailure) result.Attempt {
	verdict := func(v result.Verdict, format string, args ...any) result.Attempt {
		return result.Attempt{Verdict: v, Reason: fmt.Sprintf(format, args...)}
	}
	cause, end := context.Cause(ctx), a.theEnd()
	a.mu.Lock()
	findings, never, idle := a.detector.Findings(), a.never, time.Since(a.last)
	if a.quiet > 0 {
		idle = 0
	}
	a.mu.Unlock()
	outcome := endOfGuest(end)
	switch {
	case end != nil && end.Error != "" && end.Unstarted:
		return verdict(result.Infrastructure, "%s", end.Error)
	case outcome == vmm.InternalError:
		return crashed(end)
	case len(findings) > 0:
		return detected(findings, end)
	case end != nil && end.Error != "":
		return verdict(result.VMM, "%s", end.Error)
	case failed != nil && errors.Is(failed, errDeaf):
		return verdict(result.VMM, "%v", failed)
	case never != "":
		return verdict(result.Fail, "%s came on the console, which must not", quoteText(never))
	case errors.Is(cause, errSilent):
		return verdict(result.Hang, "no output for %v%s", a.c.NoOutput, during(failed))
	case errors.Is(cause, errTimeout) && idle >= a.c.Timeout/2:
		return verdict(result.Hang, "not done after %v, and no output for the last %v%s", a.c.Timeout, idle.Round(time.Second), during(failed))
	case errors.Is(cause, errTimeout):
		return verdict(result.Timeout, "not done after %v%s", a.c.Timeout, during(failed))
	case failed == nil:
		return result.Attempt{Verdict: result.Pass}
	case a.outer.Err() != nil:
		return verdict(result.Skipped, "interrupted%s", during(failed))
	case errors.Is(failed, errEnded):
		return verdict(result.Fail, "%s before the end of %s", whatEnded(end), failed.step())
	}
	return verdict(result.Fail, "%v", failed)
}

// detected is the verdict on what detectors have found: the first is the cause.
func detected(findings []result.Finding, end *process.End) result.Attempt {
	if findings[0].Kind == string(detect.TripleFault) {
		return crashed(end)
	}
	return result.Attempt{Verdict: result.Detected, Reason: findings[0].Kind + ": " + findings[0].Summary}
}

// crashed is the verdict on a machine whose processors could not go on.
func crashed(end *process.End) result.Attempt {
	reason := strings.TrimSuffix(end.Guest.Outcome+": "+end.Guest.Detail, ": ")
	return result.Attempt{Verdict: result.VMM, Reason: reason, VCPUs: end.VCPUs}
}

// during is in which step something happened.
func during(failed *stepFailure) string {
	if failed == nil {
		return ""
	}
	return ", in " + failed.step()
}

// whatEnded is how the guest ended, for people.
func whatEnded(end *process.End) string {
	switch endOfGuest(end) {
	case vmm.PowerOff:
		return "the guest powered off"
	case vmm.Reboot:
		return "the guest rebooted"
	case vmm.DebugExit:
		return fmt.Sprintf("the guest ended with exit code %d", end.Guest.Code)
	case vmm.GuestPanic:
		return "the guest's kernel panicked"
	case vmm.TripleFault:
		return "the guest took a triple fault"
	}
	return "the machine ended"
}

// lastLook looks at what must be right besides the steps, when all is on the console.
// ours tells that husk has ended the guest, which may have had more to say.
func (a *attempt) lastLook(r result.Attempt, ours bool) result.Attempt {
	if ours {
		a.tap.Cut()
	}
	if r.Verdict != result.Pass {
		return r
	}
	fail := func(format string, args ...any) result.Attempt {
		r.Verdict, r.Reason = result.Fail, fmt.Sprintf(format, args...)
		return r
	}
	if f := a.findings(); len(f) > 0 {
		return detected(f, a.ending)
	}
	if a.never != "" {
		return fail("%s came on the console, which must not", quoteText(a.never))
	}
	if problems := a.tap.Problems(); len(problems) > 0 {
		return fail("tests in the guest: %s", problems[0])
	}
	bad, first := 0, ""
	tests := a.tap.Subtests()
	for _, t := range tests {
		if t.Failed() {
			bad++
			first = cmp.Or(first, t.Name)
		}
	}
	if bad > 0 {
		return fail("%d of %d tests in the guest failed: %s%s", bad, len(tests), first, andMore(bad))
	}
	if a.c.MaxBoot > 0 {
		boot, ok := a.bootTime()
		if !ok {
			return fail("--max-boot %v: the guest's first process was not seen", a.c.MaxBoot)
		}
		if boot > a.c.MaxBoot {
			return fail("the boot took %v, more than --max-boot %v", boot.Round(time.Millisecond), a.c.MaxBoot)
		}
	}
	return r
}

func andMore(n int) string {
	if n == 1 {
		return ""
	}
	return " and others"
}

// bootTime is from the processors' start to the guest's first process.
func (a *attempt) bootTime() (time.Duration, bool) {
	for _, p := range a.stages.Phases() {
		if p.Name == string(stage.Init) && a.entered >= 0 {
			return p.At - a.entered, true
		}
	}
	return 0, false
}

// fill adds what is known whatever the verdict is.
func (a *attempt) fill(r *result.Attempt) {
	r.Findings = a.findings()
	a.mu.Lock()
	defer a.mu.Unlock()
	r.Stage = string(a.stages.Reached())
	if a.passed > 0 {
		r.Stage = fmt.Sprintf("step %d", a.passed)
	}
	r.Phases = append(a.stages.Phases(), a.phases...)
	r.Steps = a.steps
	if len(a.c.Steps) == 0 {
		r.Steps = nil
	}
	r.Subtests, r.Problems = a.tap.Subtests(), a.tap.Problems()
	r.Console = a.seen.Lines()
	if a.ending != nil {
		r.Guest = a.ending.Guest
	}
}

// findings are what the detectors have found by now.
func (a *attempt) findings() []result.Finding {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.detector == nil {
		return nil
	}
	return a.detector.Findings()
}
