package main

import (
	"context"

	"github.com/spf13/pflag"

	"github.com/huskvm/husk/internal/machine"
)

func rmVerb() verb {
	return verb{
		name:       "rm",
		args:       "[flags] MACHINE...",
		short:      "remove machines that have ended",
		long:       `Removes machines, with their logs and what their guests have written. Their names are free then.`,
		examples:   "husk rm web\n# One that runs, too\nhusk rm -f web",
		failedCode: exitMachine,
		define: func(fs *pflag.FlagSet) runner {
			force := fs.BoolP("force", "f", false, "kill machines that run")
			return func(ctx context.Context, e *env, args []string) (int, error) {
				return eachMachine(ctx, e, args, func(ctx context.Context, m *machine.Machine) error {
					return m.Remove(ctx, *force)
				})
			}
		},
	}
}
