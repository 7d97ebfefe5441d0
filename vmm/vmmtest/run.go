package vmmtest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/huskvm/husk/internal/agent"
	"github.com/huskvm/husk/vmm"
)

// A Command is a program to run in the guest, as root.
type Command struct {
	Argv []string // the program, found by the PATH of Env, and its arguments
	Dir  string   // working directory, "" for /
	Env  []string // the whole environment, "key=value"; PATH and HOME are added where they are missing

	Stdin io.Reader // nil is empty
	// Stdout and Stderr take what the program writes; nil keeps it for the Output.
	Stdout, Stderr io.Writer
	// Signals are sent on to the program and its children.
	Signals <-chan os.Signal
}

// An Output is what a program has done in the guest.
type Output struct {
	Argv           []string
	Stdout, Stderr string
	// Code is its exit code: 128 and the number of the signal that ended it, 127 where
	// there is no such program, 126 where it cannot be run.
	Code int
}

// String is all of it, for messages.
func (o *Output) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: exit code %d\n", strings.Join(o.Argv, " "), o.Code)
	for _, s := range []struct{ name, text string }{{"stdout", o.Stdout}, {"stderr", o.Stderr}} {
		if s.text != "" {
			fmt.Fprintf(&b, "%s:\n%s\n", s.name, strings.TrimSuffix(s.text, "\n"))
		}
	}
	return b.String()
}

// Run runs a program in the guest to its end, once the guest is up that far. With an
// initramfs or a disk of the test's own, it runs in whatever is the root by then: Expect
// the login first to have the system's. Its exit
// code is the test's to judge; the test fails when there is none: the guest ended,
// its kernel panicked, ctx or the guest's time was up.
func (vm *VM) Run(ctx context.Context, argv ...string) *Output {
	vm.t.Helper()
	out, err := vm.RunCommand(ctx, Command{Argv: argv})
	if err != nil {
		vm.t.Fatalf("run %q: %v%s", argv, err, vm.tail())
	}
	return out
}

// RunCommand is Run for any command. Its error is that there is no exit code, and why;
// the Output has what came before that.
func (vm *VM) RunCommand(ctx context.Context, cmd Command) (*Output, error) {
	var stdout, stderr bytes.Buffer
	c := agent.Command{
		Argv: cmd.Argv, Dir: cmd.Dir, Env: cmd.Env, Stdin: cmd.Stdin,
		Stdout: cmd.Stdout, Stderr: cmd.Stderr, Signals: cmd.Signals,
	}
	if c.Stdout == nil {
		c.Stdout = &stdout
	}
	if c.Stderr == nil {
		c.Stderr = &stderr
	}
	out := &Output{Argv: cmd.Argv}
	err := vm.guest.With(ctx, func(ctx context.Context, client *agent.Client) (err error) {
		out.Code, err = client.Run(ctx, c)
		return err
	})
	out.Stdout, out.Stderr = stdout.String(), stderr.String()
	return out, err
}

// Copy copies a file or folder of this host to a path of the guest, which is what it
// is called there, with what is in it. Folders above it are made, files that are
// there are replaced, and all is root's.
func (vm *VM) Copy(ctx context.Context, from, to string) {
	vm.t.Helper()
	if err := vm.guest.CopyIn(ctx, from, to); err != nil {
		vm.t.Fatalf("copy %s to the guest's %s: %v%s", from, to, err, vm.tail())
	}
}

// CopyOut copies a file or folder of the guest to a path of this host, which is what
// it is called here.
func (vm *VM) CopyOut(ctx context.Context, from, to string) {
	vm.t.Helper()
	if err := vm.guest.CopyOut(ctx, from, to); err != nil {
		vm.t.Fatalf("copy the guest's %s to %s: %v%s", from, to, err, vm.tail())
	}
}

// PowerOff has the guest power off, and waits until it has.
func (vm *VM) PowerOff() {
	vm.t.Helper()
	if err := vm.guest.PowerOff(vm.ctx); err != nil {
		vm.t.Fatalf("power off: %v%s", err, vm.tail())
	}
	if r := vm.Wait(); r.Outcome != vmm.PowerOff {
		vm.t.Fatalf("power off: %v%s", r, vm.tail())
	}
}

// PowerButton presses the guest's power button, and does not wait for what comes of
// it.
func (vm *VM) PowerButton() { vm.VM().PowerButton() }
