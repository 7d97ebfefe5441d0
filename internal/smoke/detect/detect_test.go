package detect

import (
	"fmt"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

var stamp = regexp.MustCompile(`(?m)^(\[ *\d+\.\d{6}\]) ?`)

// TestSamples finds in each sample what is to be found, in each form that a kernel
// gives its lines.
func TestSamples(t *testing.T) {
	forms := []struct {
		name string
		make func(string) string
	}{
		{"as it is", func(s string) string { return s }},
		{"crlf", func(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }},
		{"callers", func(s string) string { return stamp.ReplaceAllString(s, "$1[    T1] ") }},
		{"levels", func(s string) string { return stamp.ReplaceAllString(s, "<4>$1 ") }},
		{"no stamps", func(s string) string { return stamp.ReplaceAllString(s, "") }},
		{"sequences", func(s string) string { return stamp.ReplaceAllString(s, "\x1b[32m$1 \x1b[0m") }},
	}
	for _, s := range samples(t) {
		for _, form := range forms {
			t.Run(s.name+"/"+form.name, func(t *testing.T) {
				d := run(t, Config{}, form.make(s.text))
				var got []string
				for _, f := range d.Findings() {
					got = append(got, fmt.Sprintf("%s %d %d", f.Kind, f.Event, len(f.Trace)))
				}
				if !reflect.DeepEqual(got, s.want) {
					t.Errorf("found %q, want %q", got, s.want)
					for _, f := range d.Findings() {
						t.Logf("%s:\n%s", f.Kind, strings.Join(f.Trace, "\n"))
					}
				}
			})
		}
	}
}

// TestCuts cuts each sample in two at every byte of its first lines: the findings
// stay the same. Longer ones are the fuzzer's, and cuts as such the console's tests'.
const maxCut = 300

func TestCuts(t *testing.T) {
	for _, s := range samples(t) {
		text := strings.ReplaceAll(s.text, "\n", "\r\n")
		if len(text) > maxCut {
			text = text[:maxCut]
		}
		want := timeless(run(t, Config{}, text).Findings())
		for i := range len(text) {
			got := timeless(run(t, Config{}, text[:i], text[i:]).Findings())
			if !reflect.DeepEqual(got, want) {
				t.Fatalf("%s cut at %d: %+v, want %+v", s.name, i, got, want)
			}
		}
	}
}
