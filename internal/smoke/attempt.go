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
	// Events are what it tells, up to its End; then the channel is closed. They are to be
	// taken until then.
	Events() <-chan process.Event
	Send(p []byte) error
	PowerButton() error
	Dump() error  // the answer is an event
	Close() error // ends it, and returns when it has said all
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
	seen     *console.Transcript
	cursor   *console.Cursor
	outer    context.Context // ends by an interruption alone
	end      context.CancelCauseFunc
	dumps    chan *process.Dump
	ended    chan struct{} // closed when the machine has ended, and ending is set
	ending   *process.End  // how
	progress chan struct{} // signalled when something has come
	found    chan struct{} // signalled when detectors have findings

	mu       sync.Mutex    // for what the pump writes and others read meanwhile
	last     time.Time     // when the guest was heard last
	quiet    int           // steps at work for which silence is right
	entered  time.Duration // when the processors first ran in this boot; negative before
	never    string        // the pattern that came though it must not
	detector *detect.Detector
	stages   *stage.Tracker
	tap      *ktap.Parser
	passed   int // steps done
	steps    []result.Step
	phases   []result.Phase // steps done, as phases
}

// try makes one attempt at a case, with dir for its files, and the console in some of
// them if that is to be kept. An error is one of those, and no verdict on the case.
func try(ctx context.Context, c *Case, launch Launch, dir string, keep bool, onStep func(string, time.Duration)) (result.Attempt, error) {
	a := &attempt{
		c: c, dir: dir, onStep: onStep, entered: -1, last: time.Now(), outer: ctx,
		seen: console.New(), dumps: make(chan *process.Dump, 1), ended: make(chan struct{}),
		progress: make(chan struct{}, 1), found: make(chan struct{}, 1),
		stages: stage.New(), tap: &ktap.Parser{},
	}
	var raw *os.File
	var failed error
	if keep {
		if raw, failed = os.Create(filepath.Join(dir, consoleFile)); failed == nil {
			a.seen.Tee(raw)
		}
	}
	started := time.Now()
	r := a.run(ctx, launch)
	r.Started, r.Duration = started, time.Since(started)
	a.fill(&r)
	if raw != nil {
		failed = errors.Join(a.seen.Err(), raw.Close(), a.writeStamped())
	}
	return r, failed
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
	more := ""
	var flags []string
	if a.c.runs() {
		if a.guest, err = openGuest(a.c, a.dir); err != nil {
			return infrastructure(err)
		}
		defer a.guest.close()
		more, flags = firstProcess, a.guest.flags
	}
	ctx, cancel := context.WithTimeoutCause(ctx, a.c.Timeout, errTimeout)
	defer cancel()
	ctx, a.end = context.WithCancelCause(ctx)
	defer a.end(nil)

	a.cursor = a.seen.Cursor()
	a.listen()
	a.launched = time.Now()
	if a.machine, err = launch(append(a.c.BootFlags(more), flags...), a.c.Reboots, a.c.Symbols, filepath.Join(a.dir, huskFile)); err != nil {
		return infrastructure(err)
	}
	var pumping, watching sync.WaitGroup
	pumping.Go(a.pump)
	watching.Go(func() { a.watch(ctx) })

	failed := a.takeSteps(ctx)
	a.awaitTrace()
	r := a.judge(ctx, failed)
	if r.VCPUs == nil && (r.Verdict == result.Hang || r.Verdict == result.Timeout || failed != nil && errors.Is(failed, errDeadline)) {
		r.VCPUs, r.Unnamed = a.dump()
	}
	a.end(nil)
	watching.Wait()
	ours := a.theEnd() == nil
	_ = a.machine.Close() // the pump takes what comes until then
	pumping.Wait()
	return a.lastLook(r, ours)
}

// The files of an attempt.
const (
	consoleFile = "console.log"         // every byte, as it came
	stampedFile = "console-stamped.log" // line by line, each behind the host's time
	huskFile    = "husk.log"            // what husk had to say
)

// writeStamped writes the console with the times of its lines.
func (a *attempt) writeStamped() error {
	var stamped strings.Builder
	for _, l := range a.seen.Lines() {
		stamped.WriteString(l.String() + "\n")
	}
	return os.WriteFile(filepath.Join(a.dir, stampedFile), []byte(stamped.String()), 0o644)
}
