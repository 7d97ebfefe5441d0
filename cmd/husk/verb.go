package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
)

// The exit codes that husk gives a meaning. A guest that ends as it should
// gives 0, one with a debug-exit device gives what it wrote there, and a verb
// that runs a command passes the command's code on.
const (
	exitOK      = 0
	exitReboot  = 121 // the guest asked for a reboot, and --on-reboot=fail
	exitCrash   = 122 // triple fault, or KVM could not go on
	exitPanic   = 123 // the guest's kernel panicked and said so by pvpanic
	exitTimeout = 124 // --timeout was up
	exitFailed  = 125 // husk itself failed, wrong usage included
)

// A verb is one of husk's commands.
type verb struct {
	name     string
	args     string // the usage line after the name: "[flags] [--] CMD [ARG]..."
	short    string // one line without a full stop, for the list of verbs
	long     string // paragraphs for the verb's own help
	examples string // one command a line; lines that start with # explain
	hidden   bool   // not listed: husk runs it itself
	// usageCode and failedCode are the exit codes for wrong usage and for other errors;
	// 0 for exitFailed.
	usageCode, failedCode int

	// define adds the verb's flags to fs and returns what runs it. It must do
	// nothing else: help and the reference call it too. A verb that runs a
	// command calls fs.SetInterspersed(false), so that the command keeps its flags.
	define func(fs *pflag.FlagSet) runner
}

// A runner does a verb's work. args is what the flags have left over. The
// int is husk's exit code. An error is printed as "husk: err" and makes the
// code exitFailed; it says what, why, and what to do:
// "initrd /x: no such file; give one with -i".
type runner func(ctx context.Context, e *env, args []string) (int, error)

// A usageError is a mistake in how husk was called. It is answered with a
// pointer to the verb's help.
type usageError struct{ err error }

func (u usageError) Error() string { return u.err.Error() }
func (u usageError) Unwrap() error { return u.err }

// usagef makes a usageError.
func usagef(format string, args ...any) error {
	return usageError{fmt.Errorf(format, args...)}
}

// noArgs is the usage error of a verb that takes no arguments but got some.
func noArgs(args []string) error {
	if len(args) == 0 {
		return nil
	}
	return usagef("unexpected argument %q", args[0])
}

// dispatch runs the verb that args names and returns husk's exit code.
func dispatch(ctx context.Context, e *env, args []string) int {
	if len(args) == 0 {
		fmt.Fprint(e.stderr, overview())
		return exitFailed
	}
	name, rest := args[0], args[1:]
	switch name {
	case "-h", "--help":
		name = "help"
	case "-V", "--version":
		name = "version"
	}
	v, ok := findVerb(name)
	if !ok {
		fmt.Fprintf(e.stderr, "husk: no verb %q%s; see husk help\n", name, didYouMean(name))
		return exitFailed
	}

	fs, run := v.flags()
	e.args = rest
	err := fs.Parse(rest)
	code := exitFailed
	switch {
	case err == nil:
		code, err = run(ctx, e, fs.Args())
	case errors.Is(err, pflag.ErrHelp):
		code, err = runHelp(ctx, e, []string{v.name})
	default:
		err = usageError{err}
	}
	if err == nil {
		return code
	}
	fmt.Fprintf(e.stderr, "husk: %v\n", err)
	if errors.Is(err, unix.EMFILE) {
		fmt.Fprintln(e.stderr, "husk: the limit of open files is too low for this: ulimit -n 1024 raises it")
	}
	if errors.As(err, new(usageError)) {
		fmt.Fprintf(e.stderr, "see husk %s --help\n", v.name)
		return cmp.Or(v.usageCode, exitFailed)
	}
	return cmp.Or(v.failedCode, exitFailed)
}

// flags is a fresh set of the verb's flags, and what runs the verb with them.
func (v verb) flags() (*pflag.FlagSet, runner) {
	fs := pflag.NewFlagSet("husk "+v.name, pflag.ContinueOnError)
	fs.SortFlags = false
	fs.Usage = func() {} // dispatch prints the help, and says where it is on errors
	return fs, v.define(fs)
}

// findVerb looks a verb up by its name.
func findVerb(name string) (verb, bool) {
	for _, v := range verbs() {
		if v.name == name {
			return v, true
		}
	}
	return verb{}, false
}

// didYouMean is ` (did you mean "boot"?)` when a verb is close to name.
func didYouMean(name string) string {
	best, bestDistance := "", 3
	for _, v := range verbs() {
		if v.hidden {
			continue
		}
		d := distance(name, v.name)
		if len(name) > 1 && strings.HasPrefix(v.name, name) {
			d = 1
		}
		if d < bestDistance {
			best, bestDistance = v.name, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean %q?)", best)
}

// distance is the Levenshtein distance between two short words.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			next := min(row[j]+1, row[j+1]+1, diagonal+cost)
			diagonal, row[j+1] = row[j+1], next
		}
	}
	return row[len(b)]
}
