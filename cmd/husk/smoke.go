package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/internal/smoke"
	"github.com/huskvm/husk/internal/smoke/detect"
	"github.com/huskvm/husk/internal/smoke/process"
	"github.com/huskvm/husk/internal/smoke/report"
	"github.com/huskvm/husk/internal/smoke/result"
	"github.com/huskvm/husk/internal/term"
)

// exitUsage is husk smoke's for wrong usage.
const exitUsage = 2

func smokeVerb() verb {
	return verb{
		name:  "smoke",
		args:  "[flags] [FILE.yaml]...",
		short: "boot kernels and say whether they work",
		long: `Boots a kernel or an image as a test and gives a verdict: pass, or why not, with what was
on the console. The case is made by flags, or cases are read from YAML files; several
kernels, CPU counts or memory sizes are a matrix, of which every combination is tried.

Steps are taken in the order of their flags. Without any, a case passes when the guest
powers off or exits with 0, or when its first process runs and all is quiet for 5
seconds. A guest that powers off, reboots or falls silent before its steps are done has
failed. What the kernel complains of (panics, oopses, warnings, stalls, KASAN and the
like) ends a case, when its whole trace is on the console.

A PATTERN is a text, or a regular expression between slashes: 'login:', '/^Linux 6\.\d+/'.

Unless the command line says otherwise, the guest has softlockup_panic=1 and
hung_task_panic=1, besides husk boot's own panic=-1. Disks are not written to.

Exit codes, the worst of all cases:
  0  pass
  1  an expectation was not met, or a test in the guest failed
  2  wrong usage, a mistake in a file of cases
  3  the kernel panicked, or a detector has found something
  4  no output for too long
  5  the time was up
  6  triple fault, KVM could not go on, or husk's own machine died
  7  the test could not be made: no KVM, a missing file
The guest's own exit code is in the results (--json).`,
		examples: `# Does it come to its login?
husk smoke -k bzImage -i initrd.img --expect 'login:'
# Two kernels, on 1 and on 4 processors, with a command in the guest and a JUnit file
husk smoke -k old/bzImage -k new/bzImage -c 1,4 --run 'uname -r' --poweroff --junit junit.xml
# A disk image, logged in to on its console
husk smoke -d debian.qcow2 -m 1G --expect 'login:' --send 'root\n' --expect '/# $/' --poweroff
# Cases of a file; then one of them alone
husk smoke cases.yaml
husk smoke cases.yaml --only 'boots on 4'`,
		usageCode:  exitUsage,
		failedCode: result.Infrastructure.ExitCode(),
		define: func(fs *pflag.FlagSet) runner {
			f := &smokeFlags{}
			f.define(fs)
			return func(ctx context.Context, e *env, files []string) (int, error) { return f.run(ctx, e, fs, files) }
		},
	}
}

// run tries the cases, here or in the lab.
func (f *smokeFlags) run(ctx context.Context, e *env, fs *pflag.FlagSet, files []string) (int, error) {
	if slices.Contains(f.base.NoDetect, "help") {
		for _, k := range detect.Kinds() {
			fmt.Fprintln(e.stdout, k)
		}
		return exitOK, nil
	}
	if !containsWord("auto kvm lab", f.accel) || f.accel == "" {
		return 0, usagef("--accel %q: must be one of auto, kvm, lab", f.accel)
	}
	if f.jobs < 0 {
		return 0, usagef("--jobs %d: must not be negative", f.jobs)
	}
	cases, err := f.cases(e, files)
	if err != nil {
		return 0, err
	}
	if f.list {
		for _, c := range cases {
			fmt.Fprintf(e.stdout, "%s\n  %s\n", c.Name, c.Reproduce(f.repeat()...))
		}
		return exitOK, nil
	}
	var noKVM error
	if f.accel == "auto" {
		noKVM = e.canBoot()
	}
	if f.accel == "lab" || noKVM != nil {
		if noKVM != nil {
			fmt.Fprintf(e.stderr, "husk: %v; running in the lab, which is slow (husk doctor says more)\n", noKVM)
		}
		return f.runInLab(ctx, e, fs)
	}
	return f.runHere(ctx, e, cases)
}

