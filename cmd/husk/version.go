package main

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/pflag"
)

func versionVerb() verb {
	return verb{
		name:  "version",
		short: "print husk's version and what it was built from",
		define: func(*pflag.FlagSet) runner {
			return func(_ context.Context, e *env, args []string) (int, error) {
				if err := noArgs(args); err != nil {
					return 0, err
				}
				_, err := fmt.Fprintln(e.stdout, versionLine())
				return exitOK, err
			}
		},
	}
}

// versionLine is husk's version as the Go toolchain stamped it into the binary:
// the module's version, the commit, and the compiler.
func versionLine() string {
	version, commit, dirty := "(devel)", "", ""
	if info, ok := debug.ReadBuildInfo(); ok {
		if info.Main.Version != "" {
			version = info.Main.Version
		}
		for _, s := range info.Settings {
			switch {
			case s.Key == "vcs.revision":
				commit = " " + s.Value[:min(12, len(s.Value))]
			case s.Key == "vcs.modified" && s.Value == "true":
				dirty = " with local changes"
			}
		}
	}
	return fmt.Sprintf("husk %s%s%s, %s %s/%s", version, commit, dirty, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
