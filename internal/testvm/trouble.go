package testvm

import (
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/huskvm/husk/internal/smoke/console"
	"github.com/huskvm/husk/internal/smoke/detect"
	"github.com/huskvm/husk/internal/smoke/result"
	"github.com/huskvm/husk/vmm"
)

// A trouble watches the console for a kernel in trouble. A kernel that has panicked
// does not go on, and need not say so to the machine: without the pvpanic driver and
// with panic=0 it would be waited for in vain.
type trouble struct {
	end func(error) // ends the machine; nil to let it be

	mu       sync.Mutex
	detector *detect.Detector
	quiet    *time.Timer // runs while the last trace may still be coming
}

// traceQuiet is when a trace that has no end of its own is taken to be over.
const traceQuiet = 2 * time.Second

// errPanic is why a guest is ended whose kernel has panicked.
type errPanic string

func (e errPanic) Error() string { return string(e) }

func newTrouble(end func(error)) *trouble {
	d, err := detect.New(detect.Config{})
	if err != nil {
		panic(err) // it refuses a Config, and this one is none's
	}
	return &trouble{end: end, detector: d}
}

// line takes a line of the console.
func (w *trouble) line(l console.Line) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.detector.Line(l)
	if w.end == nil || !w.detector.Fatal() {
		return
	}
	switch {
	case !w.detector.Open():
		w.panicked()
	case w.quiet == nil:
		w.quiet = time.AfterFunc(traceQuiet, func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.panicked()
		})
	default:
		w.quiet.Reset(traceQuiet)
	}
}

// panicked ends the machine.
func (w *trouble) panicked() {
	reason := "the kernel has panicked"
	for _, f := range w.detector.Findings() {
		if strings.HasPrefix(f.Summary, "Kernel panic") {
			reason = f.Summary
		}
	}
	w.end(errPanic(reason))
}

// stop ends the watch.
func (w *trouble) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.quiet != nil {
		w.quiet.Stop()
	}
}

func (w *trouble) findings() []result.Finding {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.detector.Findings()
}

// blamed is the result of a machine that was ended because of a panic.
func blamed(r *vmm.Result, cause error) *vmm.Result {
	var p errPanic
	if errors.As(cause, &p) && r != nil && r.Outcome == vmm.Cancelled {
		return &vmm.Result{Outcome: vmm.GuestPanic, Detail: string(p)}
	}
	return r
}

// Findings are what the guest's kernel has reported of itself so far: panics, oopses,
// warnings and the like.
func (g *Guest) Findings() []result.Finding { return g.trouble.findings() }
