package smoke

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/huskvm/husk/internal/smoke/console"
	"github.com/huskvm/husk/internal/smoke/detect"
	"github.com/huskvm/husk/internal/smoke/ktap"
	"github.com/huskvm/husk/internal/smoke/process"
	"github.com/huskvm/husk/internal/smoke/result"
	"github.com/huskvm/husk/internal/smoke/stage"
)

// A Machine is a running machine, as an attempt sees it; *process.Machine is one.
type Machine interface {
	// Events are what it tells, up to its End; then the channel is closed.
	Events() <-chan process.Event
	Send(p []byte) error
	PowerButton() error
	Dump() error // the answer is an event
	Close() error
}

// A Launch starts a machine by flags of husk boot. log is the file for what it says on
// standard error.
type Launch func(flags []string, reboots int, symbols []string, log string) (Machine, error)

// The causes for which an attempt is ended from outside.
var (
	errTimeout  = errors.New("the time is up")
	errSilent   = errors.New("no output")
	errDetected = errors.New("a detector has found something")
	errNever    = errors.New("something came that must not")
)

// An attempt is one boot of a case.
type attempt struct {
	c      *Case
	script *script
	dir    string
	onStep func(stage string, at time.Duration)

	machine  Machine
	guest    *guest // for run steps, else nil
	launched time.Time
	entered  time.Duration // when the processors first ran; negative before
	seen     *console.Transcript
	cursor   *console.Cursor
	end      context.CancelCauseFunc
	dumps    chan *process.Dump
	ended    chan struct{} // closed when the machine has ended, and ending is set
	ending   *process.End  // how
	progress chan struct{} // signalled when the guest has reached something
	found    chan struct{} // closed when a detector has found something
	busy     chan bool     // steps tell the watchdog that silence is right
	never    string        // the pattern that came though it must not

	mu       sync.Mutex // for what the pump writes and others read meanwhile
	last     time.Time  // when the guest was heard last
	detector *detect.Detector
	stages   *stage.Tracker
	tap      *ktap.Parser
	passed   int // steps done
	steps    []result.Step
	phases   []result.Phase // steps done, as phases
}

// try makes one attempt at a case, with dir for its files.
func try(ctx context.Context, c *Case, launch Launch, dir string, onStep func(string, time.Duration)) result.Attempt {
	a := &attempt{
		c: c, dir: dir, onStep: onStep, entered: -1, last: time.Now(),
		seen: console.New(), dumps: make(chan *process.Dump, 1), ended: make(chan struct{}),
		progress: make(chan struct{}, 1), found: make(chan struct{}), busy: make(chan bool, 1),
		stages: stage.New(), tap: &ktap.Parser{},
	}
	started := time.Now()
	r := a.run(ctx, launch)
	r.Started, r.Duration = started, time.Since(started)
	a.fill(&r)
	return r
}

// run is the attempt from its start to its verdict.
func (a *attempt) run(ctx context.Context, launch Launch) result.Attempt {
	infrastructure := func(err error) result.Attempt {
		return result.Attempt{Verdict: result.Infrastructure, Reason: err.Error()}
	}
	var err error
	if a.script, err = a.c.compile(); err != nil {
		return infrastructure(err)
	}
	if a.detector, err = detect.New(a.script.detect); err != nil {
		return infrastructure(err)
	}
	if a.c.runs() {
		if a.guest, err = openGuest(a.c, a.dir); err != nil {
			return infrastructure(err)
		}
		defer a.guest.close()
	}
	ctx, cancel := context.WithTimeoutCause(ctx, a.c.Timeout, errTimeout)
	defer cancel()
	ctx, a.end = context.WithCancelCause(ctx)
	defer a.end(nil)

	flags := a.c.BootFlags("")
	if a.guest != nil {
		flags = append(a.c.BootFlags(firstProcess), a.guest.flags...)
	}
	a.cursor = a.seen.Cursor()
	a.listen()
	a.launched = time.Now()
	if a.machine, err = launch(flags, a.c.Reboots, a.c.Symbols, filepath.Join(a.dir, huskFile)); err != nil {
		return infrastructure(err)
	}
	var pumping, watching sync.WaitGroup
	pumping.Go(a.pump)
	watching.Go(func() { a.watch(ctx) })

	failed := a.takeSteps(ctx)
	a.awaitTrace(ctx)
	r := a.judge(ctx, failed)
	if r.VCPUs == nil && (r.Verdict == result.Hang || r.Verdict == result.Timeout || failed != nil && errors.Is(failed, errDeadline)) {
		r.VCPUs = a.dump()
	}
	a.end(nil)
	watching.Wait()
	_ = a.machine.Close()
	pumping.Wait()
	if err := a.writeConsole(); err != nil {
		return infrastructure(err)
	}
	return a.lastLook(r)
}

