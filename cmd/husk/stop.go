package main

import (
	"context"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/internal/machine"
)

func stopVerb() verb {
	return verb{
		name:  "stop",
		args:  "[flags] MACHINE...",
		short: "end machines, gently at first",
		long: `Sends each machine's command its stop signal. A command that has not ended after --time
is killed; where the guest has not done that two seconds later, so is the machine. MACHINE is
a name, an ID, or what an ID begins with. A paused machine is resumed for it.`,
		examples:   "husk stop web\n# At once\nhusk stop -t 0 web",
		failedCode: exitMachine,
		define: func(fs *pflag.FlagSet) runner {
			seconds := fs.IntP("time", "t", 0, "`SECONDS` that the command may take, -1 for as long as it wants (default: as the machine was started with, else 10)")
			name := fs.StringP("signal", "s", "", "send this `SIGNAL` (default: as the machine was started with, else TERM)")
			return func(ctx context.Context, e *env, args []string) (int, error) {
				var signal unix.Signal
				if *name != "" {
					var err error
					if signal, err = machine.ParseSignal(*name); err != nil {
						return 0, usageError{err}
					}
				}
				return eachMachine(ctx, e, args, func(ctx context.Context, m *machine.Machine) error {
					timeout := m.Spec().Process.Patience()
					if fs.Changed("time") {
						timeout = time.Duration(*seconds) * time.Second
					}
					return unlessEnded(m, m.Stop(ctx, signal, timeout))
				})
			}
		},
	}
}

// unlessEnded makes no error of it that a machine has ended already.
func unlessEnded(m *machine.Machine, err error) error {
	if err == nil {
		return nil
	}
	if s, serr := m.State(); serr == nil && (s.Status == machine.Exited || s.Status == machine.Dead) {
		return nil
	}
	return err
}
