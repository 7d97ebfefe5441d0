package report

import (
	"fmt"
	"html"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/huskvm/husk/internal/smoke/result"
)

const (
	// annotations of one kind are shown of one step; GitHub drops the others silently.
	annotations = 10
	// summaryLimit is what a step's summary may have, GitHub refuses a larger one as a
	// whole; the rest of its 1 MiB is left to what else the step has to say.
	summaryLimit = 1000 << 10
	// summaryDetails is the same for one case.
	summaryDetails = 16 << 10
)

// Annotations writes GitHub's workflow commands to a step's output: an error for
// each case that failed, a warning for each flaky one, at the file and line where the
// case is written. Of each kind GitHub shows ten; the tenth says how many more there
// are.
func Annotations(w io.Writer, run *result.Run) error {
	var errs, warnings []annotation
	for i := range run.Cases {
		c := &run.Cases[i]
		a := last(c)
		an := annotation{title: "husk smoke: " + oneLine(c.Name), file: c.File, line: c.Line}
		switch {
		case failed(c.Verdict):
			an.message = fmt.Sprintf("%s: %s%s", c.Verdict, reason(a), reached(a))
			if c.Reproduce != "" {
				an.message += "\nto reproduce it: " + visible(c.Reproduce)
			}
			errs = append(errs, an)
		case c.Flaky:
			an.message = fmt.Sprintf("flaky: attempt %d passed; before it, %s: %s",
				len(c.Attempts), c.Attempts[0].Verdict, reason(&c.Attempts[0]))
			warnings = append(warnings, an)
		}
	}
	var b strings.Builder
	annotate(&b, "error", "failures", errs)
	annotate(&b, "warning", "flaky", warnings)
	_, err := io.WriteString(w, b.String())
	return err
}

// An annotation is one workflow command.
type annotation struct {
	title, file string
	line        int
	message     string
}

func annotate(b *strings.Builder, command, what string, list []annotation) {
	shown := list
	if len(list) > annotations {
		shown = list[:annotations-1]
	}
	for _, an := range shown {
		b.WriteString("::" + command + " title=" + property(an.title))
		if an.file != "" {
			b.WriteString(",file=" + property(visible(an.file)))
			if an.line > 0 {
				fmt.Fprintf(b, ",line=%d", an.line)
			}
		}
		b.WriteString("::" + message(an.message) + "\n")
	}
	if more := len(list) - len(shown); more > 0 {
		fmt.Fprintf(b, "::%s title=husk smoke::%d more cases are %s; the log has all\n", command, more, what)
	}
}

// message and property escape as the runner of Actions undoes it.
func message(s string) string {
	return strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A").Replace(s)
}

func property(s string) string {
	return strings.NewReplacer(":", "%3A", ",", "%2C").Replace(message(s))
}

// Summary writes Markdown for $GITHUB_STEP_SUMMARY: a table of the cases, and for
// those that failed what is known, to be unfolded. What is beyond GitHub's limit is
// left out, details first, and counted.
func Summary(w io.Writer, run *result.Run) error {
	var head, table, details strings.Builder
	summarize(&head, run)
	rows, unfolded, bad := 0, 0, 0
	for i := range run.Cases {
		c := &run.Cases[i]
		row := summaryRow(c)
		if table.Len()+len(row) > summaryLimit/2 {
			break
		}
		table.WriteString(row)
		rows++
	}
	for i := range run.Cases {
		c := &run.Cases[i]
		if !failed(c.Verdict) {
			continue
		}
		if bad++; unfolded < bad-1 {
			continue // there was no room any more
		}
		if d := summaryDetail(c); head.Len()+table.Len()+details.Len()+len(d) < summaryLimit-1024 {
			details.WriteString(d)
			unfolded++
		}
	}
	head.WriteString("| case | verdict | stage | time | reason |\n|---|---|---|---:|---|\n")
	if more := len(run.Cases) - rows; more > 0 {
		fmt.Fprintf(&table, "\nAnd %s that the table has no room for.\n", plural(more, "case"))
	}
	if more := bad - unfolded; more > 0 {
		fmt.Fprintf(&details, "And %s that there is no room to explain.\n", plural(more, "failure"))
	}
	_, err := io.WriteString(w, head.String()+table.String()+"\n"+details.String())
	return err
}

// marks are the verdicts at a glance.
var marks = map[result.Verdict]string{
	result.Pass: "✅", result.Skipped: "⏭️", result.Infrastructure: "⚠️", result.VMM: "⚠️",
}

func mark(c *result.Case) string {
	if m := marks[c.Verdict]; m != "" {
		return m
	}
	return "❌"
}

func summarize(b *strings.Builder, run *result.Run) {
	t := tally{counts: map[result.Verdict]int{}}
	for i := range run.Cases {
		t.add(&run.Cases[i])
	}
	fmt.Fprintf(b, "### husk smoke: %s in %s%s\n\n%s\n\n", plural(len(run.Cases), "case"), short(run.Duration), markdown(onWhat(run.Accel)), t.verdicts())
}

func summaryRow(c *result.Case) string {
	a := last(c)
	why := ""
	switch {
	case c.Flaky:
		why = fmt.Sprintf("flaky: attempt %d passed", len(c.Attempts))
	case c.Verdict != result.Pass:
		why = reason(a)
	}
	return fmt.Sprintf("| %s | %s %s | %s | %s | %s |\n", cell(c.Name), mark(c), c.Verdict,
		cell(a.Stage), strings.ReplaceAll(short(took(c)), " ", "&nbsp;"), cell(why))
}

func summaryDetail(c *result.Case) string {
	text := strings.Join(explain(last(c)), "\n")
	if len(text) > summaryDetails {
		text = strings.ToValidUTF8(text[:summaryDetails], "") + "\n…"
	}
	s := fmt.Sprintf("<details><summary>%s %s: %s</summary>\n\n<pre>%s</pre>\n",
		mark(c), markdown(oneLine(shorten(c.Name, 200))), c.Verdict, preformatted(text))
	if c.Reproduce != "" {
		s += "\nTo reproduce it:\n\n<pre>" + preformatted(shorten(visible(c.Reproduce), summaryDetails)) + "</pre>\n"
	}
	return s + "\n</details>\n\n"
}

// cell is text for a cell of a table.
func cell(s string) string { return markdown(oneLine(shorten(s, 300))) }

// markdown makes text mean nothing in Markdown and HTML: no bar of a table, no
// emphasis, no link.
func markdown(s string) string {
	var b strings.Builder
	for _, r := range s {
		if r < utf8.RuneSelf && strings.ContainsRune("\\`*_[]<>#!|~&@$", r) {
			fmt.Fprintf(&b, "&#%d;", r)
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

// preformatted is text for a <pre>, which ends at no empty line and has no Markdown
// in it, but is HTML.
func preformatted(s string) string { return html.EscapeString(s) }
