package main

import (
	"context"
	"io"
	"os"
	"os/signal"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/internal/cgroup"
	"github.com/huskvm/husk/internal/machine"
	"github.com/huskvm/husk/internal/machine/process"
)

// machineProcessName is the verb that is a machine's process.
const machineProcessName = "machine-process"

func machineProcessVerb() verb {
	return verb{
		name:   machineProcessName,
		short:  "be the process of a machine of husk run (started by husk itself)",
		hidden: true,
		define: func(fs *pflag.FlagSet) runner {
			level := fs.String("log-level", "warn", "debug, info, warn or error")
			return func(ctx context.Context, e *env, args []string) (int, error) {
				m, err := machine.Inherit(args)
				if err != nil {
					return 0, err
				}
				log := newLogger(e.stderr, *level, "text")
				return exitOK, process.Serve(ctx, m, process.Options{
					NewVM: func(m *machine.Machine, console io.Writer) (process.VM, error) {
						vm, err := process.NewVM(m, console, log)
						forgetStart()
						return vm, err
					},
					Groups: cgroup.Host(), Stop: stopSignals(), Log: log,
				})
			}
		},
	}
}

// stopSignals is closed when a signal asks this process to end.
func stopSignals() <-chan struct{} {
	stop, signals := make(chan struct{}), make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	go func() {
		<-signals
		close(stop) // a second one changes nothing
	}()
	return stop
}
