package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
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
FILE - is standard input. Flags that are given go over what files say; --append adds to it.

Steps are taken in the order of their flags. Without any, a case passes when the guest
powers off or exits with 0, or when its first process runs and all is quiet for 5
seconds. A guest that powers off, reboots or falls silent before its steps are done has
failed. What the kernel complains of (panics, oopses, warnings, stalls, KASAN and the
like) ends a case, when its whole trace is on the console.

A PATTERN is a text, or a regular expression between slashes: 'login:', '/^Linux 6\.\d+/'.

Unless the command line says otherwise, the guest has softlockup_panic=1 and
hung_task_panic=1, besides husk boot's own panic=-1; with --cmdline it has none of them.
Disks are not written to.

Exit codes, the worst of all cases:
  0  pass
  1  an expectation was not met, or a test in the guest failed
  2  wrong usage, a mistake in a file of cases, or no such file
  3  the kernel panicked, or a detector has found something
  4  no output for too long
  5  the time was up
  6  triple fault, KVM could not go on, or husk's own machine died
  7  the test could not be made: no KVM, a missing kernel
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
			return f.run
		},
	}
}

// run tries the cases, here or in the lab.
func (f *smokeFlags) run(ctx context.Context, e *env, files []string) (int, error) {
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
	if err := f.checkOutputs(); err != nil {
		return 0, err
	}
	cases, err := f.cases(e, files)
	if err != nil {
		return 0, err
	}
	err = findKernels(e, cases)
	if f.list && err == nil {
		for _, c := range cases {
			fmt.Fprintf(e.stdout, "%s\n  %s\n", c.Name, c.Reproduce(f.repeat()...))
		}
	}
	if f.list {
		return exitOK, err
	}
	// A report that nobody reads any more must not end husk before it has cleaned up,
	// and is no reason to end the test.
	pipes := make(chan os.Signal, 1)
	signal.Notify(pipes, unix.SIGPIPE)
	defer signal.Stop(pipes)
	if err == nil {
		err = f.makeOut()
	}
	code := 0
	if err == nil {
		code, err = f.try(ctx, e, files, cases)
	}
	if err != nil {
		return 0, f.notMade(e, cases, err)
	}
	return code, nil
}

// try tries the cases, here or in the lab. Errors are why that could not be done.
func (f *smokeFlags) try(ctx context.Context, e *env, files []string, cases []smoke.Case) (int, error) {
	if f.inLab != "" || f.accel == "kvm" {
		return f.tryHere(ctx, e, cases)
	}
	if f.accel == "auto" {
		noKVM := e.canBoot()
		if noKVM == nil {
			return f.tryHere(ctx, e, cases)
		}
		fmt.Fprintf(e.stderr, "husk: %v; running in the lab, which is slow (husk doctor says more)\n", noKVM)
	}
	return f.runInLab(ctx, e, files, cases)
}

// repeat are the flags, besides a case's own, with which to try it again.
func (f *smokeFlags) repeat() []string {
	accel := cmp.Or(f.inLab, f.accel)
	if accel == "auto" {
		return nil
	}
	return []string{"--accel", accel}
}

// tryHere tries the cases on this host's KVM.
func (f *smokeFlags) tryHere(ctx context.Context, e *env, cases []smoke.Case) (int, error) {
	files, err := f.openReports(e)
	defer files.close()
	if err != nil {
		return 0, err
	}
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
	if err != nil {
		return 0, errors.Join(err, progress.Close())
	}
	unread := progress.Close()
	if errors.Is(unread, unix.EPIPE) {
		unread = nil
	}
	if err := errors.Join(unread, files.write(f.newRun(started, results))); err != nil {
		fmt.Fprintf(e.stderr, "husk: %v\n", err)
		return result.Infrastructure.ExitCode(), nil
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
	w := f.people(e)
	out, ok := w.(*os.File)
	if !ok || !term.IsTerminal(out) {
		return report.NewPlain(w, report.Options{Cases: cases, Accel: f.where()})
	}
	return report.NewLive(out, report.Options{Cases: cases, Accel: f.where(), Color: report.Color(), Size: func() (int, int) {
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
