package report

import (
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/internal/smoke/console"
	"github.com/huskvm/husk/internal/smoke/ktap"
	"github.com/huskvm/husk/internal/smoke/result"
)

func tapOf(t testing.TB, run *result.Run) string {
	var b strings.Builder
	require.NoError(t, TAP(&b, run))
	return b.String()
}

func TestTAP(t *testing.T) {
	golden(t, "report.tap", tapOf(t, sample()))
}

// TestTAPByHarness asks Perl's own, which knows no subtests: it sees the cases.
func TestTAPByHarness(t *testing.T) {
	path := written(t, "report.tap", func(r *result.Run) string { return tapOf(t, r) })
	if exec.Command("perl", "-MTAP::Parser", "-e", "1").Run() != nil {
		t.Skip("Perl with TAP::Parser is not installed")
	}
	out := run(t, "perl", "-MTAP::Parser", "-e", `
		my $p = TAP::Parser->new({ source => $ARGV[0] });
		while (my $r = $p->next) {
			print $r->is_ok ? "ok" : "not ok", " ", $r->number, $r->has_skip ? " skip" : "", "\n" if $r->is_test;
			print "  ", $r->data->{verdict}, "|", $r->data->{reproduce}, "\n" if $r->is_yaml;
		}
		print "planned ", $p->tests_planned, " run ", $p->tests_run, " errors ", scalar($p->parse_errors), "\n";
		print "$_\n" for $p->parse_errors;
	`, path)
	golden(t, "report.tap.perl", out)
	require.Contains(t, out, "errors 0\n")
}

func TestTAPByProve(t *testing.T) {
	path := written(t, "report.tap", func(r *result.Run) string {
		r.Cases = r.Cases[:2]
		return tapOf(t, r)
	})
	require.Contains(t, run(t, "prove", "--exec", "cat", path), "All tests successful.")
}

func TestTAPBlocksAreYAML(t *testing.T) {
	path := written(t, "report.tap", func(r *result.Run) string { return tapOf(t, r) })
	if exec.Command("python3", "-c", "import yaml").Run() != nil {
		t.Skip("Python's yaml is not installed")
	}
	out := run(t, "python3", "-c", `
import re, sys, yaml
for block in re.findall(r"^ *---\n(.*?)^ *\.\.\.\n", open(sys.argv[1]).read(), re.S | re.M):
    d = yaml.safe_load(block)
    print(d.get("verdict"), "|", d.get("reproduce"), "|", len(d.get("explanation", [])))
`, path)
	require.Contains(t, out, `detected | husk smoke -k bzImage -a 'init=/bin/false "x" | y' | `)
}

var tapLine = regexp.MustCompile(`^( *)(?:(1)\.\.(\d+)|(?:not )?ok (\d+) -(?: |$))`)

// counted fails where a plan and the results of its level differ.
func counted(t *testing.T, tap string) {
	planned, seen := map[int]string{}, map[int]int{}
	for _, line := range strings.Split(tap, "\n") {
		m := tapLine.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		level := len(m[1])
		for l := range planned {
			if l > level {
				require.Equal(t, planned[l], fmt.Sprint(seen[l]))
				delete(planned, l)
			}
		}
		if m[3] != "" {
			require.NotContains(t, planned, level, "%s", line)
			planned[level], seen[level] = m[3], 0
			continue
		}
		seen[level]++
		require.Equal(t, m[4], fmt.Sprint(seen[level]))
	}
	require.Equal(t, planned[0], fmt.Sprint(seen[0]))
}

func FuzzTAP(f *testing.F) {
	f.Add("boot", "Linux version 6.1.0", "a # SKIP b")
	f.Add("x\n1..7\nok 1 - y", "---\n  ...\nok 3 - z\nBail out!", `back\slash \# "quote"`)
	f.Add("", "\x1b[0m\xff", "TAP version 13")
	f.Fuzz(func(t *testing.T, name, text, other string) {
		if len(name)+len(text)+len(other) > 500 {
			t.Skip("our own reader looks at the beginning of a line only")
		}
		run := &result.Run{Host: name, Cases: []result.Case{
			{Name: name, Verdict: result.Pass, Flaky: true, Reproduce: text, Attempts: []result.Attempt{
				{Verdict: result.Hang, Reason: text},
				{
					Verdict: result.Pass, Problems: []string{text},
					Steps:    []result.Step{{Name: text, Verdict: result.Skipped, Reason: other}, {Name: other, Verdict: result.Fail, Reason: name}},
					Subtests: []result.Subtest{{Name: name, OK: true}, {Name: text, Detail: other}, {Name: other, Skip: true, Detail: text}, {Name: other, Todo: true, Detail: name}},
				},
			}},
			{Name: other, Verdict: result.Detected, Attempts: []result.Attempt{{Verdict: result.Detected, Reason: text, Stage: name, Console: onConsole(text)}}},
			{Name: text, Verdict: result.Skipped},
		}}
		out := tapOf(t, run)
		counted(t, out)

		// Our own reader of guests' TAP finds all of it, too.
		var p ktap.Parser
		for _, line := range strings.Split(out, "\n") {
			p.Line(console.Line{Kernel: -1, Text: line})
		}
		require.Empty(t, p.Problems(), "%s", out)
		bad := 0
		for _, s := range p.Subtests() {
			if s.Failed() {
				bad++
			}
		}
		require.Equal(t, 3, bad, "%s", out)
	})
}
