package console

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestParsePattern(t *testing.T) {
	for _, c := range []struct{ in, found, not string }{
		{"a.b", "a.b", "axb"},
		{"/a.b/", "axb", "a\nb"},
		{"/a.b/s", "a\nb", "ab"},
		{"/^b$/", "a\nb\nc", "ab"},
		{"/^b$/m", "a\nb\nc", "ab"},
		{"/A/i", "a", "b"},
		{"/a/is", "A", "b"},
		{`/a\/b/`, "a/b", "ab"},
		{"/usr/bin/", "usr/bin", "/usr/"},
		{`/\/init/`, "/init", "init"},
		{"a/b", "a/b", "ab"},
		{`a\b`, `a\b`, "ab"},
	} {
		p, err := ParsePattern(c.in)
		if err != nil || !p.In(c.found) || p.In(c.not) || p.String() != c.in || p.IsZero() {
			t.Errorf("%s: %v, in %q %v, in %q %v", c.in, err, c.found, p.In(c.found), c.not, p.In(c.not))
		}
	}
}

func TestPatternsRefused(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", "it is empty"},
		{"/", "no slash ends it"},
		{"/init", `write /…/, or /\/init/ to find this text as it is`},
		{`/a\/`, "no slash ends it"},
		{"/sbin/init", `at 8: 'n' is no flag`},
		{"/a(/", "at 3: missing closing )"},
		{"/ab)/", "at 4: unexpected )"},
		{"/a)(b/", "at 3: unexpected )"},
		{"/ab[z-a]/", "at 5: invalid character class range: z-a"},
		{"/*/", "at 2: missing argument to repetition operator"},
		{"/a*/", "it matches where there is nothing"},
		{"//", "it matches where there is nothing"},
		{"/^$/", "it matches where there is nothing"},
		{"a\xff", "at 2: it is not in UTF-8"},
	} {
		if _, err := ParsePattern(c.in); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.in, err, c.want)
		}
	}
}

func TestRegexp(t *testing.T) {
	p, err := Regexp(regexp.MustCompile("^b"))
	if err != nil || !p.In("a\nb") || p.String() != "/^b/" {
		t.Errorf("%v %v", p, err)
	}
}

func FuzzParsePattern(f *testing.F) {
	for _, s := range []string{"", "a", "/a/", "/a/ims", "/a/x", `/\`, "/(?P<n>a|b)+/", "/a{1000}/", "//", "/\xff/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePattern(s)
		if (err == nil) == p.IsZero() {
			t.Fatalf("%q: %v, %v", s, p, err)
		}
		if err != nil {
			if err.Error() == "" {
				t.Fatal(s)
			}
			return
		}
		if p.In("") || p.String() != s || !strings.HasPrefix(s, "/") && !p.In("x"+s+"y") {
			t.Errorf("%q", s)
		}
	})
}

// FuzzSearch compares the search with package regexp, which is given the whole. On
// one line both find the same.
func FuzzSearch(f *testing.F) {
	for _, s := range []struct{ p, text string }{
		{"a|ab", "xab"},
		{"(a|ab)(c|bcd)*", "abcd"},
		{"(a+)(b+)?", "caab"},
		{`\bfoo\b`, "food foo"},
		{"x*?y", "xxy"},
		{"(?:a|b)+?c", "abac"},
		{"^a|b$", "cab"},
		{"(x)?(?i:LOGIN): ", "xlogin: "},
		{"[^a]{2,3}", "aäöü"},
		{".b", "\xffb"},
		{`\Ba\B|(b)`, "bab"},
	} {
		for cut := range 3 {
			f.Add(s.p, s.text, uint8(cut))
		}
	}
	f.Fuzz(func(t *testing.T, expr, text string, cut uint8) {
		if len(expr) > 50 || strings.ContainsRune(text, '\n') {
			return
		}
		p, err := compile(expr, expr, "")
		if err != nil {
			return
		}
		i := min(int(cut), len(text))
		s := newSearch(p, 0, endOfText)
		m := s.feed([]byte(text[:i]))
		if m == nil {
			m = s.feed([]byte(text[i:]))
		}
		if m == nil {
			m = s.finish()
		}
		var got, want []int
		if m != nil {
			got = append(got, int(m.start), int(m.end))
			for _, g := range m.groups {
				got = append(got, int(g))
			}
			for len(got) < 2*(p.re.NumSubexp()+1) {
				got = append(got, -1)
			}
		}
		if want = p.re.FindStringSubmatchIndex(text); !slices.Equal(got, want) {
			t.Errorf("%q in %q, cut at %d: %v, want %v", expr, text, i, got, want)
		}
	})
}
