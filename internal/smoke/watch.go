package smoke

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/huskvm/husk/internal/smoke/console"
	"github.com/huskvm/husk/internal/smoke/detect"
	"github.com/huskvm/husk/internal/smoke/process"
	"github.com/huskvm/husk/internal/smoke/result"
	"github.com/huskvm/husk/vmm"
)

// listen has what comes on the console looked at, line by line and as a whole. It is
// called before the machine starts.
func (a *attempt) listen() {
	a.seen.Watch(func(l console.Line) {
		a.mu.Lock()
		before := a.stages.Reached()
		a.stages.Line(l)
		a.detector.Line(l)
		a.tap.Line(l)
		now := a.stages.Reached()
		tell := now != before && a.passed == 0
		a.mu.Unlock()
		if tell {
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
	for e := range a.machine.Events() {
		switch {
		case e.Console != nil:
			a.seen.Add(e.At, e.Console)
			a.heard()
		case e.Entered:
			a.mu.Lock()
			a.entered = e.At
			a.stages.Entered(e.At)
			a.detector.Entered()
			a.mu.Unlock()
		case e.Dump != nil:
			select {
			case a.dumps <- e.Dump:
			default: // nobody has asked
			}
		case e.End != nil:
			a.seen.Close()
			a.report(e.At, e.End)
			a.ending = e.End
			close(a.ended)
		}
	}
}

// heard notes that the guest has said something, and has it looked at.
func (a *attempt) heard() {
	a.mu.Lock()
	a.last = time.Now()
	found := len(a.detector.Findings()) > 0
	a.mu.Unlock()
	signal(a.progress)
	if found {
		signal(a.found)
	}
}

// signal wakes who waits at a channel of one.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// report tells the detectors what the machine alone has seen of the guest's end.
func (a *attempt) report(at time.Duration, end *process.End) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch endOfGuest(end) {
	case vmm.GuestPanic:
		a.detector.Report(detect.KernelPanic, at, cmp.Or(end.Guest.Detail, "the kernel has said so by pvpanic, but not why on the console"))
	case vmm.TripleFault:
		a.detector.Report(detect.TripleFault, at, strings.TrimSuffix(end.Guest.Outcome+": "+end.Guest.Detail, ": "))
	case vmm.Reboot:
		if a.c.Reboots > 0 {
			a.detector.Report(detect.RebootLoop, at, fmt.Sprintf("the guest rebooted %d times", a.c.Reboots+1))
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
// found something and its trace is there. What is allowed by a line of its trace is no
// finding any more by then.
func (a *attempt) watch(ctx context.Context) {
	silence := time.NewTimer(a.c.NoOutput)
	defer silence.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.ended:
			return
		case <-a.found:
			a.awaitTrace()
			if len(a.findings()) > 0 {
				a.end(errDetected)
				return
			}
		case <-silence.C:
			idle := a.idle()
			if idle >= a.c.NoOutput {
				a.end(errSilent)
				return
			}
			silence.Reset(a.c.NoOutput - idle)
		}
	}
}

// idle is for how long the guest has been silent though it should not.
func (a *attempt) idle() time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.quiet > 0 {
		return 0
	}
	return time.Since(a.last)
}

// expectSilence lets the guest be silent until the function that it returns is called.
func (a *attempt) expectSilence() (over func()) {
	change := func(by int) {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.quiet += by
		a.last = time.Now()
	}
	change(1)
	return func() { change(-1) }
}

// awaitTrace waits until what a detector has found is complete: its end has come, or
// nothing more does. Why the attempt ends is no reason to cut it off, but for an
// interruption.
func (a *attempt) awaitTrace() {
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
		case <-a.outer.Done():
			return
		}
	}
}

// dumpTime is how long a machine has to say where its processors are. It reads the
// kernel's symbols for that, which takes long where the host is slow.
const dumpTime = time.Minute

// dump asks the machine where its processors are, and why places have no names.
func (a *attempt) dump() ([]result.VCPU, string) {
	if a.theEnd() != nil || a.machine.Dump() != nil {
		return nil, ""
	}
	select {
	case d := <-a.dumps:
		return d.VCPUs, d.Error
	case <-a.ended:
	case <-a.outer.Done():
	case <-time.After(dumpTime):
	}
	return nil, ""
}
