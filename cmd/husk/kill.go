package main

import (
	"context"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/internal/machine"
)

func killVerb() verb {
	return verb{
		name:  "kill",
		args:  "[flags] MACHINE...",
		short: "end machines at once, or send their commands a signal",
		long: `Ends machines at once, whatever they do; what a guest had not written to its disks is lost.
With another signal than KILL, sends that to each machine's command.`,
		examples:   "husk kill web\nhusk kill -s HUP web",
		failedCode: exitMachine,
		define: func(fs *pflag.FlagSet) runner {
			name := fs.StringP("signal", "s", "KILL", "`SIGNAL` to send")
			return func(ctx context.Context, e *env, args []string) (int, error) {
				signal, err := machine.ParseSignal(*name)
				if err != nil {
					return 0, usageError{err}
				}
				return eachMachine(ctx, e, args, func(ctx context.Context, m *machine.Machine) error {
					if signal == unix.SIGKILL {
						return m.Kill(ctx)
					}
					return m.Signal(ctx, signal)
				})
			}
		},
	}
}