// listen has what comes on the console looked at, line by line and as a whole. It is
// called before the machine starts.
func (a *attempt) listen() {
	a.seen.Watch(func(l console.Line) {
		a.mu.Lock()
		defer a.mu.Unlock()
		before := a.stages.Reached()
		a.stages.Line(l)
		a.detector.Line(l)
		a.tap.Line(l)
		if now := a.stages.Reached(); now != before && a.passed == 0 {
			a.onStep(string(now), l.Start)
		}
	})
	for i, p := range a.script.never {
		a.seen.WatchFor(p, func(console.Match) {
			a.mu.Lock()
			defer a.mu.Unlock()
			if a.never == "" {
				a.never = a.c.ExpectNot[i]
				a.end(errNever)
			}
		})
	}
}

// pump takes the machine's events, up to its end.
func (a *attempt) pump() {
	detected := false
	for e := range a.machine.Events() {
		switch {
		case e.Console != nil:
			a.seen.Add(e.At, e.Console)
			a.heard()
			a.mu.Lock()
			if !detected && len(a.detector.Findings()) > 0 {
				detected = true
				close(a.found)
			}
			a.mu.Unlock()
			select {
			case a.progress <- struct{}{}:
			default:
			}
		case e.Entered:
			a.mu.Lock()
			if a.entered < 0 {
				a.entered = e.At
				a.stages.Entered(e.At)
			}
			a.mu.Unlock()
		case e.Dump != nil:
			select {
			case a.dumps <- e.Dump:
			default: // nobody has asked
			}
		case e.End != nil:
			a.ending = e.End
			a.seen.Close()
			close(a.ended)
		}
	}
}

// How long a trace may go on after what was found: until nothing of it has come for
// traceQuiet, and no longer than traceLimit.
const (
	traceQuiet = 2 * time.Second
	traceLimit = 20 * time.Second
)

// watch ends the attempt when the guest is silent for too long, or when a detector has
// found something and its trace is there.
func (a *attempt) watch(ctx context.Context) {
	silence := time.NewTimer(a.c.NoOutput)
	defer silence.Stop()
	quiet := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.ended:
			return
		case <-a.found:
			a.awaitTrace(ctx)
			a.end(errDetected)
			return
		case quiet = <-a.busy:
			a.heard()
		case <-silence.C:
			idle := a.idle()
			if idle >= a.c.NoOutput && !quiet {
				a.end(errSilent)
				return
			}
			silence.Reset(max(a.c.NoOutput-idle, time.Millisecond))
			if quiet {
				silence.Reset(a.c.NoOutput)
			}
		}
	}
}

// heard notes that the guest is not silent now.
func (a *attempt) heard() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.last = time.Now()
}

// idle is for how long the guest has been silent.
func (a *attempt) idle() time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	return time.Since(a.last)
}

// awaitTrace waits until what a detector has found is complete: its end has come, or
// nothing more does.
func (a *attempt) awaitTrace(ctx context.Context) {
	limit := time.After(traceLimit)
	for {
		a.mu.Lock()
		open := a.detector.Open()
		rest := traceQuiet - time.Since(a.last)
		a.mu.Unlock()
		if !open || rest <= 0 {
			return
		}
		select {
		case <-time.After(min(rest, traceQuiet/20)):
		case <-a.ended:
			return
		case <-limit:
			return
		case <-ctx.Done():
			return
		}
	}
}

// dumpTime is how long a machine has to say where its processors are. It reads the
// kernel's symbols for that, which takes long where the host is slow.
const dumpTime = time.Minute

// dump asks the machine where its processors are. Nil is that it does not say.
func (a *attempt) dump() []result.VCPU {
	select {
	case <-a.ended:
		return nil
	default:
	}
	if a.machine.Dump() != nil {
		return nil
	}
	select {
	case d := <-a.dumps:
		return d.VCPUs
	case <-a.ended:
	case <-time.After(dumpTime):
	}
	return nil
}

// The files of an attempt.
const (
	consoleFile = "console.log"         // every byte, as it came
	stampedFile = "console-stamped.log" // line by line, each behind the host's time
	huskFile    = "husk.log"            // what husk had to say
)

// writeConsole writes the console's files.
func (a *attempt) writeConsole() error {
	if err := os.WriteFile(filepath.Join(a.dir, consoleFile), a.seen.Raw(), 0o644); err != nil {
		return err
	}
	var stamped strings.Builder
	for _, l := range a.seen.Lines() {
		stamped.WriteString(l.String() + "\n")
	}
	return os.WriteFile(filepath.Join(a.dir, stampedFile), []byte(stamped.String()), 0o644)
}
