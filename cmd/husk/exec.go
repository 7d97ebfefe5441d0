package main

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/pflag"

	"github.com/huskvm/husk/internal/container"
	"github.com/huskvm/husk/internal/machine"
	"github.com/huskvm/husk/internal/term"
)

// execFlags are the flags of husk exec.
type execFlags struct {
	interactive, tty, detach bool
	env, envFiles            []string
	dir, user                string
	detachKeys               string
}

func execVerb() verb {
	return verb{
		name:  "exec",
		args:  "[flags] MACHINE CMD [ARG]...",
		short: "run another command in a machine that runs",
		long: `Runs a command beside the machine's own, with that one's environment, user and working
directory unless flags say otherwise, and ends with its exit code; 126 is a command that
cannot be run, and 127 one that is not there. When husk is killed, a command goes on and finds
its output closed; one on a terminal gets SIGHUP.`,
		examples: `husk exec web ls /
# A shell
husk exec -it web sh`,
		failedCode: exitMachine,
		define: func(fs *pflag.FlagSet) runner {
			fs.SetInterspersed(false)
			f := &execFlags{}
			fs.BoolVarP(&f.interactive, "interactive", "i", false, "pass standard input on")
			fs.BoolVarP(&f.tty, "tty", "t", false, "run it on a terminal")
			fs.BoolVarP(&f.detach, "detach", "d", false, "leave it running")
			fs.StringArrayVarP(&f.env, "env", "e", nil, "set a variable: `NAME[=VALUE]`, without VALUE to this host's; repeatable")
			fs.StringArrayVar(&f.envFiles, "env-file", nil, "set the variables in a `FILE`, one a line; repeatable")
			fs.StringVarP(&f.dir, "workdir", "w", "", "working `DIR`ectory in the guest")
			fs.StringVarP(&f.user, "user", "u", "", "run as `USER`[:GROUP], names or numbers of the guest's")
			fs.StringVar(&f.detachKeys, "detach-keys", term.DefaultDetachKeys, "`KEYS` that leave the command running")
			return func(ctx context.Context, e *env, args []string) (int, error) {
				m, argv, err := findMachine(e, args)
				if err != nil {
					return 0, err
				}
				if len(argv) == 0 {
					return 0, usagef("no command; see also husk attach")
				}
				return f.exec(ctx, e, m, argv)
			}
		},
	}
}

// process is the command argv beside a machine's own.
func (f *execFlags) process(own machine.Process, argv []string) (p machine.Process, err error) {
	p = own
	p.Argv, p.TTY = argv, f.tty
	if p.Env, err = container.Env(own.Env, f.envFiles, f.env, os.LookupEnv); err != nil {
		return p, err
	}
	if f.dir != "" {
		p.Dir = f.dir
	}
	if f.user != "" {
		p.User, p.Groups = f.user, nil
	}
	return p, nil
}

func (f *execFlags) exec(ctx context.Context, e *env, m *machine.Machine, argv []string) (int, error) {
	p, err := f.process(m.Spec().Process, argv)
	if err != nil {
		return 0, err
	}
	if f.detach {
		ctx, stop := interruptible(ctx)
		defer stop()
		return interrupted(ctx, m.ExecDetached(ctx, p))
	}
	if f.tty && f.interactive && !term.IsTerminal(e.stdin) {
		return 0, fmt.Errorf("the input device is not a TTY; leave -t out")
	}
	ends := commandEnds{env: e, stdin: f.interactive, tty: f.tty, detachKeys: f.detachKeys, signals: !f.tty}
	return ends.with(ctx, func(ctx context.Context, s machine.Streams) (int, error) { return m.Exec(ctx, p, s) })
}
