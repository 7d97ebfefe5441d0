package smoke

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/huskvm/husk/internal/smoke/console"
	"github.com/huskvm/husk/internal/smoke/process"
	"github.com/huskvm/husk/internal/smoke/result"
	"github.com/huskvm/husk/internal/smoke/stage"
	"github.com/huskvm/husk/vmm"
)

// errEnded is that the machine ended before a step was done.
var errEnded = errors.New("the guest ended first")

// errDeaf is that a machine neither ends nor does what it is asked to.
var errDeaf = errors.New("husk's process for the machine does not answer")

// answerTime is how long a machine may take to tell how it has ended once something
// shows that it has: its disks are flushed before.
const answerTime = 30 * time.Second

// awaitEnding waits for the machine's end, which err is a sign of.
func (a *attempt) awaitEnding(err error) error {
	select {
	case <-a.ended:
		return errEnded
	case <-a.outer.Done():
		return context.Cause(a.outer)
	case <-time.After(answerTime):
		return err
	}
}

// errDeadline is that a step's own time was up.
var errDeadline = errors.New("the step's time is up")

// A stepFailure is the step that failed, and why.
type stepFailure struct {
	number int // from 1; 0 where the case has no steps
	name   string
	err    error
}

func (f *stepFailure) Error() string { return fmt.Sprintf("%s: %v", f.step(), f.err) }
func (f *stepFailure) Unwrap() error { return f.err }

// step names the step.
func (f *stepFailure) step() string {
	if f.number == 0 {
		return f.name
	}
	return fmt.Sprintf("step %d (%s)", f.number, f.name)
}

// silently is an error that is known, but adds no words.
type silently struct{ error }

func (silently) Error() string   { return "" }
func (s silently) Unwrap() error { return s.error }

// takeSteps takes the steps in their order, up to the first that fails, and returns its
// failure. A case without steps waits for the guest's first process.
func (a *attempt) takeSteps(ctx context.Context) *stepFailure {
	if len(a.c.Steps) == 0 {
		if err := a.takeStep(ctx, Step{Kind: untilInit}, 0); err != nil {
			return &stepFailure{0, string(untilInit), err}
		}
		return nil
	}
	for i, s := range a.c.Steps {
		if err := a.takeStep(ctx, s, i); err != nil {
			for _, rest := range a.c.Steps[i+1:] {
				a.steps = append(a.steps, result.Step{Name: rest.String(), Verdict: result.Skipped})
			}
			return &stepFailure{i + 1, s.String(), err}
		}
		a.mu.Lock()
		a.passed = i + 1
		phase := result.Phase{Name: fmt.Sprintf("step %d", i+1), At: a.steps[i].Start + a.steps[i].Duration}
		a.phases = append(a.phases, phase)
		a.mu.Unlock()
		a.onStep(phase.Name, phase.At)
	}
	return nil
}

// untilInit is the step of a case that has none.
const untilInit StepKind = "boot to the first process"

func (a *attempt) takeStep(ctx context.Context, s Step, i int) error {
	if s.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, s.Timeout, errDeadline)
		defer cancel()
	}
	r := result.Step{Name: s.String(), Start: a.now(), Verdict: result.Pass}
	err := a.do(ctx, s, i, &r)
	r.Duration = a.now() - r.Start
	if err != nil {
		if errors.Is(err, errDeadline) {
			err = fmt.Errorf("it was not done within %v%w", s.Timeout, silently{err})
		}
		r.Verdict, r.Reason = result.Fail, err.Error()
		if a.outer.Err() != nil {
			r.Verdict = result.Skipped
		}
	}
	a.steps = append(a.steps, r)
	return err
}

// now is the time since the machine's start, by this process's clock, which stamps no
// console but measures steps.
func (a *attempt) now() time.Duration { return time.Since(a.launched) }

