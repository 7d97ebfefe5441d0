package main

import (
	"context"
	"strconv"

	"github.com/spf13/pflag"

	"github.com/huskvm/husk/internal/machine"
)

func waitVerb() verb {
	return verb{
		name:       "wait",
		args:       "MACHINE...",
		short:      "wait for machines to end, and print their exit codes",
		long:       `Waits for each machine's end and prints its exit code, one a line.`,
		examples:   "husk wait web",
		failedCode: exitMachine,
		define: func(*pflag.FlagSet) runner {
			return func(ctx context.Context, e *env, args []string) (int, error) {
				return askEachMachine(ctx, e, args, func(ctx context.Context, _ string, m *machine.Machine) (string, error) {
					code, err := m.Wait(ctx)
					return strconv.Itoa(code), err
				})
			}
		},
	}
}
