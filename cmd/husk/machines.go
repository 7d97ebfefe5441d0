package main

import (
	"context"
	"fmt"
	"os"

	"github.com/huskvm/husk/internal/machine"
)

// openMachines are the user's machines.
func openMachines(e *env) (*machine.Machines, error) {
	dir, err := machine.DefaultDir(e.getenv)
	if err != nil {
		return nil, err
	}
	data, err := machine.DefaultData(e.getenv)
	if err != nil {
		return nil, err
	}
	return machine.Open(dir, data)
}

// machineProcess are the words that start a machine's process, for machine.Start and Run.
func machineProcess() ([]string, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find husk's own file: %w", err)
	}
	return []string{self, machineProcessName}, nil
}

// exitMachine is the exit code of a verb that could not do what it was asked to with a
// machine, as Docker's.
const exitMachine = 1

// eachMachine does something with the machines that names name, prints each name when it is
// done, and goes on where it fails.
func eachMachine(ctx context.Context, e *env, names []string, do func(context.Context, *machine.Machine) error) (int, error) {
	return askEachMachine(ctx, e, names, func(ctx context.Context, name string, m *machine.Machine) (string, error) {
		return name, do(ctx, m)
	})
}

// askEachMachine prints what ask gives for each machine that names name, and goes on where
// it fails.
func askEachMachine(ctx context.Context, e *env, names []string, ask func(ctx context.Context, name string, m *machine.Machine) (string, error)) (int, error) {
	if len(names) == 0 {
		return 0, usagef("name a machine, or several; see husk ps")
	}
	ctx, stop := interruptible(ctx)
	defer stop()
	ms, err := openMachines(e)
	if err != nil {
		return 0, err
	}
	code := exitOK
	for _, name := range names {
		m, err := ms.Find(name)
		answer := ""
		if err == nil {
			answer, err = ask(ctx, name, m)
		}
		switch {
		case ctx.Err() != nil:
			return interrupted(ctx, context.Cause(ctx))
		case err != nil:
			fmt.Fprintf(e.stderr, "husk: %s: %v\n", name, err)
			code = exitMachine
		default:
			fmt.Fprintln(e.stdout, answer)
		}
	}
	return code, nil
}

// findMachine finds the machine that the first argument names.
func findMachine(e *env, args []string) (*machine.Machine, []string, error) {
	if len(args) == 0 {
		return nil, nil, usagef("name a machine; see husk ps")
	}
	ms, err := openMachines(e)
	if err != nil {
		return nil, nil, err
	}
	m, err := ms.Find(args[0])
	return m, args[1:], err
}

// oneMachine is findMachine for a verb that takes nothing else.
func oneMachine(e *env, args []string) (*machine.Machine, error) {
	m, rest, err := findMachine(e, args)
	if err == nil {
		err = noArgs(rest)
	}
	return m, err
}
