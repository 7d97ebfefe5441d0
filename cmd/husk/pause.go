package main

import (
	"context"

	"github.com/spf13/pflag"

	"github.com/huskvm/husk/internal/machine"
)

func pauseVerb() verb {
	return verb{
		name:  "pause",
		args:  "MACHINE...",
		short: "stop machines where they are, until husk resume",
		long: `Stops all of a machine: its processors between two instructions, its devices between two
requests. It keeps its memory, and its clock goes on.`,
		examples:   "husk pause web",
		failedCode: exitMachine,
		define: func(*pflag.FlagSet) runner {
			return func(ctx context.Context, e *env, args []string) (int, error) {
				return eachMachine(ctx, e, args, func(ctx context.Context, m *machine.Machine) error { return m.Pause(ctx) })
			}
		},
	}
}

func resumeVerb() verb {
	return verb{
		name:       "resume",
		args:       "MACHINE...",
		short:      "let paused machines go on",
		long:       `Lets machines go on that husk pause has stopped. husk unpause is the same.`,
		examples:   "husk resume web",
		failedCode: exitMachine,
		define: func(*pflag.FlagSet) runner {
			return func(ctx context.Context, e *env, args []string) (int, error) {
				return eachMachine(ctx, e, args, func(ctx context.Context, m *machine.Machine) error { return m.Resume(ctx) })
			}
		},
	}
}

// unpauseVerb is Docker's name for it.
func unpauseVerb() verb {
	v := resumeVerb()
	v.name, v.hidden = "unpause", true
	return v
}
