package console

import (
	"testing"
	"time"
)

func TestParseStamp(t *testing.T) {
	for _, c := range []struct {
		in     string
		kernel time.Duration
		level  int
		caller string
		text   string
	}{
		{"[    0.000000] Linux version 6.1.0", 0, -1, "", "Linux version 6.1.0"},
		{"[    0.123456] x", 123456 * time.Microsecond, -1, "", "x"},
		{"[12345.678901] x", 12345*time.Second + 678901*time.Microsecond, -1, "", "x"},
		{"[1234567.000001]  two", 1234567*time.Second + time.Microsecond, -1, "", " two"},
		{"[    0.123456][    T1] x", 123456 * time.Microsecond, -1, "T1", "x"},
		{"[    0.123456][   C12] [x] y", 123456 * time.Microsecond, -1, "C12", "[x] y"},
		{"[    0.123456][T12345] x", 123456 * time.Microsecond, -1, "T12345", "x"},
		{"<6>[    0.123456] x", 123456 * time.Microsecond, 6, "", "x"},
		{"<14>[    0.123456] x", 123456 * time.Microsecond, 6, "", "x"},
		{"[    0.123456] ", 123456 * time.Microsecond, -1, "", ""},
		{"[    0.123456]", 123456 * time.Microsecond, -1, "", ""},
		{"[    1.000000][ T1 ] x", time.Second, -1, "", "[ T1 ] x"},
		{"<4>BUG: x", -1, 4, "", "BUG: x"},
		{"<b>x", -1, -1, "", "<b>x"},
		{"[  OK  ] Started x", -1, -1, "", "[  OK  ] Started x"},
		{"[1.5] x", -1, -1, "", "[1.5] x"},
		{"[    0.12345] x", -1, -1, "", "[    0.12345] x"},
		{"[    0.1234567] x", -1, -1, "", "[    0.1234567] x"},
		{"[     .123456] x", -1, -1, "", "[     .123456] x"},
		{"[    a.123456] x", -1, -1, "", "[    a.123456] x"},
		{"[Sat Jan 1 00:00:00 2022] x", -1, -1, "", "[Sat Jan 1 00:00:00 2022] x"},
		{"", -1, -1, "", ""},
	} {
		s, text, ok := ParseStamp(c.in)
		if s.Kernel != c.kernel || s.Level != c.level || s.Caller != c.caller || text != c.text || ok != (c.kernel >= 0) {
			t.Errorf("%q: %+v %q %v", c.in, s, text, ok)
		}
	}
}

func TestFindStamp(t *testing.T) {
	before, s, text, ok := FindStamp("localhost [x] login: <0>[   12.345678][    T1] BUG: x")
	if before != "localhost [x] login: <0>" || s.Kernel != 12345678*time.Microsecond || text != "BUG: x" || !ok {
		t.Errorf("%q %v %q %v", before, s, text, ok)
	}
	for _, in := range []string{"", "[", "x [  OK  ] y", "[    1.000000] x"} {
		if before, _, _, ok := FindStamp(in); ok || before != in {
			t.Errorf("%q: %q %v", in, before, ok)
		}
	}
}

func FuzzStamp(f *testing.F) {
	for _, s := range []string{"[    0.123456] x", "<6>[    0.123456][    T1] x", "a [12345.678901] b", "[[[[", "<999999>"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		s, text, ok := ParseStamp(line)
		if ok != (s.Kernel >= 0) || len(text) > len(line) || line[len(line)-len(text):] != text {
			t.Errorf("%q: %+v %q %v", line, s, text, ok)
		}
		if before, _, text, ok := FindStamp(line); ok && (before == "" || len(before)+len(text) >= len(line)) {
			t.Errorf("%q: found %q %q", line, before, text)
		}
	})
}
