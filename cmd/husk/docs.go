package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/pflag"
)

func docsVerb() verb {
	return verb{
		name:   "docs",
		short:  "print the reference of all verbs, docs/cli.md",
		hidden: true,
		define: func(*pflag.FlagSet) runner {
			return func(_ context.Context, e *env, args []string) (int, error) {
				if err := noArgs(args); err != nil {
					return 0, err
				}
				_, err := fmt.Fprint(e.stdout, reference())
				return exitOK, err
			}
		},
	}
}

// reference is docs/cli.md: the help of each verb.
func reference() string {
	var b strings.Builder
	b.WriteString("# The husk command\n\n" +
		"Made from husk's own help texts by `go run ./cmd/husk docs`. Do not edit.\n\n" +
		"```\n" + overview() + "```\n")
	for _, v := range verbs() {
		if !v.hidden {
			fmt.Fprintf(&b, "\n## husk %s\n\n```\n%s```\n", v.name, v.help())
		}
	}
	return b.String()
}
