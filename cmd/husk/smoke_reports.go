package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/huskvm/husk/internal/smoke"
	"github.com/huskvm/husk/internal/smoke/report"
	"github.com/huskvm/husk/internal/smoke/result"
)

// summaryFile is where GitHub wants the step's summary, "" if that is not asked for.
func (e *env) summaryFile(github bool) string {
	if !github {
		return ""
	}
	return e.getenv("GITHUB_STEP_SUMMARY")
}

// checkOutputs refuses two reports in one place: they would be one on top of the other.
func (f *smokeFlags) checkOutputs() error {
	seen := map[string]string{}
	for _, o := range []struct{ flag, path string }{{"json", f.json}, {"junit", f.junit}, {"tap", f.tap}} {
		if o.path == "" || o.path == os.DevNull {
			continue
		}
		where := "-"
		if o.path != "-" {
			path, err := filepath.Abs(o.path)
			if err != nil {
				return err
			}
			where = path
		}
		if other, ok := seen[where]; ok {
			return usagef("--%s %s: --%s goes there already", o.flag, o.path, other)
		}
		seen[where] = o.flag
	}
	return nil
}

// people is what is written to for people: standard error, where standard output is a
// report. GitHub's runners read both.
func (f *smokeFlags) people(e *env) io.Writer {
	if f.json == "-" || f.junit == "-" || f.tap == "-" {
		return e.stderr
	}
	return e.stdout
}

// makeOut makes the folder of --out, and finds out whether it can be written to.
func (f *smokeFlags) makeOut() error {
	if f.out == "" {
		return nil
	}
	if err := os.MkdirAll(f.out, 0o755); err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	probe, err := os.CreateTemp(f.out, ".husk-")
	if err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	return errors.Join(probe.Close(), os.Remove(probe.Name()))
}

// where is where the cases run.
func (f *smokeFlags) where() string {
	if f.inLab != "" {
		return "lab"
	}
	return "kvm"
}

// newRun is what reports tell.
func (f *smokeFlags) newRun(started time.Time, cases []result.Case) *result.Run {
	host, _ := os.Hostname()
	return &result.Run{
		Schema: result.Schema, Husk: version, Host: host, Accel: f.where(),
		Started: started, Duration: time.Since(started), Cases: cases,
	}
}

// notMade writes the reports of a run that could not be made, and returns the reason: a
// CI that reads them should see it there, and not miss the cases.
func (f *smokeFlags) notMade(e *env, cases []smoke.Case, reason error) error {
	if errors.As(reason, new(usageError)) {
		return reason
	}
	started := time.Now()
	files, err := f.openReports(e)
	if errors.As(reason, new(reportError)) {
		err = nil // it is the reason
	}
	var results []result.Case
	for _, c := range cases {
		results = append(results, c.NotMade(reason, f.repeat()...))
	}
	return errors.Join(reason, err, files.write(f.newRun(started, results)))
}

// reports are the files that results go to.
type reports struct {
	list []pendingReport
}

// A pendingReport is made when all cases are done.
type pendingReport struct {
	flag string
	w    io.WriteCloser
	make func(io.Writer, *result.Run) error
}

// A reportError is a report that cannot be written.
type reportError struct{ error }

// openReports opens what results go to, so that a mistake is known before. After an error
// there are the reports that can be written.
func (f *smokeFlags) openReports(e *env) (*reports, error) {
	r := &reports{}
	var errs []error
	add := func(flag string, w io.WriteCloser, err error, form func(io.Writer, *result.Run) error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("--%s: %w", flag, err))
			return
		}
		r.list = append(r.list, pendingReport{flag, w, form})
	}
	for _, file := range []struct {
		flag, path string
		make       func(io.Writer, *result.Run) error
	}{
		{"json", f.json, report.JSON},
		{"junit", f.junit, report.JUnit},
		{"tap", f.tap, report.TAP},
	} {
		if file.path == "-" {
			add(file.flag, unclosed{e.stdout}, nil, file.make)
		} else if file.path != "" {
			w, err := create(file.path)
			add(file.flag, w, err, file.make)
		}
	}
	if f.github {
		add("github", unclosed{f.people(e)}, nil, report.Annotations)
	}
	if path := e.summaryFile(f.github); path != "" {
		w, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
		add("github", w, err, report.Summary)
	}
	if len(errs) > 0 {
		return r, reportError{errors.Join(errs...)}
	}
	return r, nil
}

// unclosed is a writer that others need after us.
type unclosed struct{ io.Writer }

func (unclosed) Close() error { return nil }

// write writes all of them.
func (r *reports) write(run *result.Run) error {
	var errs []error
	for _, p := range r.list {
		if err := errors.Join(p.make(p.w, run), p.w.Close()); err != nil {
			errs = append(errs, fmt.Errorf("--%s: %w", p.flag, err))
		}
	}
	r.list = nil
	return errors.Join(errs...)
}

func (r *reports) close() {
	for _, p := range r.list {
		_ = p.w.Close()
	}
}
