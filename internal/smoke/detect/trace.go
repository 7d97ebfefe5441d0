package detect

import (
	"strings"
	"time"

	"github.com/huskvm/husk/internal/smoke/console"
	"github.com/huskvm/husk/internal/smoke/result"
)

// How much of a report is kept, and when it is taken to have ended without its
// marker. A panic with the backtraces of a hundred processors has its place.
const (
	maxTraceLines = 4000
	maxTraceBytes = 256 << 10
	// foreignLines is how many lines in a row that are no part of a dump end a report
	// that has no marker, and lostMarker one whose marker does not come.
	foreignLines = 8
	lostMarker   = 100
	// afterOops is the same for what follows the marker of an oops: registers, and
	// perhaps the panic that it leads to.
	afterOops = 3
	// headerWithin is in how many lines the header of an exception follows what was
	// said of it before.
	headerWithin = 12
)

// A trace is a report that was begun.
type trace struct {
	result.Finding
	rule    *rule
	size    int // bytes of Trace
	lines   int // all of them, with those not kept
	foreign int // in a row, at the end
	header  bool
	marked  bool // its marker came, and it is an oops
	open    bool
	allowed bool
	past    bool // another kernel runs since
	last    time.Duration
	// reported: by the machine, and not by a line.
	reported bool
}

// panics tells that it is the panic of the kernel that runs now.
func (t *trace) panics() bool { return t.rule.fatal && !t.past }

// add takes a line, unless the trace has ended. body is the line without what stands
// before the kernel's stamp, if it has one in its midst.
func (t *trace) add(l console.Line, body string, allow []console.Pattern) {
	t.keep(l.Text, allow)
	t.last = l.End
	t.header = t.header || diedLine.MatchString(body)
	if dumpLine.MatchString(body) {
		t.foreign = 0
		return
	}
	t.foreign++
	limit := lostMarker
	switch {
	case t.marked:
		limit = afterOops
	case t.rule.ends == noMarker:
		limit = foreignLines
	}
	if t.foreign >= limit {
		t.close()
	}
}

func (t *trace) keep(text string, allow []console.Pattern) {
	t.lines++
	if len(t.Trace) < maxTraceLines && t.size < maxTraceBytes {
		t.Trace = append(t.Trace, text)
		t.size += len(text)
	}
	for _, p := range allow {
		t.allowed = t.allowed || p.In(text)
	}
}

// close ends the trace. The lines that are no part of it, and came while it was not
// known to have ended, go.
func (t *trace) close() {
	if t.open && t.foreign > 0 && t.lines == len(t.Trace) && (t.marked || t.rule.ends == noMarker) {
		t.Trace = t.Trace[:max(1, len(t.Trace)-t.foreign)]
	}
	t.open = false
}

// takes tells whether a line that would begin a report of its own belongs to this one.
func (t *trace) takes(r *rule) bool {
	switch {
	case !t.open:
		return false
	case t.rule.dies && !t.header && t.lines <= headerWithin:
		return r.ends == endOops
	case t.rule.kind == r.kind:
		return r.kind == RCUStall || r.kind == OutOfMemory || r.kind == NoRoot || r.kind == Kmemleak
	}
	return false
}

// markerOf is what the line ends, if it is a marker.
func markerOf(text string) marker {
	switch {
	case strings.HasPrefix(text, "---[ end trace"):
		return endTrace
	case strings.HasPrefix(text, "---[ end Kernel panic"), strings.HasPrefix(text, "Rebooting in "):
		return endPanic
	case isEquals(text):
		return equals
	case strings.Contains(text, "Kill") && oomLine.MatchString(text):
		return oomKilled
	}
	return noMarker
}

// endedBy tells whether the marker ends this trace.
func (t *trace) endedBy(m marker) bool {
	switch m {
	case noMarker:
		return false
	case endPanic:
		return true // of all: the kernel says no more
	case endTrace:
		return t.rule.ends == endTrace || t.rule.ends == endOops || t.rule.kind == UBSAN
	}
	return t.rule.ends == m
}
