package report

import (
	"fmt"
	"strings"
	"time"

	"github.com/huskvm/husk/internal/smoke/result"
)

// explained is how many failures are explained at the end; a thousand would bury
// the reader.
const explained = 20

// verdicts are all of them, in the order in which a summary counts them.
var verdicts = []result.Verdict{
	result.Pass, result.Fail, result.Detected, result.Hang, result.Timeout,
	result.VMM, result.Infrastructure, result.Skipped,
}

// A tally counts the cases that have ended.
type tally struct {
	opts  Options
	paint painter
	begun time.Time

	done   int
	flaky  int
	counts map[result.Verdict]int
	failed []*result.Case
}

func newTally(opts Options) *tally {
	return &tally{
		opts: opts, paint: painter{color: opts.Color},
		begun: time.Now(), counts: map[result.Verdict]int{},
	}
}

func (t *tally) add(c *result.Case) {
	t.done++
	t.counts[c.Verdict]++
	if c.Flaky {
		t.flaky++
	}
	if failed(c.Verdict) {
		t.failed = append(t.failed, c)
	}
}

// end explains the failures and sums up.
func (t *tally) end() string {
	var b strings.Builder
	for i, c := range t.failed {
		if i == explained {
			fmt.Fprintf(&b, "\n%s more: see the lines above, or a report\n", plural(len(t.failed)-i, "failure"))
			break
		}
		b.WriteString(t.paint.failure(c))
	}
	if b.Len() > 0 {
		b.WriteByte('\n')
	}
	b.WriteString(t.summary() + "\n")
	return b.String()
}

// summary is as "20 cases in 64.1 s: 17 pass (1 flaky), 1 detected, 2 hang".
func (t *tally) summary() string {
	s := fmt.Sprintf("%s in %s%s", plural(max(t.done, t.opts.Cases), "case"), short(time.Since(t.begun)), onWhat(t.opts.Accel))
	if v := t.verdicts(); v != "" {
		s += ": " + v
	}
	return s
}

// verdicts counts them, those that there are.
func (t *tally) verdicts() string {
	var parts []string
	for _, v := range verdicts {
		n := t.counts[v]
		if n == 0 {
			continue
		}
		part := t.paint.verdict(v, fmt.Sprintf("%d %s", n, v))
		if v == result.Pass && t.flaky > 0 {
			part += fmt.Sprintf(" (%d flaky)", t.flaky)
		}
		parts = append(parts, part)
	}
	if missing := t.opts.Cases - t.done; missing > 0 {
		parts = append(parts, fmt.Sprintf("%d not run", missing))
	}
	return strings.Join(parts, ", ")
}

// A painter writes about cases, in colour or not.
type painter struct{ color bool }

// verdict paints text as v is to look.
func (p painter) verdict(v result.Verdict, text string) string {
	if !p.color {
		return text
	}
	sgr := "31" // red
	switch v {
	case result.Pass:
		sgr = "32"
	case result.Skipped, result.Infrastructure:
		sgr = "33"
	}
	return "\x1b[" + sgr + "m" + text + "\x1b[0m"
}

// strong paints what is to be found again when scrolling.
func (p painter) strong(text string) string {
	if !p.color {
		return text
	}
	return "\x1b[1m" + text + "\x1b[0m"
}

// caseLine is all of an ended case on one line: verdict, time, name, and why.
func (p painter) caseLine(c *result.Case) string {
	a := last(c)
	line := p.verdict(c.Verdict, fmt.Sprintf("%-14s", c.Verdict)) +
		fmt.Sprintf(" %8s  %s", short(took(c)), oneLine(c.Name))
	switch {
	case c.Flaky:
		line += fmt.Sprintf(" (flaky: attempt %d passed)", len(c.Attempts))
	case c.Verdict != result.Pass:
		line += ": " + reason(a) + reached(a)
	}
	return line
}

// reached is as ` (reached "drivers")`.
func reached(a *result.Attempt) string {
	if a.Stage == "" {
		return ""
	}
	return " (reached " + oneLine(a.Stage) + ")"
}

// failure explains why a case failed, with what reproduces it.
func (p painter) failure(c *result.Case) string {
	a := last(c)
	var b strings.Builder
	b.WriteString("\n" + p.strong("--- "+oneLine(c.Name)) + ": " + p.verdict(c.Verdict, string(c.Verdict)))
	if len(c.Attempts) > 1 {
		fmt.Fprintf(&b, ", attempt %d of %d", len(c.Attempts), len(c.Attempts))
	}
	b.WriteString(", after " + short(a.Duration) + reached(a) + "\n")
	for _, line := range explain(a) {
		b.WriteString(strings.TrimRight("    "+line, " ") + "\n")
	}
	if c.Reproduce != "" {
		b.WriteString("    to reproduce it:\n      " + visible(c.Reproduce) + "\n")
	}
	return b.String()
}
