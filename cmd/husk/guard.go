package main

import (
	"context"

	"github.com/spf13/pflag"

	"github.com/huskvm/husk/internal/term"
)

// guardName is the verb that internal/term calls back.
const guardName = "term-guard"

func guardVerb() verb {
	return verb{
		name:   guardName,
		short:  "restore the terminal after husk's end (started by husk itself)",
		hidden: true,
		define: func(*pflag.FlagSet) runner {
			return func(context.Context, *env, []string) (int, error) { return exitOK, term.Guard() }
		},
	}
}
