package detect

import (
	"slices"
	"time"

	"github.com/huskvm/husk/internal/smoke/console"
	"github.com/huskvm/husk/internal/smoke/result"
)

// Entered says that the machine's processors begin to run, at its start and behind
// each reset: nothing follows from what was said before, and the kernel that starts
// now is none that another one has started.
func (d *Detector) Entered() {
	d.forget()
	d.restart = console.Restart{}
}

// forget has nothing follow from what the last kernel said.
func (d *Detector) forget() {
	for _, t := range d.traces {
		t.close()
		t.past = true
	}
	d.opener, d.fatal = nil, false
}

// Report adds what the machine itself has seen, and is not sure to be on the console:
// a KernelPanic, a TripleFault or a RebootLoop, at a time since the machine's start.
// Off and Allow hold for it, with the summary for its trace. What is on the console
// is not found twice, whichever comes first, and what passes there passes here.
//
// The summary of a panic may be the kernel's own line, which says what kind it is.
// Report returns false where what it tells of is allowed, or not looked for: it is
// then as good an end of a guest as any other.
func (d *Detector) Report(kind Kind, at time.Duration, summary string) bool {
	r := &rule{kind: kind, fatal: kind == KernelPanic}
	if stamp, text, _ := console.ParseStamp(summary); r.fatal {
		if line, body := locate(console.Line{Kernel: stamp.Kernel, Text: text}); line != nil && line.fatal {
			r, summary = line, body
		}
	}
	switch {
	case r.fatal && d.fatal:
		return len(d.traces) >= maxFindings || slices.ContainsFunc(d.traces, func(t *trace) bool { return t.panics() && !t.allowed })
	case d.off[r.kind], slices.ContainsFunc(d.allowed(r.kind), func(p console.Pattern) bool { return p.In(summary) }):
		d.fatal = d.fatal || r.fatal
		return false
	}
	d.fatal = d.fatal || r.fatal
	if d.known(kind) || len(d.traces) >= maxFindings {
		return true
	}
	t := &trace{rule: r, reported: true, last: at}
	t.Finding = result.Finding{Kind: string(r.kind), At: at, Event: d.cause(r, at), Summary: summary}
	d.traces = append(d.traces, t)
	return true
}

// known tells whether there is a finding that a report of the kind would double.
func (d *Detector) known(k Kind) bool {
	return slices.ContainsFunc(d.traces, func(t *trace) bool { return t.rule.kind == k && (!t.past || k == RebootLoop) })
}

// cause is the event of which a report is the end: that of a trace that is open, or
// has just ended. Else it is a new one.
func (d *Detector) cause(r *rule, at time.Duration) int {
	for _, t := range slices.Backward(d.traces) {
		if !t.past && r.kind != RebootLoop && (t.open || at-t.last <= panicWithin) {
			return t.Event
		}
	}
	d.events++
	return d.events
}

// replaced takes away the report of the panic whose line now comes, and returns its
// event; 0 where there is none.
func (d *Detector) replaced(r *rule) int {
	i := slices.IndexFunc(d.traces, func(t *trace) bool { return t.reported && t.panics() })
	if !r.fatal || i < 0 {
		return 0
	}
	event := d.traces[i].Event
	d.traces = slices.Delete(d.traces, i, i+1)
	return event
}
