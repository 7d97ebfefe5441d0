package ktap

import (
	"regexp"
	"strconv"
	"strings"

	"github.com/huskvm/husk/internal/smoke/console"
)

// An item is a line, understood.
type item struct {
	kind   kind
	depth  int  // columns of indentation
	quoted bool // "# " is a part of the indentation
	text   string
	line   string // all of it

	number    int // of a result, -1 for none; of a plan, how many
	ok        bool
	directive directive
}

type kind int

const (
	other   kind = iota // anything else: text is the line
	comment             // "# text"
	header              // "KTAP version 1"
	plan                // "1..5"
	test                // "ok 1 - text # directive"
	bailOut             // "Bail out! text"
	subtest             // "# Subtest: text"
)

// A directive is what follows a result's "#".
type directive struct {
	word string // in capitals: SKIP, TODO, XFAIL, XPASS, TIMEOUT, ERROR; "" for another
	text string // behind the word, or all
}

var (
	headerLine = regexp.MustCompile(`^K?TAP version \d{1,3}$`)
	planLine   = regexp.MustCompile(`^1\.\.(\d{1,9})(?:\s+#\s*(.*))?$`)
	testLine   = regexp.MustCompile(`^(not )?ok(?: +(\d{1,9}))?(?:\s+(.*))?$`)
	// caller is what CONFIG_PRINTK_CALLER adds to the kernel's stamp.
	caller = regexp.MustCompile(`^\[ *[TC]\d+\] ?`)
	// writer is in front of what systemd passes on from a service to the console.
	writer = regexp.MustCompile(`^[\w.@:-]+\[\d+\]: `)
	// directives may follow a "#" without a space, in capitals or not.
	directives = regexp.MustCompile(`(?i)^\s*(SKIP|TODO|XFAIL|XPASS|TIMEOUT|ERROR)(?:PED)?\b:?\s*(.*)$`)
)

// origin is who has written the line, and what.
func origin(l console.Line) (key, text string) {
	text = strings.TrimRight(l.Text[:min(len(l.Text), maxLine)], "\r\n")
	if l.Kernel >= 0 {
		key = "the kernel"
		text = text[len(caller.FindString(head(text))):]
	}
	if w := writer.FindString(head(text)); w != "" {
		key += " " + w
		text = text[len(w):]
	}
	return key, text
}

// head is as much of s as a short pattern needs. Package regexp prepares for all of
// what it is given, however early it stops.
func head(s string) string { return s[:min(len(s), 160)] }

// parse understands a line. What kselftest's quoting leaves is looked at before the
// quoting is taken off, so that a comment is one of its own depth.
func parse(line string) item {
	depth, quoted := 0, false
	rest := line
	for range maxQuoting {
		n, width := indentation(rest)
		depth, rest = depth+width, rest[n:]
		if it, ok := parseUnindented(strings.TrimRight(rest, " \t")); ok {
			it.depth, it.quoted, it.line = depth, quoted, line
			return it
		}
		if !strings.HasPrefix(rest, "# ") {
			break
		}
		depth, quoted, rest = depth+2, true, rest[2:]
	}
	_, depth = indentation(line)
	it := item{kind: other, text: strings.TrimRight(line, " \t"), depth: depth}
	if text := strings.TrimLeft(it.text, " \t"); text == "#" || strings.HasPrefix(text, "# ") {
		it.kind = comment // the kernel's "#PF: …" is none
		it.text = uncomment(text)
	}
	return it
}

// indentation is the white space that s starts with, in bytes and in columns.
func indentation(s string) (n, width int) {
	for ; n < len(s); n++ {
		switch s[n] {
		case ' ':
			width++
		case '\t':
			width += 4 // as KUnit's indentation came to be
		default:
			return n, width
		}
	}
	return n, width
}

// uncomment takes all of "# # " away.
func uncomment(s string) string {
	for strings.HasPrefix(s, "#") {
		s = strings.TrimPrefix(s[1:], " ")
	}
	return s
}

func parseUnindented(s string) (item, bool) {
	if name, ok := strings.CutPrefix(s, "# Subtest: "); ok {
		return item{kind: subtest, text: strings.TrimSpace(name)}, true
	}
	if headerLine.MatchString(head(s)) {
		return item{kind: header, text: s}, true
	}
	if reason, ok := strings.CutPrefix(s, "Bail out!"); ok {
		return item{kind: bailOut, text: strings.TrimSpace(reason)}, true
	}
	if !strings.HasPrefix(s, "1..") && !strings.HasPrefix(s, "ok") && !strings.HasPrefix(s, "not ok") {
		return item{}, false // most lines
	}
	if m := planLine.FindStringSubmatch(s); m != nil {
		n, _ := strconv.Atoi(m[1]) // nine digits at most
		return item{kind: plan, number: n, directive: parseDirective(m[2])}, true
	}
	if m := testLine.FindStringSubmatch(s); m != nil {
		it := item{kind: test, ok: m[1] == "", number: -1}
		if m[2] != "" {
			it.number, _ = strconv.Atoi(m[2])
		} else if m[3] != "" && !strings.HasPrefix(m[3], "- ") {
			return item{}, false // "ok, then": TAP allows it, and so does prose
		}
		text, rest := cutDirective(m[3])
		it.text, it.directive = description(text), parseDirective(rest)
		return it, true
	}
	return item{}, false
}

// cutDirective cuts a description from what follows its "#": one behind white space,
// with white space or a directive behind it. TAP 14 escapes others by a backslash.
func cutDirective(s string) (text, rest string) {
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\':
			i++
		case s[i] == '#' && (i == 0 || s[i-1] == ' ' || s[i-1] == '\t'):
			rest := s[i+1:]
			if rest == "" || rest[0] == ' ' || rest[0] == '\t' || directives.MatchString(rest) {
				return s[:i], rest
			}
		}
	}
	return s, ""
}

// description is a test's, without the dash in front and the escapes of TAP 14.
func description(s string) string {
	s = strings.TrimSpace(s)
	if s == "-" {
		return ""
	}
	s = strings.TrimSpace(strings.TrimPrefix(s, "- "))
	return strings.NewReplacer(`\\`, `\`, `\#`, `#`).Replace(s)
}

func parseDirective(s string) directive {
	if m := directives.FindStringSubmatch(s); m != nil {
		return directive{word: strings.ToUpper(m[1]), text: strings.TrimSpace(m[2])}
	}
	return directive{text: strings.TrimSpace(s)}
}

// begins tells whether an item may begin a document.
func (it item) begins() bool { return it.kind == header || it.kind == subtest }

// opens tells whether it does: a version line does, and the kernel's indented
// "# Subtest".
func (it item) opens(kernel bool) bool {
	if it.quoted {
		return false
	}
	return it.kind == header || it.kind == subtest && kernel && it.depth >= 4
}
