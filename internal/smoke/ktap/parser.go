// Package ktap finds the results of tests on a guest's console: KTAP, as KUnit and
// kselftest print it, and TAP of other programs.
//
// Only what begins with a version line is taken: "KTAP version 1", "TAP version 13",
// and, of the kernel alone, an indented "# Subtest: name", since KUnit before 6.6
// began so when its tests were modules. All that kselftest's runners and helpers
// print begins with a version line. A line "ok 3 …" anywhere else means nothing.
//
// The kernel's lines, which have its stamp, and those of programs are read apart, so
// that neither disturbs the other's plan. Nested tests are those of deeper
// indentation, be it of spaces, of KUnit's older tabs, or of the "# " that kselftest
// puts before whatever a test prints.
package ktap

import (
	"slices"

	"github.com/huskvm/husk/internal/smoke/console"
	"github.com/huskvm/husk/internal/smoke/result"
)

// What a guest may make this package keep.
const (
	maxLine     = 4096 // bytes that are looked at
	maxQuoting  = 8    // "# " in front of one another
	maxTests    = 50_000
	maxName     = 512     // bytes of a test's name, with its suites'
	maxDetails  = 4 << 20 // bytes of all details together
	maxNotes    = 64      // lines of one test's detail, the last
	maxNote     = 512     // bytes of such a line
	maxProblems = 1000
	maxMissing  = 100 // tests of a plan that are listed one by one
	maxDepth    = 16
	maxSources  = 16
)

// A Parser reads a console line by line. The zero value is ready. It is not for
// several goroutines at once.
type Parser struct {
	sources []*source
	ended   report // of documents that others have followed
	cut     bool
}

// A source is one writer on the console, with the document that it is at.
type source struct {
	key string
	doc *document
}

// A report is what has been found, within bounds.
type report struct {
	tests    []result.Subtest
	problems []string
	details  int  // bytes
	kept     int  // tests, also those of documents that have not ended
	full     bool // there were more
	cut      bool // the machine was ended, so what is missing is nobody's fault
}

// Line takes the next line of the console.
func (p *Parser) Line(l console.Line) {
	key, text := origin(l)
	s := p.source(key)
	it := parse(text)
	if s == nil || s.doc == nil || s.doc.over && it.begins() {
		if !it.opens(l.Kernel >= 0) {
			return
		}
		if s == nil {
			if s = p.add(key); s == nil {
				return
			}
		}
		p.end(s)
		s.doc = newDocument(&p.ended, it, l.End)
	} else if it.kind == header && !it.quoted && it.depth <= s.doc.levels[0].depth {
		p.end(s)
		s.doc = newDocument(&p.ended, it, l.End)
	}
	s.doc.take(it, l.End)
}

// Cut says that the guest was ended from outside, and did not come to the end of what
// it printed: tests whose results would have come are neither failures nor problems.
func (p *Parser) Cut() { p.cut = true }

// Subtests are the tests so far. Those that a plan has promised and that have not
// reported are among them, as failures: call it when the guest has ended, or has been
// Cut. A suite is
// listed itself only where its tests do not say the same: where it failed and they
// did not, and where it has none.
func (p *Parser) Subtests() []result.Subtest { return p.finished().tests }

// Problems are what is wrong with the output itself, as "example: planned 5, saw 3".
func (p *Parser) Problems() []string { return p.finished().problems }

// finished is the report as if the console ended here.
func (p *Parser) finished() report {
	all := report{
		tests: slices.Clone(p.ended.tests), problems: slices.Clone(p.ended.problems),
		details: p.ended.details, kept: p.ended.kept, full: p.ended.full, cut: p.cut,
	}
	for _, s := range p.sources {
		if s.doc != nil {
			s.doc.clone(&all).end()
		}
	}
	return all
}

func (p *Parser) source(key string) *source {
	for _, s := range p.sources {
		if s.key == key {
			return s
		}
	}
	return nil
}

// add makes a source, in the place of one whose tests are over if there must be.
func (p *Parser) add(key string) *source {
	if len(p.sources) >= maxSources {
		i := slices.IndexFunc(p.sources, func(s *source) bool { return s.doc.over })
		if i < 0 {
			p.ended.problem("too many programs print tests at once; those of " + key + " are not read")
			return nil
		}
		p.end(p.sources[i])
		p.sources = slices.Delete(p.sources, i, i+1)
	}
	s := &source{key: key}
	p.sources = append(p.sources, s)
	return s
}

// end closes the source's document, if there is one.
func (p *Parser) end(s *source) {
	if s.doc != nil {
		s.doc.end()
		s.doc = nil
	}
}

// problem keeps one.
func (r *report) problem(text string) {
	switch {
	case len(r.problems) < maxProblems:
		r.problems = append(r.problems, text)
	case len(r.problems) == maxProblems:
		r.problems = append(r.problems, "and more problems")
	}
}

// keep tells whether one more test may be kept, and counts it.
func (r *report) keep() bool {
	if r.kept < maxTests {
		r.kept++
		return true
	}
	if !r.full {
		r.full = true
		r.problem("more tests than are kept")
	}
	return false
}
