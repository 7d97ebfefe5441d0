package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"github.com/huskvm/husk/internal/machine"
)

func cpVerb() verb {
	return verb{
		name:  "cp",
		args:  "[flags] SOURCE DESTINATION",
		short: "copy files to or from a machine that runs",
		long: `Copies a file or folder between this host and a machine's guest, whose paths are written
MACHINE:PATH. What is copied goes into the destination if that is a folder, and else becomes it;
of a folder "FOLDER/." what is in it is copied. "-" is a tar on standard input, which is unpacked
into a folder, or on standard output. Files keep their modes and times, and belong to root in the
guest, and here to who copies them. A local path with a colon is written ./a:b.`,
		examples: `husk cp site/. web:/usr/share/nginx/html
husk cp web:/etc/nginx/nginx.conf .
husk cp web:/var/log - | tar t`,
		failedCode: exitMachine,
		define: func(fs *pflag.FlagSet) runner {
			var o machine.CopyOptions
			fs.BoolVarP(&o.Owners, "archive", "a", false, "keep the files' owners, by their numbers")
			fs.BoolVarP(&o.Follow, "follow-link", "L", false, "copy what a SOURCE that is a symbolic link leads to")
			return func(ctx context.Context, e *env, args []string) (int, error) {
				if len(args) != 2 {
					return 0, usagef("name a source and a destination, one of them as MACHINE:PATH")
				}
				ctx, stop := interruptible(ctx)
				defer stop()
				return interrupted(ctx, copyFiles(ctx, e, args[0], args[1], o))
			}
		},
	}
}

// splitMachine takes MACHINE:PATH apart; machine is "" for a path of this host.
func splitMachine(s string) (name, path string) {
	name, path, ok := strings.Cut(s, ":")
	if !ok || strings.ContainsAny(name, "/") || name == "" || name == "." {
		return "", s
	}
	return name, path
}

func copyFiles(ctx context.Context, e *env, from, to string, o machine.CopyOptions) error {
	source, fromPath := splitMachine(from)
	target, toPath := splitMachine(to)
	if (source == "") == (target == "") {
		return usagef("one of source and destination is of a machine, MACHINE:PATH, and the other of this host")
	}
	ms, err := openMachines(e)
	if err != nil {
		return err
	}
	m, err := ms.Find(source + target)
	if err != nil {
		return err
	}
	if fromPath == "" || toPath == "" {
		return usagef("a path is empty; write / for the root")
	}
	switch {
	case source != "" && to == "-":
		err = m.Download(ctx, fromPath, e.stdout)
	case source != "":
		err = m.CopyFrom(ctx, fromPath, toPath, o)
	case from == "-":
		err = m.Upload(ctx, toPath, e.stdin, o)
	default:
		err = m.CopyTo(ctx, fromPath, toPath, o)
	}
	if err != nil {
		return fmt.Errorf("copy %s to %s: %w", from, to, err)
	}
	return nil
}
