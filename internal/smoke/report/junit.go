package report

import (
	"cmp"
	"encoding/xml"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/huskvm/husk/internal/smoke/result"
)

// attached is how much of a console, in bytes, a JUnit file has of each attempt.
const attached = 1 << 20

// JUnit writes the XML that CI servers read, in the dialect of Jenkins and Maven
// surefire:
//
//   - A case is a testsuite, with what it booted, its verdict and the command that
//     reproduces it as properties. Its tests are those of the last attempt.
//   - The first testcase is "boot", which is the whole attempt: it has the case's
//     verdict, unless a step has, and the console as system-out. The steps follow,
//     as "step 1: expect …", and the tests that the guest itself reported. So a case
//     that failed by one of those counts twice: that test, and boot.
//   - What the kernel or the guest did is a failure; what husk or the host did
//     (vmm, infrastructure) an error; what was not begun, or is to do, is skipped.
//   - Earlier attempts are flakyFailure or flakyError where the last one passed, and
//     rerunFailure or rerunError where it did not.
//
// What XML cannot carry is written as \x1b, as is what is no UTF-8. Of a long
// console, the middle is left out.
func JUnit(w io.Writer, run *result.Run) error {
	all := junitSuites{Name: "husk smoke", Time: seconds(run.Duration)}
	for i := range run.Cases {
		s := junitOf(run, &run.Cases[i])
		all.Tests += s.Tests
		all.Failures += s.Failures
		all.Errors += s.Errors
		all.Suites = append(all.Suites, s)
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	enc := xml.NewEncoder(w)
	enc.Indent("", "  ")
	if err := enc.Encode(all); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

type junitSuites struct {
	XMLName  xml.Name     `xml:"testsuites"`
	Name     string       `xml:"name,attr"`
	Tests    int          `xml:"tests,attr"`
	Failures int          `xml:"failures,attr"`
	Errors   int          `xml:"errors,attr"`
	Time     string       `xml:"time,attr"`
	Suites   []junitSuite `xml:"testsuite"`
}

type junitSuite struct {
	Name       string          `xml:"name,attr"`
	Tests      int             `xml:"tests,attr"`
	Failures   int             `xml:"failures,attr"`
	Errors     int             `xml:"errors,attr"`
	Skipped    int             `xml:"skipped,attr"`
	Time       string          `xml:"time,attr"`
	Timestamp  string          `xml:"timestamp,attr"`
	Hostname   string          `xml:"hostname,attr,omitempty"`
	File       string          `xml:"file,attr,omitempty"`
	Properties []junitProperty `xml:"properties>property"`
	Cases      []junitCase     `xml:"testcase"`
}

type junitProperty struct {
	Name  string `xml:"name,attr"`
	Value string `xml:"value,attr"`
}

// junitCase has its elements in the order of surefire's schema.
type junitCase struct {
	Name          string         `xml:"name,attr"`
	Class         string         `xml:"classname,attr"`
	Time          string         `xml:"time,attr"`
	Failure       *junitProblem  `xml:"failure"`
	RerunFailures []junitAttempt `xml:"rerunFailure"`
	FlakyFailures []junitAttempt `xml:"flakyFailure"`
	Skipped       *junitSkipped  `xml:"skipped"`
	Error         *junitProblem  `xml:"error"`
	RerunErrors   []junitAttempt `xml:"rerunError"`
	FlakyErrors   []junitAttempt `xml:"flakyError"`
	Out           *junitText     `xml:"system-out"`
	Err           *junitText     `xml:"system-err"`
}

type junitProblem struct {
	Message string `xml:"message,attr"`
	Type    string `xml:"type,attr"`
	Text    string `xml:",cdata"`
}

type junitSkipped struct {
	Message string `xml:"message,attr,omitempty"`
}

type junitAttempt struct {
	Message string     `xml:"message,attr"`
	Type    string     `xml:"type,attr"`
	Trace   junitText  `xml:"stackTrace"`
	Out     *junitText `xml:"system-out"`
}

type junitText struct {
	Text string `xml:",cdata"`
}

// junitOf is a case as a suite.
func junitOf(run *result.Run, c *result.Case) junitSuite {
	a := ofTests(c)
	s := junitSuite{
		Name: oneLine(c.Name), Time: seconds(took(c)), Hostname: visible(run.Host), File: visible(c.File),
		Properties: junitProperties(run, c),
	}
	if started := cmp.Or(a.Started, run.Started); !started.IsZero() {
		s.Timestamp = started.UTC().Format("2006-01-02T15:04:05")
	}
	boot := junitCase{Name: "boot", Class: s.Name, Time: seconds(a.Duration - inSteps(a)), Out: attach(a.Console)}
	if len(a.Problems) > 0 {
		boot.Err = &junitText{Text: visible(strings.Join(a.Problems, "\n")) + "\n"}
	}
	s.Cases = append(s.Cases, boot)
	carrier := 0 // the testcase with the case's verdict
	for i := range a.Steps {
		step := &a.Steps[i]
		tc := junitCase{Name: fmt.Sprintf("step %d: %s", i+1, oneLine(step.Name)), Class: s.Name, Time: seconds(step.Duration)}
		switch {
		case step.Verdict == result.Skipped:
			tc.Skipped = &junitSkipped{Message: oneLine(step.Reason)}
		case failed(step.Verdict) && carrier == 0 && failed(c.Verdict):
			carrier = len(s.Cases)
		case failed(step.Verdict):
			tc.fail(step.Verdict, cmp.Or(oneLine(step.Reason), string(step.Verdict)), "")
		}
		s.Cases = append(s.Cases, tc)
	}
	s.Cases[carrier].carry(c)
	for i := range a.Subtests {
		s.Cases = append(s.Cases, junitOfSubtest(s.Name, &a.Subtests[i]))
	}
	for i := range s.Cases {
		s.Tests++
		switch tc := &s.Cases[i]; {
		case tc.Failure != nil:
			s.Failures++
		case tc.Error != nil:
			s.Errors++
		case tc.Skipped != nil:
			s.Skipped++
		}
	}
	return s
}

// carry gives a testcase the verdict of its case, and the attempts before.
func (tc *junitCase) carry(c *result.Case) {
	a := last(c)
	switch {
	case c.Verdict == result.Skipped:
		tc.Skipped = &junitSkipped{Message: reason(a)}
	case failed(c.Verdict):
		tc.fail(c.Verdict, reason(a), strings.Join(explain(a), "\n")+"\n")
	}
	for i := range max(len(c.Attempts)-1, 0) {
		before := &c.Attempts[i]
		if !failed(before.Verdict) {
			continue
		}
		ja := junitAttempt{
			Message: reason(before), Type: string(before.Verdict),
			Trace: junitText{Text: strings.Join(explain(before), "\n") + "\n"},
			Out:   attach(before.Console),
		}
		list := &tc.FlakyFailures
		switch again := failed(c.Verdict); {
		case again && isError(before.Verdict):
			list = &tc.RerunErrors
		case again:
			list = &tc.RerunFailures
		case isError(before.Verdict):
			list = &tc.FlakyErrors
		}
		*list = append(*list, ja)
	}
}

// fail makes the testcase a failure, or an error.
func (tc *junitCase) fail(v result.Verdict, message, text string) {
	p := &junitProblem{Message: message, Type: string(v), Text: text}
	if isError(v) {
		tc.Error = p
		return
	}
	tc.Failure = p
}

// isError tells whether a verdict says nothing of the kernel.
func isError(v result.Verdict) bool { return v == result.Infrastructure || v == result.VMM }

func junitOfSubtest(class string, t *result.Subtest) junitCase {
	tc := junitCase{Name: oneLine(t.Name), Class: class, Time: seconds(t.Duration)}
	head, _, _ := strings.Cut(t.Detail, "\n")
	switch {
	case t.Failed():
		tc.Failure = &junitProblem{Message: cmp.Or(oneLine(head), "not ok"), Type: "ktap", Text: visible(t.Detail)}
	case t.Skip:
		tc.Skipped = &junitSkipped{Message: oneLine(head)}
	case t.Todo && !t.OK:
		tc.Skipped = &junitSkipped{Message: strings.TrimSpace("TODO " + oneLine(head))}
	}
	return tc
}

func junitProperties(run *result.Run, c *result.Case) []junitProperty {
	a := last(c)
	var all []junitProperty
	add := func(name, value string) {
		if value != "" {
			all = append(all, junitProperty{Name: name, Value: visible(value)})
		}
	}
	m := &c.Machine
	add("kernel", m.Kernel)
	for _, i := range m.Initrds {
		add("initrd", i)
	}
	add("append", m.Append)
	add("cpus", strconv.Itoa(m.CPUs))
	add("memory", strconv.FormatUint(m.Memory, 10))
	for _, d := range m.Disks {
		add("disk", d)
	}
	add("verdict", string(c.Verdict))
	add("stage", a.Stage)
	add("flaky", strconv.FormatBool(c.Flaky))
	add("attempts", strconv.Itoa(len(c.Attempts)))
	if a.Guest != nil {
		add("guest.outcome", a.Guest.Outcome)
		add("guest.code", strconv.Itoa(a.Guest.Code))
	}
	for _, p := range a.Phases {
		add("phase."+p.Name, seconds(p.At))
	}
	if c.Line > 0 {
		add("line", strconv.Itoa(c.Line))
	}
	add("files", a.Dir)
	add("reproduce", c.Reproduce)
	add("husk", run.Husk)
	add("accel", run.Accel)
	return all
}

// attach is a console as an element; of a long one, the beginning and the end.
func attach(lines []result.Line) *junitText {
	if len(lines) == 0 {
		return nil
	}
	var head, rest []string
	room := attached / 4
	for _, l := range lines {
		line := consoleLine(l) + "\n"
		if rest == nil && len(line) <= room {
			head = append(head, line)
			room -= len(line)
			continue
		}
		rest = append(rest, line)
	}
	room, from := attached*3/4, len(rest)
	for from > 0 && len(rest[from-1]) <= room {
		from--
		room -= len(rest[from])
	}
	text := strings.Join(head, "")
	if from > 0 {
		text += fmt.Sprintf("… %s left out …\n", plural(from, "line"))
	}
	return &junitText{Text: text + strings.Join(rest[from:], "")}
}

// seconds is a time as JUnit has it.
func seconds(d time.Duration) string { return fmt.Sprintf("%.3f", max(d, 0).Seconds()) }

// inSteps is the time of all steps.
func inSteps(a *result.Attempt) (d time.Duration) {
	for i := range a.Steps {
		d += a.Steps[i].Duration
	}
	return d
}
