package bls

import (
	"cmp"
	"strings"
)

// Compare orders versions by age, older before newer (UAPI.10, "Version Format
// Specification"): runs of digits are numbers, "~" comes before the end, and what
// is no part of a version separates.
func Compare(a, b string) int {
	for {
		a, b = strings.TrimLeftFunc(a, other), strings.TrimLeftFunc(b, other)
		if x, y := strings.HasPrefix(a, "~"), strings.HasPrefix(b, "~"); x || y {
			if x != y {
				return truth(y) - truth(x)
			}
			a, b = a[1:], b[1:]
			continue
		}
		if a == "" || b == "" {
			return cmp.Compare(len(a), len(b))
		}
		for _, sign := range []string{"-", "^", "."} {
			if x, y := strings.HasPrefix(a, sign), strings.HasPrefix(b, sign); x != y {
				return truth(y) - truth(x)
			} else if x {
				a, b = a[1:], b[1:]
				break
			}
		}
		var x, y string
		if digit(first(a)) || digit(first(b)) {
			x, a = span(a, digit)
			y, b = span(b, digit)
			x, y = strings.TrimLeft(x, "0"), strings.TrimLeft(y, "0")
			if c := cmp.Compare(len(x), len(y)); c != 0 {
				return c
			}
		} else {
			x, a = span(a, letter)
			y, b = span(b, letter)
		}
		if c := strings.Compare(x, y); c != 0 {
			return c
		}
	}
}

func truth(b bool) int {
	if b {
		return 1
	}
	return 0
}

func first(s string) rune {
	for _, r := range s {
		return r
	}
	return 0
}

func digit(r rune) bool  { return r >= '0' && r <= '9' }
func letter(r rune) bool { return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' }

// other is what no version has.
func other(r rune) bool { return !digit(r) && !letter(r) && !strings.ContainsRune("-.~^", r) }

// span cuts off the beginning of s that is all of one kind.
func span(s string, kind func(rune) bool) (head, rest string) {
	n := strings.IndexFunc(s, func(r rune) bool { return !kind(r) })
	if n < 0 {
		n = len(s)
	}
	return s[:n], s[n:]
}