func (a *attempt) do(ctx context.Context, s Step, i int, r *result.Step) error {
	switch s.Kind {
	case untilInit:
		return a.awaitInit(ctx)
	case Expect:
		_, err := a.cursor.Expect(ctx, a.script.expect[i])
		if errors.Is(err, console.ErrEnded) {
			<-a.ended // how, is about to be known
			return errEnded
		}
		return err
	case Send:
		if err := a.machine.Send([]byte(s.Text)); err != nil {
			return a.awaitEnding(fmt.Errorf("%w: %w", errDeaf, err))
		}
		return nil
	case Run:
		return a.runCommand(ctx, s, i, r)
	case Sleep:
		return a.sleep(ctx, s.For)
	case PowerOff:
		return a.powerOff(ctx)
	default: // Exit
		end, err := a.awaitEnd(ctx)
		switch {
		case err != nil:
			return err
		case end.Guest == nil || end.Guest.Outcome != string(vmm.DebugExit):
			return errEnded
		case end.Guest.Code != s.Code:
			return fmt.Errorf("the guest's exit code is %d", end.Guest.Code)
		}
		return nil
	}
}

// A guest without steps has booted when its first process runs and nothing more comes
// for settleQuiet, or longer where silence is expected to last; one that goes on
// printing, settleLimit later. A guest that hangs is silent for longer.
const (
	settleQuiet = 5 * time.Second
	settleLimit = 30 * time.Second
)

// settle is for how long a case's guest must be quiet.
func (c *Case) settle() time.Duration {
	return max(min(settleQuiet, c.NoOutput/2), c.NoOutput/(DefaultNoOutput/settleQuiet))
}

// awaitInit waits for the guest's first process, and then until the guest has settled,
// or for an end that is none of a failure.
func (a *attempt) awaitInit(ctx context.Context) error {
	var settled, limit <-chan time.Time
	for {
		a.mu.Lock()
		reached := a.stages.Reached()
		a.mu.Unlock()
		if reached == stage.Init {
			settled = time.After(a.c.settle())
			if limit == nil {
				limit = time.After(settleLimit)
			}
		}
		select {
		case <-a.progress:
		case <-settled:
			return nil
		case <-limit:
			return nil
		case <-a.ended:
			if g := a.ending.Guest; g != nil && (g.Outcome == string(vmm.PowerOff) || g.Outcome == string(vmm.DebugExit) && g.Code == 0) {
				return nil
			}
			return errEnded
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// sleep waits; the guest may be silent meanwhile.
func (a *attempt) sleep(ctx context.Context, d time.Duration) error {
	defer a.expectSilence()()
	select {
	case <-time.After(d):
		return nil
	case <-a.ended:
		return errEnded
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// powerOff has the guest power off and waits for that: by its agent where it has one
// that can, else by its power button.
func (a *attempt) powerOff(ctx context.Context) error {
	if a.guest == nil || !a.guest.powerOff(ctx, a.ended) {
		if err := a.machine.PowerButton(); err != nil {
			return a.awaitEnding(fmt.Errorf("%w: %w", errDeaf, err))
		}
	}
	end, err := a.awaitEnd(ctx)
	if err != nil {
		return err
	}
	if end.Guest == nil || end.Guest.Outcome != string(vmm.PowerOff) {
		return errEnded
	}
	return nil
}

func (a *attempt) awaitEnd(ctx context.Context) (*process.End, error) {
	select {
	case <-a.ended:
		return a.ending, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// runCommand runs a command in the guest.
func (a *attempt) runCommand(ctx context.Context, s Step, i int, r *result.Step) error {
	cmd, err := a.guest.run(ctx, s.Text, a.ended, a.expectSilence)
	r.Command = cmd
	switch {
	case err != nil && ctx.Err() != nil:
		return err
	case err != nil:
		return a.awaitEnding(err)
	case cmd.Code != s.Code:
		return fmt.Errorf("its exit code is %d, and not %d%s", cmd.Code, s.Code, said(cmd))
	case a.script.stdout[i] != nil && !a.script.stdout[i].In(cmd.Stdout):
		return fmt.Errorf("%s is not in its output%s", quoteText(s.Stdout), said(cmd))
	case a.script.stderr[i] != nil && !a.script.stderr[i].In(cmd.Stderr):
		return fmt.Errorf("%s is not in its error output%s", quoteText(s.Stderr), said(cmd))
	}
	return nil
}
