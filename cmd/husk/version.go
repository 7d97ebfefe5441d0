package main

import (
	"cmp"
	"context"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/pflag"
)

// version is what the build says it makes (see the Makefile): a tag, or the way
// to the commit from one. Plain go build leaves it empty.
var version string

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

// versionLine is husk's version and the compiler that made it.
func versionLine() string {
	return fmt.Sprintf("husk %s, %s %s/%s", cmp.Or(version, stampedVersion()), runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// stampedVersion is what the Go toolchain stamped into the binary: the module's
// version and the commit.
func stampedVersion() string {
	module, commit, dirty := "(devel)", "", ""
	if info, ok := debug.ReadBuildInfo(); ok {
		module = cmp.Or(info.Main.Version, module)
		for _, s := range info.Settings {
			switch {
			case s.Key == "vcs.revision":
				commit = " " + s.Value[:min(12, len(s.Value))]
			case s.Key == "vcs.modified" && s.Value == "true":
				dirty = " with local changes"
			}
		}
	}
	return module + commit + dirty
}
