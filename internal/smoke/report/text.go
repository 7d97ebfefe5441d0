package report

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/huskvm/husk/internal/smoke/result"
)

// visible makes what a guest has written fit for a terminal or a document: control
// characters, those that turn the direction of writing, what is no character and
// what is no UTF-8 become what Go writes for them, as \x1b. Tabs and, of lines, the
// ends stay.
func visible(s string) string {
	if !strings.ContainsFunc(s, unseen) && utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1, unseen(r) && r < utf8.RuneSelf:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case unseen(r) && r > math.MaxUint16:
			fmt.Fprintf(&b, `\U%08x`, r)
		case unseen(r):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteString(s[i : i+size])
		}
		i += size
	}
	return b.String()
}

// unseen tells whether r does something to its surroundings, or is no character.
// XML 1.0 §2.2 cannot carry the most of these.
func unseen(r rune) bool {
	switch {
	case r == '\t' || r == '\n':
		return false
	case unicode.IsControl(r):
		return true
	case r >= 0x2028 && r <= 0x202e, r >= 0x2066 && r <= 0x2069: // ends of lines, and directions
		return true
	}
	return r&0xfffe == 0xfffe // no characters
}

// oneLine is visible text on a single line.
func oneLine(s string) string {
	return visible(strings.Join(strings.Fields(s), " "))
}

// shorten cuts s to n characters, and shows that.
func shorten(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	r := []rune(s)
	return string(r[:n-1]) + "…"
}

// short is a time as people want it: three digits, and a unit.
func short(d time.Duration) string {
	switch s := d.Seconds(); {
	case d <= 0:
		return "0 s"
	case s < 0.9995:
		return fmt.Sprintf("%.*f ms", digits(s*1000), s*1000)
	case s < 59.95:
		return fmt.Sprintf("%.*f s", digits(s), s)
	}
	d = d.Round(time.Second)
	if d < time.Hour {
		return fmt.Sprintf("%d min %d s", d/time.Minute, d%time.Minute/time.Second)
	}
	return fmt.Sprintf("%d h %d min", d/time.Hour, d%time.Hour/time.Minute)
}

// digits is how many follow the point, for three in all.
func digits(f float64) int {
	switch {
	case f < 9.995:
		return 2
	case f < 99.95:
		return 1
	}
	return 0
}

// consoleLine is a line of the console with its stamps, for people.
func consoleLine(l result.Line) string {
	return visible(strings.ReplaceAll(l.String(), "\n", " "))
}

// plural is "1 case", "2 cases".
func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// last is the attempt that a case's verdict is from; an empty one where there was
// none.
func last(c *result.Case) *result.Attempt {
	if n := len(c.Attempts); n > 0 {
		return &c.Attempts[n-1]
	}
	return &result.Attempt{Verdict: c.Verdict}
}

// ofTests is the attempt that a case's verdict is from, for reports that count its
// tests: of one that was interrupted, none has failed, as no verdict is the kernel's.
func ofTests(c *result.Case) *result.Attempt {
	a := last(c)
	if c.Verdict != result.Skipped {
		return a
	}
	out := *a
	out.Steps, out.Subtests = slices.Clone(a.Steps), slices.Clone(a.Subtests)
	for i := range out.Steps {
		if s := &out.Steps[i]; failed(s.Verdict) {
			s.Verdict = result.Skipped
		}
	}
	for i := range out.Subtests {
		if s := &out.Subtests[i]; s.Failed() {
			s.OK, s.Skip = true, true
		}
	}
	return &out
}

// onWhat tells of a run that is not on KVM: figures from the lab are labelled.
func onWhat(accel string) string {
	if accel == "" || accel == "kvm" {
		return ""
	}
	return " (" + oneLine(accel) + ")"
}

// took is the time of all attempts of a case.
func took(c *result.Case) time.Duration {
	var d time.Duration
	for i := range c.Attempts {
		d += c.Attempts[i].Duration
	}
	return d
}

// failed tells whether a verdict is a failure: of the kernel, of husk or of the host.
func failed(v result.Verdict) bool { return v != result.Pass && v != result.Skipped }

// reason is why an attempt ended as it did, never empty where it has not passed.
func reason(a *result.Attempt) string {
	if a.Reason == "" && a.Verdict == result.Skipped {
		return "not begun"
	}
	if a.Reason == "" && a.Verdict != result.Pass {
		return string(a.Verdict)
	}
	return oneLine(a.Reason)
}