// repeat are the flags, besides a case's own, with which to try it again.
func (f *smokeFlags) repeat() []string {
	if f.accel == "auto" {
		return nil
	}
	return []string{"--accel", f.accel}
}

// labSlowness is how many times longer the defaults of times are in the lab.
const labSlowness = 5

// runInLab has husk do the same in the lab, where files are where they are here.
func (f *smokeFlags) runInLab(ctx context.Context, e *env, fs *pflag.FlagSet) (int, error) {
	args := slices.Clone(e.args)
	end := len(args)
	if i := slices.Index(args, "--"); i >= 0 {
		end = i
	}
	more := []string{"--accel=kvm"}
	for _, t := range []struct {
		name  string
		value time.Duration
	}{{"timeout", smoke.DefaultTimeout}, {"no-output", smoke.DefaultNoOutput}} {
		if !fs.Changed(t.name) {
			more = append(more, fmt.Sprintf("--%s=%v", t.name, labSlowness*t.value))
		}
	}
	args = slices.Insert(args, end, more...)
	var outputs []string
	for _, file := range []string{f.json, f.junit, f.tap, e.summaryFile(f.github)} {
		if file != "" && file != "-" {
			outputs = append(outputs, filepath.Dir(file))
		}
	}
	if f.out != "" {
		if err := os.MkdirAll(f.out, 0o755); err != nil {
			return 0, fmt.Errorf("--out: %w", err)
		}
		outputs = append(outputs, f.out)
	}
	return e.lab(ctx, append([]string{"smoke"}, args...), outputs...)
}

// runHere tries the cases on this host's KVM.
func (f *smokeFlags) runHere(ctx context.Context, e *env, cases []smoke.Case) (int, error) {
	files, err := f.openReports(e)
	if err != nil {
		return 0, err
	}
	defer files.close()
	launch, err := launcher()
	if err != nil {
		return 0, err
	}
	ctx, stop := interruptible(ctx)
	defer stop()

	progress := f.progress(e, len(cases))
	runner := smoke.Runner{Launch: launch, Progress: progress, Jobs: f.jobs, Keep: f.out, Repeat: f.repeat()}
	started := time.Now()
	results, err := runner.Run(ctx, cases)
	host, _ := os.Hostname()
	run := &result.Run{
		Schema: result.Schema, Husk: version, Host: host, Accel: "kvm",
		Started: started, Duration: time.Since(started), Cases: results,
	}
	err = errors.Join(err, progress.Close(), files.write(run))
	if err != nil {
		return 0, err
	}
	if sig := interruptedBy(ctx); sig != 0 {
		return 128 + int(sig), nil
	}
	return worst(results), nil
}

// worst is the exit code for all cases.
func worst(cases []result.Case) int {
	code := 0
	for _, c := range cases {
		code = max(code, c.Verdict.ExitCode())
	}
	return code
}

// progress shows how it goes: live on a terminal, else in lines.
func (f *smokeFlags) progress(e *env, cases int) report.Progress {
	if f.json == "-" {
		return report.NewPlain(io.Discard, report.Options{Cases: cases})
	}
	out, ok := e.stdout.(*os.File)
	if !ok || !term.IsTerminal(out) {
		return report.NewPlain(e.stdout, report.Options{Cases: cases})
	}
	return report.NewLive(out, report.Options{Cases: cases, Color: report.Color(), Size: func() (int, int) {
		size, err := term.SizeOf(out)
		if err != nil {
			return 0, 0
		}
		return size.Columns, size.Rows
	}})
}

// An interruption is a signal that ends a test.
type interruption struct{ signal unix.Signal }

func (i interruption) Error() string {
	return fmt.Sprintf("interrupted by %v", unix.SignalName(i.signal))
}

