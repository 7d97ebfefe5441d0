package report

import (
	"fmt"
	"html"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/internal/smoke/result"
)

func annotated(t testing.TB, run *result.Run) string {
	var b strings.Builder
	require.NoError(t, Annotations(&b, run))
	return b.String()
}

func summarized(t testing.TB, run *result.Run) string {
	var b strings.Builder
	require.NoError(t, Summary(&b, run))
	return b.String()
}

func TestAnnotations(t *testing.T) {
	golden(t, "annotations.txt", annotated(t, sample()))
	require.Empty(t, annotated(t, &result.Run{}))
}

func TestAnnotationsAreTenOfAKind(t *testing.T) {
	many := func(n int) string {
		var run result.Run
		for i := range n {
			c := hung()
			c.Name = fmt.Sprint("case ", i)
			run.Cases = append(run.Cases, c, result.Case{Verdict: result.Pass, Flaky: true, Attempts: c.Attempts})
		}
		return annotated(t, &run)
	}
	require.Equal(t, 20, strings.Count(many(10), "\n"))
	require.NotContains(t, many(10), "more cases")
	out := many(25)
	require.Equal(t, 10, strings.Count(out, "::error "))
	require.Equal(t, 10, strings.Count(out, "::warning "))
	require.Contains(t, out, "::error title=husk smoke::16 more cases are failures; the log has all\n")
}

// command is how the runner of Actions reads a line (its ActionCommand.cs).
var command = regexp.MustCompile(`^::(error|warning) ([^:]*)::(.*)$`)

func unescape(s string) string {
	return strings.NewReplacer("%3A", ":", "%2C", ",", "%0D", "\r", "%0A", "\n", "%25", "%").Replace(s)
}

func FuzzAnnotations(f *testing.F) {
	f.Add("boot", "no output for 30 s", "ci/boot.yaml")
	f.Add("a,b::c=d", "100%\r\n::set-output name=x::y %0A", "a:b,c%2C.yaml")
	f.Fuzz(func(t *testing.T, name, reason, file string) {
		out := annotated(t, &result.Run{Cases: []result.Case{{
			Name: name, Verdict: result.Hang, File: file, Line: 3, Reproduce: reason,
			Attempts: []result.Attempt{{Verdict: result.Hang, Reason: reason, Stage: name}},
		}}})
		require.Equal(t, 1, strings.Count(out, "\n"))
		require.NotContains(t, out, "\r")
		m := command.FindStringSubmatch(strings.TrimSuffix(out, "\n"))
		require.NotNil(t, m, "%q", out)
		want := "title=" + property("husk smoke: "+oneLine(name))
		if file != "" {
			want += ",file=" + property(visible(file)) + ",line=3"
		}
		require.Equal(t, want, m[2])
		if file != "" {
			got := strings.Split(m[2], ",")
			require.Len(t, got, 3)
			require.Equal(t, "file="+visible(file), unescape(got[1]))
		}
		require.True(t, strings.HasPrefix(unescape(m[3]), "hang: "))
	})
}

func TestSummary(t *testing.T) {
	golden(t, "summary.md", summarized(t, sample()))
}

func TestSummaryIsBounded(t *testing.T) {
	long := hung()
	long.Attempts[0].Reason = strings.Repeat("<", 100_000)
	long.Reproduce = strings.Repeat("&", 100_000)
	long.Name = strings.Repeat("|", 5000)
	for i := range 40 {
		long.Attempts[0].Console[i].Text = strings.Repeat("\x00", 5000)
	}
	var run result.Run
	for range 5000 {
		run.Cases = append(run.Cases, long)
	}
	out := summarized(t, &run)
	require.Less(t, len(out), 1<<20)
	require.Greater(t, len(out), 900<<10)
	require.Regexp(t, `And \d+ cases that the table has no room for`, out)
	require.Regexp(t, `And \d+ failures that there is no room to explain`, out)
	require.Equal(t, strings.Count(out, "<pre>"), strings.Count(out, "</pre>"))
	require.Equal(t, strings.Count(out, "<details>"), strings.Count(out, "</details>"))
}

func FuzzSummary(f *testing.F) {
	f.Add("boot", "no output for 30 s")
	f.Add("a | b\n| c", "</pre><script> `x` | [l](u) \x1b[0m\xff\n\n# head")
	f.Fuzz(func(t *testing.T, name, text string) {
		out := summarized(t, &result.Run{Cases: []result.Case{{
			Name: name, Verdict: result.Detected, Reproduce: text, Attempts: []result.Attempt{{
				Verdict: result.Detected, Reason: text, Stage: name,
				Findings: []result.Finding{{Summary: name, Trace: strings.Split(text, "\n")}},
			}},
		}}})
		lines := strings.Split(out, "\n")
		require.Equal(t, "|---|---|---|---:|---|", lines[5])
		require.Equal(t, 6, strings.Count(lines[6], "|"), "%q", lines[6])
		require.Empty(t, lines[7])
		if short := oneLine(name); len(short) < 300 {
			require.Equal(t, short, html.UnescapeString(strings.TrimSuffix(strings.TrimPrefix(strings.Split(lines[6], " | ")[0], "| "), " ")))
		}
		for _, tag := range regexp.MustCompile(`<[^>]*>?`).FindAllString(out, -1) {
			require.Contains(t, []string{"<details>", "</details>", "<summary>", "</summary>", "<pre>", "</pre>"}, tag)
		}
	})
}
