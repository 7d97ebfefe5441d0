package console

import (
	"bytes"
	"strings"
	"testing"
)

// slow are patterns that are nearly too slow, for text of many "a".
var slow = []struct{ name, pattern string }{
	{"classes", "/[a-z]{1,390}never/"},
	{"dots", "/.{1,390}never$/"},
	{"letters", `/\pL{1,390}never/`},
	{"options", "/" + strings.Repeat("a?", 390) + "never/"},
	{"a text", strings.Repeat("a", 780) + "b"},
	{"conditions", "/" + strings.Repeat(`(?:a?\b|a?\B)`, 110) + "x/"},
	{"groups", "/" + strings.Repeat("(a)?", 13) + "never/"},
	{"a group", "/(?:(a)?){60}never/"},
	{"empty groups", "/(?:" + strings.Repeat("()", 13) + "a)+never/"},
	{"letters of either case", "/(?:a|b|c|d){1,380}never/i"},
}

// TestSteps has patterns refused that a guest could stall the console with.
func TestSteps(t *testing.T) {
	for _, c := range slow {
		if _, err := ParsePattern(c.pattern); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	for _, c := range []struct{ pattern, want string }{
		{"/(?:[a-z]{1,300}[0-9]){3}never/", "{1,300}"},
		{"/" + strings.Repeat("(a)?", 40) + "x/", "(?:…)"},
		{"/(?:(a)?(b)?){60}x/", "(?:…)"},
		{strings.Repeat("a", 2000), "a part of the text"},
	} {
		if _, err := ParsePattern(c.pattern); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.40s: %v, want %q", c.pattern, err, c.want)
		}
	}
}

// TestASearchEndsInTheMidstOfText, and goes on from there.
func TestASearchEndsInTheMidstOfText(t *testing.T) {
	tr := New()
	tr.Add(0, append(bytes.Repeat([]byte("a"), 8*expectPiece), "never"...))
	s := newSearch(pattern(t, "never"), 0, endOfText)
	pieces := 0
	_, closed, m := tr.advance(s, func() bool { pieces++; return pieces <= 3 })
	if m != nil || closed || s.end() != 3*expectPiece {
		t.Errorf("it ended at %d", s.end())
	}
	if _, _, m = tr.advance(s, func() bool { return true }); m == nil {
		t.Error("it was not found")
	}
}

// BenchmarkSlowest is what maxSteps is made of.
func BenchmarkSlowest(b *testing.B) {
	text := bytes.Repeat([]byte("a"), 1000)
	for _, c := range slow {
		b.Run(c.name, func(b *testing.B) {
			s := newSearch(pattern(b, c.pattern), 0, endOfText)
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				s.feed(text)
			}
		})
	}
}
