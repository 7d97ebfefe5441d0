package report

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"github.com/huskvm/husk/internal/smoke/result"
)

// TAP writes TAP as version 14 has it, under the version line of 13: what 14 adds,
// subtests, 13 ignores, but Perl's TAP::Harness up to Debian 12's refuses any later
// number. A test is a case; its steps, and the tests that the guest reported, are a
// subtest in front of it, and the reason, the stage and the command that reproduces
// the case a YAML block behind it.
//
// A case that was not begun is ok with SKIP, so that a run that was interrupted does
// not look like a kernel's failure: the exit code tells. Infrastructure faults are
// "not ok", with their verdict in the block.
func TAP(w io.Writer, run *result.Run) error {
	t := tap{}
	t.line(0, "TAP version 13")
	t.line(0, "1..%d", len(run.Cases))
	t.line(0, "# husk %s on %s (%s)", oneLine(run.Husk), oneLine(run.Host), oneLine(run.Accel))
	for i := range run.Cases {
		t.testCase(i+1, &run.Cases[i])
	}
	_, err := w.Write(t.Bytes())
	return err
}

// tap is the text so far.
type tap struct{ bytes.Buffer }

// line writes one at a depth; a level is four columns.
func (t *tap) line(level int, format string, args ...any) {
	line := strings.Repeat("    ", level) + fmt.Sprintf(format, args...)
	t.WriteString(strings.TrimRight(line, " ") + "\n")
}

func (t *tap) testCase(number int, c *result.Case) {
	a := ofTests(c)
	if n := len(a.Steps) + min(len(a.Subtests), 1); n > 0 {
		t.line(0, "# Subtest: %s", tapName(c.Name))
		t.line(1, "1..%d", n)
		for i := range a.Steps {
			t.step(i+1, &a.Steps[i])
		}
		if len(a.Subtests) > 0 {
			t.subtests(n, a)
		}
	}
	directive := ""
	if c.Verdict == result.Skipped {
		directive = " # SKIP " + tapName(reason(a))
	}
	t.result(0, !failed(c.Verdict), number, c.Name, directive)

	y := yaml{t: t, level: 0}
	y.begin()
	y.text("verdict", string(c.Verdict))
	y.text("reason", a.Reason)
	y.text("stage", a.Stage)
	y.number("duration_ms", took(c).Milliseconds())
	if c.Flaky {
		y.plain("flaky", "true")
	}
	var before []string
	for i := range max(len(c.Attempts)-1, 0) {
		b := &c.Attempts[i]
		before = append(before, fmt.Sprintf("%s: %s", b.Verdict, reason(b)))
	}
	y.block("attempts_before", before)
	if failed(c.Verdict) {
		y.block("explanation", explain(a))
	}
	var problems []string
	for _, p := range a.Problems {
		problems = append(problems, oneLine(p))
	}
	y.block("problems", problems)
	y.exact("reproduce", c.Reproduce)
	y.end()
}

func (t *tap) step(number int, s *result.Step) {
	directive := ""
	if s.Verdict == result.Skipped {
		directive = " # SKIP " + tapName(s.Reason)
	}
	t.result(1, !failed(s.Verdict), number, s.Name, directive)
	if failed(s.Verdict) {
		y := yaml{t: t, level: 1}
		y.begin()
		y.text("verdict", string(s.Verdict))
		y.text("reason", s.Reason)
		y.number("duration_ms", s.Duration.Milliseconds())
		if s.Command != nil {
			y.number("exit_code", int64(s.Command.Code))
		}
		y.end()
	}
}

// subtests writes what the guest reported, and what follows from it.
func (t *tap) subtests(number int, a *result.Attempt) {
	const name = "tests of the guest"
	t.line(1, "# Subtest: "+name)
	t.line(2, "1..%d", len(a.Subtests))
	ok := true
	for i := range a.Subtests {
		s := &a.Subtests[i]
		ok = ok && !s.Failed()
		head, _, _ := strings.Cut(s.Detail, "\n")
		directive := ""
		switch {
		case s.Skip:
			directive = " # SKIP " + tapName(head)
		case s.Todo:
			directive = " # TODO " + tapName(head)
		}
		t.result(2, s.OK, i+1, s.Name, directive)
		if s.Failed() && s.Detail != "" {
			y := yaml{t: t, level: 2}
			y.begin()
			y.block("detail", guestLines(s.Detail))
			y.end()
		}
	}
	t.result(1, ok, number, name, "")
}

func (t *tap) result(level int, ok bool, number int, name, directive string) {
	word := "ok"
	if !ok {
		word = "not ok"
	}
	t.line(level, "%s %d - %s%s", word, number, tapName(name), directive)
}

// tapName is a description that no reader takes for a directive: TAP 14 escapes "#"
// and its own "\".
func tapName(s string) string {
	return strings.NewReplacer(`\`, `\\`, `#`, `\#`).Replace(oneLine(s))
}

// guestLines are a guest's, with something in front that keeps them from being the
// end of a YAML block.
func guestLines(s string) []string {
	var out []string
	for line := range strings.SplitSeq(visible(s), "\n") {
		out = append(out, "| "+line)
	}
	return out
}

// yaml writes a block behind a result, of the part of YAML that Perl's
// TAP::Parser::YAMLish reads: no quotes in lists, and no comments.
type yaml struct {
	t     *tap
	level int
}

func (y yaml) raw(line string) {
	y.t.line(y.level, "  %s", line)
}
func (y yaml) begin() { y.raw("---") }
func (y yaml) end()   { y.raw("...") }

func (y yaml) plain(key, value string)    { y.raw(key + ": " + value) }
func (y yaml) number(key string, n int64) { y.plain(key, fmt.Sprint(n)) }

// text writes a string for people, on one line.
func (y yaml) text(key, value string) { y.exact(key, oneLine(value)) }

// exact writes a string in double quotes, so that a reader has it as it is. What is no
// UTF-8 becomes U+FFFD.
func (y yaml) exact(key, value string) {
	if value == "" {
		return
	}
	var b strings.Builder
	for _, r := range strings.ToValidUTF8(value, "\ufffd") {
		switch {
		case r == '"' || r == '\\':
			b.WriteString(`\` + string(r))
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case unseen(r) && r <= 0xff:
			fmt.Fprintf(&b, `\x%02x`, r)
		case unseen(r) && r > 0xffff:
			fmt.Fprintf(&b, `\U%08x`, r)
		case unseen(r):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	y.plain(key, `"`+b.String()+`"`)
}

// block writes visible lines as they are, of which the first must not begin with a
// space.
func (y yaml) block(key string, lines []string) {
	if len(lines) == 0 {
		return
	}
	y.plain(key, "|")
	for _, line := range lines {
		y.raw("  " + line)
	}
}
