package ktap

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/huskvm/husk/internal/smoke/result"
)

// A level is one depth of nesting: the tests of a suite.
type level struct {
	depth   int
	name    string // by its "# Subtest", else ""
	implied bool   // nothing has announced it
	planned int    // -1 without a plan
	skipped string // the reason of "1..0 # SKIP", which has a plan of none

	tests []result.Subtest // named from here on, suites' tests in front of the suite
	own   int              // results of this level itself
	seen  map[int]bool
	next  int // the number after the last result's

	since   time.Duration
	current string // what a program of kselftest_harness.h says it runs

	notes []note // since the last result
	// behind: what comes belongs to the last test, as Perl's Test::More has it.
	behind bool

	// pending is a suite that has ended here, until its own result names it.
	pending *level
	// unfinished are suites that never had a result of their own.
	unfinished []string
	// announced is the name of a suite that is to begin: TAP 14 has "# Subtest" at
	// the depth of the suite's own result.
	announced string
}

// A note is a line that explains a test.
type note struct {
	text    string
	comment bool // with a "#"; of other lines nobody knows whether they do explain it
}

func newLevel(depth int, at time.Duration) *level {
	return &level{depth: depth, planned: -1, next: 1, since: at, seen: map[int]bool{}}
}

func (l *level) clone() *level {
	c := *l
	c.tests, c.notes = slices.Clone(l.tests), slices.Clone(l.notes)
	c.unfinished, c.seen = slices.Clone(l.unfinished), maps.Clone(l.seen)
	if l.pending != nil {
		c.pending = l.pending.clone()
	}
	return &c
}

// fresh tells whether a level has nothing but its version line yet.
func (l *level) fresh() bool {
	return l.name == "" && l.planned < 0 && l.own == 0 && len(l.tests) == 0 && l.pending == nil
}

// complete tells whether all that was planned has reported.
func (l *level) complete() bool { return l.planned >= 0 && l.own >= l.planned }

// explain keeps a note for the test that comes, or adds it to the one before.
func (l *level) explain(n note, r *report) {
	n.text = cut(n.text, maxNote)
	if last := len(l.tests) - 1; l.behind && n.comment && last >= 0 && !r.crowded(len(n.text)) {
		t := &l.tests[last]
		if strings.Count(t.Detail, "\n") < maxNotes {
			t.Detail = strings.TrimPrefix(t.Detail+"\n"+n.text, "\n")
		}
		return
	}
	if len(l.notes) >= maxNotes {
		l.notes = append(l.notes[:0], l.notes[1:]...)
	}
	l.notes = append(l.notes, n)
}

// detail is the notes as a test's detail. One that has passed was not disturbed by
// the kernel's other lines.
func (l *level) detail(failed bool, d directive, r *report) string {
	var lines []string
	switch {
	case d.word != "" && d.word != "SKIP" && d.word != "TODO":
		lines = append(lines, strings.TrimSpace(d.word+" "+d.text))
	case d.text != "":
		lines = append(lines, cut(d.text, maxNote))
	}
	for _, n := range l.notes {
		if n.comment || failed {
			lines = append(lines, n.text)
		}
	}
	l.notes = nil
	text := strings.Join(lines, "\n")
	if r.crowded(len(text)) {
		return ""
	}
	return text
}

// crowded tells whether n more bytes of details are too many, and counts them.
func (r *report) crowded(n int) bool {
	if r.details+n > maxDetails {
		return true
	}
	r.details += n
	return false
}

// absorb takes in the pending suite under a name. It tells whether it has tests, and
// whether one of them failed.
func (l *level) absorb(name string) (some, failed bool) {
	if l.pending == nil {
		return false, false
	}
	for _, t := range l.pending.tests {
		if name != "" {
			t.Name = cut(name+"."+t.Name, maxName)
		}
		failed = failed || t.Failed()
		l.tests = append(l.tests, t)
	}
	some = len(l.pending.tests) > 0
	l.pending = nil
	return some, failed
}

// abandon is for a pending suite whose own result does not come any more.
func (l *level) abandon() {
	if l.pending == nil {
		return
	}
	name := l.pending.name
	if name == "" && !l.implied {
		name = fmt.Sprintf("test %d", l.next+len(l.unfinished))
	}
	if name != "" {
		l.unfinished = append(l.unfinished, name)
	}
	l.absorb(name)
}

// close adds what should have reported. where names the level for people.
func (l *level) close(where string, r *report) {
	named := len(l.unfinished)
	l.abandon()
	if r.cut {
		l.unfinished = l.unfinished[:named] // the last one's result was about to come
	}
	missing := 0
	if l.planned >= 0 && (!r.cut || l.own > l.planned) {
		missing = max(l.planned-l.own, 0)
		if l.own != l.planned {
			r.problem(fmt.Sprintf("%splanned %d, saw %d", where, l.planned, l.own))
		}
	}
	detail := "it has not reported a result"
	if notes := l.detail(true, directive{}, r); notes != "" {
		detail += "\n" + notes
	}
	lost := func(name string) {
		l.lost(name, detail, r)
		detail, _, _ = strings.Cut(detail, "\n") // the notes are for the first
	}
	// Suites without a result are some of the missing: the first, for want of better
	// knowledge.
	for _, name := range l.unfinished {
		lost(name)
	}
	named = len(l.unfinished)
	l.unfinished = nil
	for n, listed := 1, 0; listed < missing-named; n++ {
		switch {
		case l.seen[n]:
		case named > 0:
			named, missing = named-1, missing-1
		case listed == maxMissing:
			lost(fmt.Sprintf("%d more missing tests", missing-listed))
			return
		default:
			lost(fmt.Sprintf("missing test %d", n))
			listed++
		}
	}
}

// lost adds a failure that has no result of its own.
func (l *level) lost(name, detail string, r *report) {
	if r.keep() {
		l.tests = append(l.tests, result.Subtest{Name: cut(name, maxName), Detail: detail})
	}
}

// cut shortens s to n bytes.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n-3], "") + "..."
}
