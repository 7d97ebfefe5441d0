package console

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"
	"time"
	"unicode/utf8"
)

// A Pattern is what is looked for on a console: a text as it is, or a regular
// expression of package regexp. It is written as ParsePattern reads it. The zero
// value is no pattern.
type Pattern struct {
	source string
	re     *regexp.Regexp
	prog   *syntax.Prog
}

// ParsePattern reads a pattern: "/regexp/", with i (letters of either case), s (the
// dot takes line ends too) and m behind it, or else a text that is found as it is.
// "^" and "$" are always those of a line, as with m. An expression that matches
// where there is nothing is refused: every console would have it. So is one that takes
// more than maxSteps for a character, as with large counted repetitions. The text that
// is searched has "\n" at the ends of lines, never "\r", and no terminal sequences.
func ParsePattern(s string) (Pattern, error) {
	if s == "" {
		return Pattern{}, errors.New("pattern \"\": it is empty; give a text, or a regular expression between slashes")
	}
	if i := strings.IndexFunc(s, func(r rune) bool { return r == utf8.RuneError }); i >= 0 && !utf8.ValidString(s) {
		return Pattern{}, fmt.Errorf("pattern %q: at %d: it is not in UTF-8; write /\\x{FFFD}/ for a byte that is none", s, i+1)
	}
	if s[0] != '/' {
		return compile(s, regexp.QuoteMeta(s), "")
	}
	end := lastSlash(s)
	if end == 0 {
		return Pattern{}, fmt.Errorf("pattern %q: at 1: a regular expression begins here, and no slash ends it; "+
			"write /…/, or /\\%s/ to find this text as it is", s, regexp.QuoteMeta(s))
	}
	var flags string
	for i, f := range s[end+1:] {
		if !strings.ContainsRune("ims", f) {
			return Pattern{}, fmt.Errorf("pattern %q: at %d: %q is no flag, there are i, m and s; "+
				"to find this text as it is, write /\\%s/", s, end+2+i, f, regexp.QuoteMeta(s))
		}
		flags += string(f)
	}
	return compile(s, s[1:end], flags)
}

// lastSlash is where the last slash is that no backslash makes a character; 0 where
// there is none but the first.
func lastSlash(s string) int {
	last := 0
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '/':
			last = i
		}
	}
	return last
}

// Regexp is the pattern of an expression that is compiled already; "^" and "$" are
// those of a line in it.
func Regexp(re *regexp.Regexp) (Pattern, error) {
	return compile("/"+re.String()+"/", re.String(), "")
}

// compile makes the pattern of an expression, which source has behind its first
// slash if it has one.
func compile(source, expr, flags string) (Pattern, error) {
	// By itself first: in the parentheses below, ")(" would be right.
	if _, err := syntax.Parse(expr, syntax.Perl); err != nil {
		return Pattern{}, expressionError(source, expr, err)
	}
	whole := "(?m" + flags + ":" + expr + ")"
	re, err := regexp.Compile(whole)
	if err != nil {
		return Pattern{}, expressionError(source, expr, err)
	}
	if re.MatchString("") {
		return Pattern{}, fmt.Errorf("pattern %q: at 1: it matches where there is nothing, so every console has it; "+
			"put something in it that must be there", source)
	}
	parsed, err := syntax.Parse(whole, syntax.Perl)
	if err != nil {
		return Pattern{}, expressionError(source, expr, err)
	}
	prog, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return Pattern{}, expressionError(source, expr, err)
	}
	if n := steps(prog); n > maxSteps {
		return Pattern{}, fmt.Errorf("pattern %q: a console could not be searched in time: it may take %d steps for each "+
			"character, and %d are the most; %s", source, n, maxSteps, shorter(source))
	}
	return Pattern{source: source, re: re, prog: prog}, nil
}

// maxSteps is what a pattern may take for one character of a console, in instructions
// of its program. A guest chooses the text, so the worst has to be expected: 8 to
// 12 ns each, or 100 KB/s with the most (BenchmarkSlowest). A serial line of 115200 baud is 12 KB/s,
// and what waits for the search is the guest's console.
const maxSteps = 800

// steps are what the program takes for a character at worst: each instruction once, and to
// note where a group begins or ends, one for each number that is copied.
func steps(prog *syntax.Prog) int {
	n := len(prog.Inst)
	for i := range prog.Inst {
		if in := &prog.Inst[i]; in.Op == syntax.InstCapture && in.Arg > 1 {
			n += prog.NumCap
		}
	}
	return n
}

// shorter says how a pattern takes less steps.
func shorter(source string) string {
	if source[0] != '/' {
		return "take a part of the text"
	}
	return "leave out large repetitions such as {1,300}, or write + and *, and (?:…) for groups that nobody asks for"
}

// expressionError says where in source the fault is, from 1, and what to do.
func expressionError(source, expr string, err error) error {
	var fault *syntax.Error
	if !errors.As(err, &fault) {
		return fmt.Errorf("pattern %q: %w", source, err)
	}
	at, what := strings.Index(expr, fault.Expr), fault.Code.String()
	if at < 0 || fault.Expr == "" || fault.Expr == expr {
		at = faultAt(expr)
	} else {
		what += ": " + fault.Expr
	}
	return fmt.Errorf("pattern %q: at %d: %s; put a backslash before a character that stands for itself, "+
		"or leave out the slashes to find the text as it is", source, at+1+strings.Index(source, expr), what)
}

// faultAt is where a fault is that is told of the whole expression, as for a
// parenthesis: at the character from which on no beginning of it is right. It is
// not looked for further back than anybody writes.
func faultAt(expr string) int {
	for end := len(expr) - 1; end > max(0, len(expr)-1000); end-- {
		if _, err := syntax.Parse(expr[:end], syntax.Perl); err == nil {
			return end
		}
	}
	return 0
}

// String is the pattern as it was written.
func (p Pattern) String() string { return p.source }

// IsZero tells that it is no pattern.
func (p Pattern) IsZero() bool { return p.prog == nil }

// In tells whether the pattern is found in a text that is whole.
func (p Pattern) In(text string) bool { return p.re != nil && p.re.MatchString(text) }

// A Match is where a pattern was found.
type Match struct {
	Text   string   // at most the last megabyte of it
	Groups []string // what its parentheses have, from the first on; "" where one has no part in it
	// Start and End are positions in the console's text.
	Start, End int64
	At         time.Duration // when its last byte came, since the machine's start
}
