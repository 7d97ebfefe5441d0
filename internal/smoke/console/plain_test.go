package console

import (
	"strings"
	"testing"
)

func plainly(pieces ...string) string {
	var c plain
	var out []byte
	for _, p := range pieces {
		out = c.feed(out, []byte(p))
	}
	return string(c.flush(out))
}

var plainTests = []struct{ name, in, want string }{
	{"text", "hello\n", "hello\n"},
	{"no end", "login: ", "login: "},
	{"tab", "a\tb", "a\tb"},
	{"utf-8", "grüße ❯ ", "grüße ❯ "},
	{"not utf-8", "a\xffb\x9bc", "a\xffb\x9bc"},
	{"controls", "a\x00\x07\bb\x7f\x0e", "ab"},
	{"crlf", "a\r\nb\r\n", "a\nb\n"},
	{"crcrlf", "a\r\r\nb\r\r\n", "a\nb\n"},
	{"lfcr", "a\n\rb", "a\nb"},
	{"empty lines", "a\r\n\r\n\r\nb", "a\n\n\nb"},
	{"empty lines, bare", "a\n\n\nb", "a\n\n\nb"},
	{"progress", "10%\r20%\r\n", "10%\n20%\n"},
	{"cr at the start", "\r[    1.0] x", "[    1.0] x"},
	{"cr, sequence, lf", "a\r\x1b[K\nb", "a\nb"},
	{"colours", "\x1b[0;1;31mred\x1b[0m.", "red."},
	{"csi with intermediates", "a\x1b[?25l\x1b[4 q\x1b[>1;2cb", "ab"},
	{"cursor report", "\x1b[6n# ", "# "},
	{"charset", "\x1b(Ba\x1b#8b\x1b7\x1bc", "ab"},
	{"osc bel", "a\x1b]0;title\x07b", "ab"},
	{"osc st", "a\x1b]3008;start=1;x=y\x1b\\b", "ab"},
	{"dcs", "a\x1bP+q544e\x1b\\b\x1b_apc\x1b\\c\x1b^pm\x1b\\d\x1bXsos\x1b\\e", "abcde"},
	{"palette", "a\x1b]P0abcdefb\x1b]Rc", "abc"},
	{"cancelled", "a\x1b]0;t\x18b", "ab"},
	{"esc esc", "\x1b\x1b[1mx", "x"},
	{"csi torn by a line end", "\x1b[31\nBUG: x\n", "\nBUG: x\n"},
	{"osc torn by a line end", "a\x1b]0;[    1.000000] BUG: x\nb", "a0;[    1.000000] BUG: x\nb"},
	{"osc torn by a sequence", "a\x1b]0;t\x1b[1mb", "a0;tb"},
	{"osc at the end", "a\x1b]0;last words", "a0;last words"},
	{"esc at the end", "a\x1b", "a"},
	{"endless osc", "\x1b]0" + strings.Repeat("x", 5000), "0" + strings.Repeat("x", 5000)},
}

func TestPlain(t *testing.T) {
	for _, c := range plainTests {
		if got := plainly(c.in); got != c.want {
			t.Errorf("%s: %q is %q, want %q", c.name, c.in, got, c.want)
		}
		for i := range c.in {
			if i > 300 {
				break
			}
			if got := plainly(c.in[:i], c.in[i:]); got != c.want {
				t.Errorf("%s: cut at %d: %q, want %q", c.name, i, got, c.want)
			}
		}
	}
}
