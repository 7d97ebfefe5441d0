package report

import (
	"fmt"
	"strings"

	"github.com/huskvm/husk/internal/smoke/result"
)

// How much of each is told to people; the rest is in the case's files.
const (
	toldConsole  = 30  // lines, the last
	toldTrace    = 100 // lines, the first
	toldSubtests = 20
	toldDetail   = 10  // lines of a subtest
	toldLine     = 500 // bytes of a line
)

// explain says why an attempt failed, as lines of visible text, the reason first:
// the step, the finding's trace or the last lines of the console, where the
// processors were, and which tests failed.
func explain(a *result.Attempt) []string {
	var e explanation
	e.add(reason(a))
	if a.Guest != nil && a.Verdict != result.Pass {
		e.guest(a.Guest)
	}
	for i := range a.Steps {
		if failed(a.Steps[i].Verdict) {
			e.step(i+1, len(a.Steps), &a.Steps[i])
		}
	}
	e.subtests(a)
	for i := range a.Findings {
		e.finding(&a.Findings[i])
	}
	// Where there was no machine, it is no news that it said nothing.
	if len(a.Findings) == 0 && (len(a.Console) > 0 || a.Verdict != result.Infrastructure) {
		e.console(a.Console)
	}
	for i := range a.VCPUs {
		e.vcpu(&a.VCPUs[i])
	}
	if a.Unnamed != "" {
		e.add("places in the kernel have no names: " + oneLine(a.Unnamed))
	}
	if a.Dir != "" {
		e.add("files: " + visible(a.Dir))
	}
	return e.lines
}

// An explanation grows by what there is to say.
type explanation struct{ lines []string }

func (e *explanation) add(lines ...string) { e.lines = append(e.lines, lines...) }

// block adds a guest's lines under a title. What stands in front of them keeps a
// guest from commands to GitHub's runners, which are lines that begin with "::",
// indented or not.
func (e *explanation) block(title string, lines []string) {
	e.add(title)
	for _, line := range lines {
		e.add("  | " + visible(cut(strings.TrimRight(line, "\r\n"))))
	}
}

func (e *explanation) guest(g *result.Guest) {
	line := "the guest ended by " + oneLine(g.Outcome)
	if g.Code != 0 {
		line += fmt.Sprintf(", code %d", g.Code)
	}
	if g.Detail != "" {
		line += ": " + oneLine(g.Detail)
	}
	e.add(line)
}

func (e *explanation) step(n, of int, s *result.Step) {
	line := fmt.Sprintf("step %d of %d, %s: %s after %s", n, of, oneLine(s.Name), s.Verdict, short(s.Duration))
	if s.Reason != "" {
		line += ": " + oneLine(s.Reason)
	}
	e.add(line)
	if s.Command == nil {
		return
	}
	if s.Command.Code != 0 {
		e.add(fmt.Sprintf("  it ended with code %d", s.Command.Code))
	}
	for _, out := range []struct{ name, text string }{
		{"its output", s.Command.Stdout}, {"its errors", s.Command.Stderr},
	} {
		if out.text != "" {
			lines := strings.Split(strings.TrimRight(out.text, "\n"), "\n")
			e.block("  "+out.name+tail(len(lines)), lines[max(0, len(lines)-toldConsole):])
		}
	}
}

func (e *explanation) subtests(a *result.Attempt) {
	bad := 0
	for i := range a.Subtests {
		s := &a.Subtests[i]
		if !s.Failed() {
			continue
		}
		if bad++; bad > toldSubtests {
			continue
		}
		var lines []string
		if s.Detail != "" {
			lines = strings.Split(s.Detail, "\n")
		}
		e.block("the guest's test failed: "+oneLine(s.Name), lines[:min(len(lines), toldDetail)])
	}
	if more := bad - toldSubtests; more > 0 {
		e.add(fmt.Sprintf("and %d more of the guest's tests", more))
	}
	for i, p := range a.Problems {
		if i == toldSubtests {
			e.add(fmt.Sprintf("and %d more such problems", len(a.Problems)-i))
			break
		}
		e.add("the guest's test output: " + oneLine(p))
	}
}

func (e *explanation) finding(f *result.Finding) {
	title := fmt.Sprintf("found at %.6f (%s): %s", f.At.Seconds(), oneLine(f.Kind), oneLine(f.Summary))
	trace := f.Trace
	if len(trace) > 0 && trace[0] == f.Summary {
		trace = trace[1:]
	}
	e.block(title, trace[:min(len(trace), toldTrace)])
	if more := len(trace) - toldTrace; more > 0 {
		e.add(fmt.Sprintf("  … %d more lines", more))
	}
}

func (e *explanation) console(lines []result.Line) {
	if len(lines) == 0 {
		e.add("nothing was on the console")
		return
	}
	e.add("on the console" + tail(len(lines)))
	for _, l := range lines[max(0, len(lines)-toldConsole):] {
		l.Text = cut(l.Text)
		e.add("  " + consoleLine(l))
	}
}

func (e *explanation) vcpu(v *result.VCPU) {
	where := fmt.Sprintf("CPU %d was at 0x%x", v.CPU, v.RIP)
	if v.Symbol != "" {
		where += ", " + oneLine(v.Symbol)
	}
	var lines []string
	for _, caller := range v.Backtrace {
		lines = append(lines, "called by "+caller)
	}
	if v.Registers != "" {
		lines = append(lines, strings.Split(strings.TrimRight(v.Registers, "\n"), "\n")...)
	}
	e.block(where, lines)
}

// tail says which of n lines are told.
func tail(n int) string {
	if n > toldConsole {
		return fmt.Sprintf(", the last %d of %d lines:", toldConsole, n)
	}
	return ":"
}

// cut is the beginning of a line that is too long to be told.
func cut(line string) string {
	if len(line) <= toldLine {
		return line
	}
	return strings.ToValidUTF8(line[:toldLine], "") + "…"
}
