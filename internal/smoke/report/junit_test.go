package report

import (
	"bytes"
	"encoding/xml"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/internal/smoke/result"
)

func junit(t testing.TB, run *result.Run) string {
	var b strings.Builder
	require.NoError(t, JUnit(&b, run))
	return b.String()
}

func TestJUnit(t *testing.T) {
	golden(t, "junit.xml", junit(t, sample()))
}

func TestJUnitCounts(t *testing.T) {
	var s junitSuites
	require.NoError(t, xml.Unmarshal([]byte(junit(t, sample())), &s))
	require.Len(t, s.Suites, len(sample().Cases))
	tests, failures, errs := 0, 0, 0
	for _, suite := range s.Suites {
		skipped := 0
		for _, tc := range suite.Cases {
			require.Equal(t, suite.Name, tc.Class)
			if tc.Skipped != nil {
				skipped++
			}
			if tc.Failure != nil {
				failures++
				require.NotEmpty(t, tc.Failure.Type)
				require.NotEmpty(t, tc.Failure.Message)
			}
			if tc.Error != nil {
				errs++
			}
		}
		require.Equal(t, suite.Skipped, skipped, suite.Name)
		tests += len(suite.Cases)
	}
	require.Equal(t, []int{tests, failures, errs}, []int{s.Tests, s.Failures, s.Errors})
	require.Equal(t, 2, errs, "the host's and the machine's faults, and nothing else")
}

func TestJUnitOfRetries(t *testing.T) {
	bad := result.Attempt{Verdict: result.Hang, Reason: "no output", Console: onConsole("x")}
	lost := result.Attempt{Verdict: result.Infrastructure, Reason: "no KVM"}
	good := result.Attempt{Verdict: result.Pass}
	boot := func(attempts ...result.Attempt) junitCase {
		c := result.Case{Name: "c", Attempts: attempts, Verdict: attempts[len(attempts)-1].Verdict}
		var s junitSuites
		require.NoError(t, xml.Unmarshal([]byte(junit(t, &result.Run{Cases: []result.Case{c}})), &s))
		return s.Suites[0].Cases[0]
	}
	b := boot(bad, lost, good)
	require.Nil(t, b.Failure)
	require.Len(t, b.FlakyFailures, 1)
	require.Equal(t, "no output", b.FlakyFailures[0].Message)
	require.Contains(t, b.FlakyFailures[0].Out.Text, "] x\n")
	require.Len(t, b.FlakyErrors, 1)
	b = boot(lost, bad, bad)
	require.Equal(t, "hang", b.Failure.Type)
	require.Len(t, b.RerunErrors, 1)
	require.Len(t, b.RerunFailures, 1)
}

func TestJUnitLeavesOutTheMiddle(t *testing.T) {
	line := strings.Repeat("x", 999)
	var lines []result.Line
	for i := range 3000 {
		lines = append(lines, result.Line{Start: time.Duration(i) * time.Second, Kernel: -1, Text: line})
	}
	text := attach(lines).Text
	require.Less(t, len(text), attached+100)
	require.Greater(t, len(text), attached-3000)
	require.True(t, strings.HasPrefix(text, "   0.000000  x"))
	require.Contains(t, text, " lines left out …\n")
	require.True(t, strings.HasSuffix(text, "\n"+consoleLine(lines[2999])+"\n"))
	require.NotContains(t, attach(lines[:1000]).Text, "left out")
	require.NotEmpty(t, attach([]result.Line{{Text: strings.Repeat("y", 2*attached)}}).Text)
}

// written is the sample in a file, for others' parsers.
func written(t *testing.T, name string, report func(*result.Run) string) string {
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(report(sample())), 0o644))
	return path
}

// run runs another program, or skips without it.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("%s is not installed", name)
	}
	cmd := exec.Command(name, args...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	require.NoError(t, err, "%s", errs.String())
	return string(out)
}

func TestJUnitByXmllint(t *testing.T) {
	path := written(t, "junit.xml", func(r *result.Run) string { return junit(t, r) })
	run(t, "xmllint", "--noout", path)
	run(t, "xmllint", "--noout", "--schema", filepath.Join("testdata", "junit.xsd"), path)
}

func TestJUnitByPython(t *testing.T) {
	path := written(t, "junit.xml", func(r *result.Run) string { return junit(t, r) })
	out := run(t, "python3", "-c", `
import sys, xml.etree.ElementTree as ET
for s in ET.parse(sys.argv[1]).getroot().iter("testsuite"):
    assert int(s.get("tests")) == len(s.findall("testcase"))
    print(s.get("name"), *sorted({e.tag for c in s.iter("testcase") for e in c}))
`, path)
	require.Contains(t, out, "init | <exits> #1 failure skipped system-out\n")
	require.Contains(t, out, "retried flakyError system-out\n")
}

func TestJUnitByJunitparser(t *testing.T) {
	path := written(t, "junit.xml", func(r *result.Run) string { return junit(t, r) })
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("python3 is not installed")
	}
	if exec.Command("python3", "-c", "import junitparser").Run() != nil {
		t.Skip("Python's junitparser is not installed")
	}
	out := run(t, "python3", "-c", `
import sys, junitparser
x = junitparser.JUnitXml.fromfile(sys.argv[1])
print(len(x), sum(len(list(s)) for s in x), x.tests, x.failures, x.errors)
x.update_statistics()
print(len(x), sum(len(list(s)) for s in x), x.tests, x.failures, x.errors)
`, path)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	require.Len(t, lines, 2)
	require.Equal(t, lines[0], lines[1], "it counts as we do")
}

func FuzzJUnit(f *testing.F) {
	f.Add("boot", "Linux version 6.1.0\nlogin:")
	f.Add("a/b <c> & \"d\"", "\x1b[31m ]]> \xff\x00 \ufffe\r\n<![CDATA[")
	f.Fuzz(func(t *testing.T, name, text string) {
		run := &result.Run{Host: name, Cases: []result.Case{{
			Name: name, Verdict: result.Detected, File: text, Reproduce: text,
			Machine: result.Machine{Kernel: text, Append: name},
			Attempts: []result.Attempt{
				{Verdict: result.Infrastructure, Reason: text, Console: onConsole(text)},
				{
					Verdict: result.Detected, Reason: text, Stage: name, Console: onConsole(strings.Split(text, "\n")...),
					Steps:    []result.Step{{Name: text, Verdict: result.Fail, Command: &result.Command{Stdout: text}}},
					Subtests: []result.Subtest{{Name: text, Detail: text}, {Name: name, Skip: true, Detail: text}},
					Findings: []result.Finding{{Summary: text, Trace: strings.Split(text, "\n")}},
				},
			},
		}}}
		out := junit(t, run)
		var s junitSuites
		dec := xml.NewDecoder(strings.NewReader(out))
		dec.Strict = true
		require.NoError(t, dec.Decode(&s))
		require.Equal(t, visible(text), s.Suites[0].File)
		require.Len(t, s.Suites[0].Cases, 4)
		require.Equal(t, visible(text), s.Suites[0].Cases[2].Failure.Text)
		var again bytes.Buffer
		_, err := again.WriteString(xml.Header)
		require.NoError(t, err)
		enc := xml.NewEncoder(&again)
		enc.Indent("", "  ")
		require.NoError(t, enc.Encode(s))
		require.Equal(t, out, again.String()+"\n", "a round trip")
	})
}
