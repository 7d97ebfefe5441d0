package report

import (
	"encoding/xml"
	"html"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/internal/smoke/result"
)

// failure is a run of one case that failed, with a command to reproduce it.
func failure(reproduce string) *result.Run {
	return &result.Run{Cases: []result.Case{{
		Name: "c", Verdict: result.Fail, Reproduce: reproduce,
		Attempts: []result.Attempt{{Verdict: result.Fail, Reason: "it failed"}},
	}}}
}

var reproduces = []string{
	`husk smoke --expect 'a   b' --run 'printf "%s\n" "x"'`,
	"husk smoke --run 'set -e\n\n\tmake  check # a <b> & c\nuname\\' -k 'x '",
}

// TestReproduceIsExact reads the command back from each report.
func TestReproduceIsExact(t *testing.T) {
	for _, want := range reproduces {
		var s junitSuites
		require.NoError(t, xml.Unmarshal([]byte(junit(t, failure(want))), &s))
		found := false
		for _, p := range s.Suites[0].Properties {
			found = found || p.Name == "reproduce" && p.Value == want
		}
		require.True(t, found, "%+v", s.Suites[0].Properties)

		m := regexp.MustCompile(`(?s)To reproduce it:\n\n<pre>(.*?)</pre>`).FindStringSubmatch(summarized(t, failure(want)))
		require.Equal(t, want, html.UnescapeString(m[1]))

		_, message, _ := strings.Cut(annotated(t, failure(want)), "reproduce it: ")
		require.Equal(t, want, unescape(strings.TrimSuffix(message, "\n")))

		var out strings.Builder
		p := NewPlain(&out, Options{})
		p.CaseDone(&failure(want).Cases[0])
		require.NoError(t, p.Close())
		require.Contains(t, out.String(), "to reproduce it:\n      "+want+"\n")

		m = regexp.MustCompile(`(?m)^  reproduce: "(.*)"$`).FindStringSubmatch(tapOf(t, failure(want)))
		require.Equal(t, want, strings.NewReplacer(`\\`, `\`, `\"`, `"`, `\n`, "\n", `\t`, "\t").Replace(m[1]))
	}
}

// TestReproduceIsExactForOthers asks readers of YAML.
func TestReproduceIsExactForOthers(t *testing.T) {
	for _, r := range []struct{ name, test, program string }{
		{"perl", "use TAP::Parser", `use TAP::Parser; my $p = TAP::Parser->new({ source => $ARGV[0] });
			while (my $r = $p->next) { print $r->data->{reproduce} if $r->is_yaml }`},
		{"python3", "import yaml", `
import re, sys, yaml
print(yaml.safe_load(re.search(r"^ *---\n(.*?)^ *\.\.\.\n", open(sys.argv[1]).read(), re.S | re.M)[1])["reproduce"], end="")`},
	} {
		t.Run(r.name, func(t *testing.T) {
			flag := map[string]string{"perl": "-e", "python3": "-c"}[r.name]
			if exec.Command(r.name, flag, r.test).Run() != nil {
				t.Skipf("%s has no reader of YAML", r.name)
			}
			for _, want := range reproduces {
				path := written(t, "report.tap", func(*result.Run) string { return tapOf(t, failure(want)) })
				require.Equal(t, want, run(t, r.name, flag, r.program, path))
			}
		})
	}
}

// TestInterrupted has a case whose run was ended in the midst of a step: nothing of it
// is a failure.
func TestInterrupted(t *testing.T) {
	all := &result.Run{Cases: []result.Case{{
		Name: "c", Verdict: result.Skipped,
		Attempts: []result.Attempt{{
			Verdict: result.Skipped, Reason: "interrupted, in step 1 (expect x)",
			Steps:    []result.Step{{Name: "expect x", Verdict: result.Fail, Reason: "interrupted"}},
			Subtests: []result.Subtest{{Name: "a"}, {Name: "b", OK: true}},
		}},
	}}}
	tap := tapOf(t, all)
	require.NotContains(t, tap, "not ok")
	require.Contains(t, tap, `ok 1 - expect x # SKIP interrupted`)
	var s junitSuites
	require.NoError(t, xml.Unmarshal([]byte(junit(t, all)), &s))
	require.Zero(t, s.Failures+s.Errors)
	require.Equal(t, 3, s.Suites[0].Skipped, "%+v", s.Suites[0])
	require.Empty(t, annotated(t, all))
	require.NotContains(t, summarized(t, all), "❌")
	require.Equal(t, result.Fail, all.Cases[0].Attempts[0].Steps[0].Verdict, "the result stays as it is")
	var out strings.Builder
	p := NewPlain(&out, Options{})
	p.CaseDone(&all.Cases[0])
	require.NoError(t, p.Close())
	require.NotContains(t, out.String(), "---")
}

// TestLab: figures from the lab are labelled.
func TestLab(t *testing.T) {
	lab := failure("husk smoke")
	lab.Accel = "lab"
	require.Contains(t, summarized(t, lab), "1 case in 0 s (lab)\n")
	require.Contains(t, tapOf(t, lab), "(lab)\n")
	require.Contains(t, junit(t, lab), `<property name="accel" value="lab">`)
	for accel, want := range map[string]string{"lab": " (lab): 1 pass", "kvm": "s: 1 pass"} {
		var out strings.Builder
		p := NewPlain(&out, Options{Accel: accel})
		p.CaseDone(&result.Case{Name: "c", Verdict: result.Pass})
		require.NoError(t, p.Close())
		require.Contains(t, out.String(), want)
	}
}

func TestUnnamed(t *testing.T) {
	c := hung()
	a := &c.Attempts[0]
	a.Unnamed = "vmlinux is of another build;\n  give --symbols"
	require.Contains(t, explain(a), "places in the kernel have no names: vmlinux is of another build; give --symbols")
}
