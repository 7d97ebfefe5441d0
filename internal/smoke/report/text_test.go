package report

import (
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/internal/smoke/result"
)

func TestVisible(t *testing.T) {
	for in, want := range map[string]string{
		"plain, Grüße, 日本":  "plain, Grüße, 日本",
		"tab\tand\nline":    "tab\tand\nline",
		"\x1b[2J\a\x00\x7f": `\x1b[2J\x07\x00\x7f`,
		"latin \xe9\xff":    `latin \xe9\xff`,
		"\u009b31m":         `\u009b31m`, // CSI in one character
		"a\u202eb\u2066c":   `a\u202eb\u2066c`,
		"\ufffe\U0001ffff":  `\ufffe\U0001ffff`,
		"\ufffd":            "\ufffd", // it is a character, which somebody wrote
		"\r":                `\x0d`,
	} {
		require.Equal(t, want, visible(in))
	}
}

func FuzzVisible(f *testing.F) {
	f.Add("Linux version 6.1.0")
	f.Add("\x1b[31mred\x1b[0m \xff\u202e\ufffe")
	f.Fuzz(func(t *testing.T, s string) {
		got := visible(s)
		require.True(t, utf8.ValidString(got))
		for _, r := range got {
			require.True(t, r == '\t' || r == '\n' || !unicode.IsControl(r), "%q", got)
		}
		require.Equal(t, got, visible(got), "once is enough")
	})
}

func TestShort(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second:              "0 s",
		0:                         "0 s",
		420 * time.Microsecond:    "0.42 ms",
		340 * time.Millisecond:    "340 ms",
		999600 * time.Microsecond: "1.00 s",
		1240 * time.Millisecond:   "1.24 s",
		9996 * time.Millisecond:   "10.0 s",
		59949 * time.Millisecond:  "59.9 s",
		59951 * time.Millisecond:  "1 min 0 s",
		125 * time.Second:         "2 min 5 s",
		time.Hour - 1:             "1 h 0 min",
		100 * time.Minute:         "1 h 40 min",
	} {
		require.Equal(t, want, short(d), "%v", d)
	}
}

func TestConsoleLine(t *testing.T) {
	at := 1234567 * time.Microsecond
	require.Equal(t, "   1.234567  [    0.000012] text\\x07",
		consoleLine(result.Line{Start: at, Kernel: 12 * time.Microsecond, Text: "text\a"}))
	require.Equal(t, "   1.234567  login:", consoleLine(result.Line{Start: at, Kernel: -1, Text: "login:"}))
}