// interruptible ends the context at the first signal that asks for an end. A second one
// ends husk, as it would without.
func interruptible(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	go func() {
		select {
		case s := <-signals:
			signal.Stop(signals)
			sig, _ := s.(unix.Signal)
			cancel(interruption{sig})
		case <-ctx.Done():
			signal.Stop(signals)
		}
	}()
	return ctx, func() { cancel(nil) }
}

// interruptedBy is the signal that has ended the context, 0 if none has.
func interruptedBy(ctx context.Context) unix.Signal {
	i := new(interruption)
	if errors.As(context.Cause(ctx), i) {
		return i.signal
	}
	return 0
}

// launcher starts machines as processes of husk's.
func launcher() (smoke.Launch, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return func(flags []string, reboots int, symbols []string, log string) (smoke.Machine, error) {
		argv := []string{self, machineName, fmt.Sprintf("--reboots=%d", reboots)}
		for _, s := range symbols {
			argv = append(argv, "--symbols="+s)
		}
		return process.Start(append(argv, flags...), log)
	}, nil
}

// summaryFile is where GitHub wants the step's summary, "" if that is not asked for.
func (e *env) summaryFile(github bool) string {
	if !github {
		return ""
	}
	return e.getenv("GITHUB_STEP_SUMMARY")
}

// reports are the files that results go to.
type reports struct {
	list []pendingReport
}

// A pendingReport is made when all cases are done.
type pendingReport struct {
	flag  string
	w     io.Writer
	make  func(io.Writer, *result.Run) error
	close func() error
}

// openReports opens what results go to, so that a mistake is known before.
func (f *smokeFlags) openReports(e *env) (*reports, error) {
	r := &reports{}
	for _, file := range []struct {
		flag, path string
		make       func(io.Writer, *result.Run) error
	}{
		{"json", f.json, report.JSON},
		{"junit", f.junit, report.JUnit},
		{"tap", f.tap, report.TAP},
	} {
		if file.path == "-" {
			r.list = append(r.list, pendingReport{file.flag, e.stdout, file.make, func() error { return nil }})
		} else if file.path != "" {
			w, err := create(file.path)
			if err != nil {
				r.close()
				return nil, fmt.Errorf("--%s: %w", file.flag, err)
			}
			r.list = append(r.list, pendingReport{file.flag, w, file.make, w.Close})
		}
	}
	if f.github {
		r.list = append(r.list, pendingReport{"github", e.stdout, report.Annotations, func() error { return nil }})
	}
	if path := e.summaryFile(f.github); path != "" {
		w, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
		if err != nil {
			r.close()
			return nil, fmt.Errorf("--github: $GITHUB_STEP_SUMMARY: %w", err)
		}
		r.list = append(r.list, pendingReport{"github", w, report.Summary, w.Close})
	}
	return r, nil
}

// write writes all of them.
func (r *reports) write(run *result.Run) error {
	var errs []error
	for _, p := range r.list {
		if err := errors.Join(p.make(p.w, run), p.close()); err != nil {
			errs = append(errs, fmt.Errorf("--%s: %w", p.flag, err))
		}
	}
	r.list = nil
	return errors.Join(errs...)
}

func (r *reports) close() {
	for _, p := range r.list {
		_ = p.close()
	}
}

// chosen are the cases that --only names.
func (f *smokeFlags) chosen(cases []smoke.Case) ([]smoke.Case, error) {
	if len(f.only) == 0 {
		return cases, nil
	}
	var out []smoke.Case
	for _, c := range cases {
		for _, text := range f.only {
			matches, err := smoke.Named(c.Name, text)
			if err != nil {
				return nil, usagef("--only: %w", err)
			}
			if matches {
				out = append(out, c)
				break
			}
		}
	}
	if len(out) == 0 {
		return nil, usagef("--only %s: no case has that in its name; --list prints them", strings.Join(f.only, ", "))
	}
	return out, nil
}
