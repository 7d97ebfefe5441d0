package main

import (
	"context"

	"github.com/spf13/pflag"

	"github.com/huskvm/husk/internal/machine"
	"github.com/huskvm/husk/internal/term"
)

func attachVerb() verb {
	return verb{
		name:  "attach",
		args:  "[flags] MACHINE",
		short: "be at the input and output of a machine's command",
		long: `Shows what the machine's command writes from now on, sends it what is typed here, and signals
too, and ends with its exit code. Several clients may be attached at the same time. The
command waits for the client that has started it to take its output, and for no other: one that
falls 4 MiB behind is detached.`,
		examples: `husk attach web
# Only look
husk attach --no-stdin --sig-proxy=false web`,
		failedCode: exitMachine,
		define: func(fs *pflag.FlagSet) runner {
			noStdin := fs.Bool("no-stdin", false, "do not send standard input")
			sigProxy := fs.Bool("sig-proxy", true, "send signals to the command, where it is not on a terminal")
			keys := fs.String("detach-keys", term.DefaultDetachKeys, "`KEYS` that leave the machine running")
			return func(ctx context.Context, e *env, args []string) (int, error) {
				m, err := oneMachine(e, args)
				if err != nil {
					return 0, err
				}
				p := m.Spec().Process
				ends := commandEnds{env: e, stdin: p.OpenStdin && !*noStdin, tty: p.TTY, detachKeys: *keys, signals: *sigProxy && !p.TTY}
				return ends.with(ctx, func(ctx context.Context, s machine.Streams) (int, error) { return m.Attach(ctx, s) })
			}
		},
	}
}
