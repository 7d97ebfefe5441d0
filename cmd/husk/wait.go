package main

import (
	"context"
	"fmt"

	"github.com/spf13/pflag"
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
				if len(args) == 0 {
					return 0, usagef("name a machine, or several; see husk ps")
				}
				ctx, stop := interruptible(ctx)
				defer stop()
				ms, err := openMachines(e)
				if err != nil {
					return 0, err
				}
				result := exitOK
				for _, name := range args {
					m, err := ms.Find(name)
					code := 0
					if err == nil {
						code, err = m.Wait(ctx)
					}
					switch {
					case ctx.Err() != nil:
						return interrupted(ctx, context.Cause(ctx))
					case err != nil:
						fmt.Fprintf(e.stderr, "husk: %s: %v\n", name, err)
						result = exitMachine
					default:
						fmt.Fprintln(e.stdout, code)
					}
				}
				return result, nil
			}
		},
	}
}
