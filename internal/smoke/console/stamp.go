package console

import (
	"strings"
	"time"
)

// A Stamp is what a kernel puts in front of a message.
type Stamp struct {
	Kernel time.Duration // since what the kernel takes for its start
	Level  int           // the log level, 0 (emergency) to 7 (debug); -1 where it has none
	Caller string        // "T1" for a thread, "C0" for a processor; "" where it has none
}

// ParseStamp takes a kernel's stamp from the start of a line, as kernel/printk has
// it:
//
//	[    0.123456] text
//	[    0.123456][    T1] text     with CONFIG_PRINTK_CALLER
//	<6>[    0.123456] text          with console_msg_format=syslog
//
// A log level alone, "<6>text", is taken too, and is no stamp.
func ParseStamp(line string) (s Stamp, text string, ok bool) {
	s.Level = -1
	rest := line
	if len(rest) >= 3 && rest[0] == '<' {
		// Level and facility are one number, and a user's message has another facility.
		if n, r, found := strings.Cut(rest[1:], ">"); found && len(n) <= 3 {
			if v, good := digits(n); good {
				s.Level, rest = int(v&7), r
			}
		}
	}
	t, rest2, ok := stampTime(rest)
	if !ok {
		return Stamp{Kernel: -1, Level: s.Level}, rest, false
	}
	s.Kernel, rest = t, rest2
	if strings.HasPrefix(rest, "[") {
		if id, r, found := strings.Cut(rest[1:], "]"); found && isCaller(strings.TrimLeft(id, " ")) {
			s.Caller, rest = strings.TrimLeft(id, " "), r
		}
	}
	return s, strings.TrimPrefix(rest, " "), true
}

// FindStamp finds where a kernel's stamp begins behind other text on a line: a
// message that came in the midst of what a program was writing. It returns what
// stands before the first one.
func FindStamp(line string) (before string, s Stamp, text string, ok bool) {
	for from := 1; from < len(line); {
		i := strings.IndexByte(line[from:], '[')
		if i < 0 {
			break
		}
		i += from
		if s, text, ok = ParseStamp(line[i:]); ok {
			return line[:i], s, text, true
		}
		from = i + 1
	}
	return line, Stamp{Kernel: -1, Level: -1}, "", false
}

// stampTime takes "[    0.123456]" off: seconds in five places or more, filled
// with spaces, and six digits of microseconds. A stamp is known from other brackets
// by just this form.
func stampTime(line string) (time.Duration, string, bool) {
	const shortest = len("[    0.123456]")
	if len(line) < shortest || line[0] != '[' {
		return 0, "", false
	}
	dot := strings.IndexByte(line, '.')
	if dot < len("[    0") || dot > len("[9999999999") || len(line) < dot+len(".123456]") || line[dot+7] != ']' {
		return 0, "", false
	}
	seconds, ok := digits(strings.TrimLeft(line[1:dot], " "))
	micros, ok2 := digits(line[dot+1 : dot+7])
	if !ok || !ok2 {
		return 0, "", false
	}
	return time.Duration(seconds)*time.Second + time.Duration(micros)*time.Microsecond, line[dot+8:], true
}

// isCaller tells a caller's id: T and a thread's id, or C and a processor.
func isCaller(id string) bool {
	if len(id) < 2 || id[0] != 'T' && id[0] != 'C' {
		return false
	}
	_, ok := digits(id[1:])
	return ok
}

// digits is s as a number of at most ten digits.
func digits(s string) (int64, bool) {
	if s == "" || len(s) > 10 {
		return 0, false
	}
	var v int64
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return 0, false
		}
		v = v*10 + int64(c-'0')
	}
	return v, true
}
