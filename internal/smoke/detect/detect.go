package detect

import (
	"fmt"
	"slices"
	"time"

	"github.com/huskvm/husk/internal/smoke/console"
	"github.com/huskvm/husk/internal/smoke/result"
)

const (
	// maxFindings bounds the list; a kernel that reports without end has been found out.
	maxFindings = 64
	// openerWithin is in how many lines what a "cut here" opens must follow: a WARN's
	// message, and lines of other processors. Behind "====" it follows at once.
	openerWithin, equalsWithin = 12, 3
	// panicWithin is for how long after a report's end a panic is taken to follow from it.
	panicWithin = 2 * time.Second
)

// A Detector reads a console's lines. It is for one goroutine at a time.
type Detector struct {
	config  Config
	off     map[Kind]bool
	traces  []*trace // in the order of their first lines; allowed ones only while open
	events  int
	opener  []string // a line that opens a report, and those since
	within  int      // how many there may be
	restart console.Restart
	starts  int
	fatal   bool
}

// New makes a detector.
func New(c Config) (*Detector, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	if c.RebootLoop == 0 {
		c.RebootLoop = 3
	}
	d := &Detector{config: c, off: map[Kind]bool{}, starts: 1}
	for _, k := range c.Off {
		d.off[k] = true
	}
	return d, nil
}

// Line takes the next line of the console.
func (d *Detector) Line(l console.Line) {
	if d.restart.Line(l) {
		d.restarted(l)
	}
	r, body := locate(l)
	if r != nil {
		d.fatal = d.fatal || r.fatal
		d.begin(r, l, body)
	} else {
		d.open(l, body)
	}
	d.mark(markerOf(body))
	d.drop()
}

// locate looks for the start of a report in the line: at its own start, or at a
// kernel's stamp within it. It returns the text from there; without a report, that
// behind the first such stamp.
func locate(l console.Line) (r *rule, body string) {
	if r = find(l.Text, l.Kernel >= 0); r != nil {
		return r, l.Text
	}
	body = l.Text
	for rest, first := l.Text, true; ; first = false {
		_, _, text, ok := console.FindStamp(rest)
		if !ok {
			return nil, body
		}
		if first {
			body = text
		}
		if r = find(text, true); r != nil {
			return r, text
		}
		rest = text
	}
}

// restarted notes that a kernel has started another, as with kexec. Where the machine
// was reset, Entered came first, and d.restart knows nothing of a kernel before.
func (d *Detector) restarted(l console.Line) {
	d.forget()
	if d.starts++; d.starts != d.config.RebootLoop || d.off[RebootLoop] || d.known(RebootLoop) {
		return
	}
	d.events++
	t := &trace{rule: &rule{kind: RebootLoop}, last: l.End}
	t.Finding = result.Finding{
		Kind: string(RebootLoop), At: l.Start, Event: d.events,
		Summary: fmt.Sprintf("the kernel has started %d times", d.starts),
	}
	t.keep(l.Text, d.allowed(RebootLoop))
	d.traces = append(d.traces, t)
}

// begin begins a report, unless it is part of one that is open. The line is one of
// each that is.
func (d *Detector) begin(r *rule, l console.Line, body string) {
	event := d.replaced(r)
	taken := d.off[r.kind] || len(d.traces) >= maxFindings
	for _, t := range d.traces {
		if !t.open {
			if r.fatal && !t.past && l.Start-t.last <= panicWithin {
				event = t.Event
			}
			continue
		}
		taken = taken || t.takes(r)
		event = t.Event
		t.add(l, body, d.allowed(t.rule.kind))
		if r.fatal && t.takes(r) {
			t.rule = r // its marker is another one now
		}
	}
	opener := d.opener
	d.opener = nil
	if taken {
		return
	}
	if event == 0 {
		d.events++
		event = d.events
	}
	t := &trace{rule: r, open: true}
	t.Finding = result.Finding{Kind: string(r.kind), At: l.Start, Event: event, Summary: body}
	for _, text := range opener {
		t.keep(text, d.allowed(r.kind))
	}
	t.add(l, body, d.allowed(r.kind))
	t.foreign, t.lines = 0, 1
	d.traces = append(d.traces, t)
}

// open takes a line that begins no report: it is part of those that are open, and
// perhaps what stands before the next one.
func (d *Detector) open(l console.Line, body string) {
	ends := false
	m := markerOf(body)
	for _, t := range d.traces {
		if t.open {
			ends = ends || t.endedBy(m)
			t.add(l, body, d.allowed(t.rule.kind))
		}
	}
	switch {
	case body == cutHere, isEquals(body) && !ends:
		d.opener, d.within = []string{l.Text}, equalsWithin
		if body == cutHere {
			d.within = openerWithin
		}
	case d.opener != nil:
		if d.opener = append(d.opener, l.Text); len(d.opener) > d.within {
			d.opener = nil
		}
	}
}

// mark ends what the marker ends: of reports within one another, the inner one.
func (d *Detector) mark(m marker) {
	for _, t := range slices.Backward(d.traces) {
		// A report's first line is no end of it, though it may look like one.
		if !t.open || t.marked && m != endPanic || !t.endedBy(m) || t.lines < 2 && m != oomKilled {
			continue
		}
		if t.rule.ends == endOops && m == endTrace {
			t.marked = true
			return
		}
		t.close()
		if m != endPanic {
			return
		}
	}
}

// drop forgets what is allowed and has ended.
func (d *Detector) drop() {
	d.traces = slices.DeleteFunc(d.traces, func(t *trace) bool { return t.allowed && !t.open })
}

// allowed is what findings of the kind may have.
func (d *Detector) allowed(k Kind) []console.Pattern {
	var out []console.Pattern
	for _, a := range d.config.Allow {
		if a.Kind == "" || a.Kind == k {
			out = append(out, a.Pattern)
		}
	}
	return out
}

// Findings are what was found, or reported, and is not allowed, in the order of their
// first lines.
// Those that are one event have the same number, and the first of them is the cause.
// One whose trace is still coming may turn out to be allowed.
func (d *Detector) Findings() []result.Finding {
	var out []result.Finding
	for _, t := range d.traces {
		if !t.allowed {
			f := t.Finding
			f.Trace = slices.Clone(f.Trace)
			out = append(out, f)
		}
	}
	return out
}

// Open tells that a trace is still coming. Some have no end of their own: then the
// console's quiet is one, which the caller must measure.
func (d *Detector) Open() bool {
	return slices.ContainsFunc(d.traces, func(t *trace) bool { return t.open })
}

// Fatal tells that the kernel has panicked, also where that is allowed or not looked
// for: the machine does not go on.
func (d *Detector) Fatal() bool { return d.fatal }
