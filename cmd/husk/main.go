// Command husk boots Linux kernels as virtual machines on /dev/kvm.
//
// Every command is one entry in the table that verbs returns, and lives in the
// file of its name. The table is also what the help texts and docs/cli.md are
// made from.
package main

import (
	"context"
	"io"
	"os"
)

// verbs is the table of husk's commands, in the order in which help lists them.
func verbs() []verb {
	return []verb{
		helpVerb(),
		versionVerb(),
	}
}

// An env is what a verb sees of the process around it. Tests make their own.
type env struct {
	stdin          *os.File
	stdout, stderr io.Writer
	getenv         func(string) string
}

func main() {
	e := &env{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, getenv: os.Getenv}
	os.Exit(dispatch(context.Background(), e, os.Args[1:]))
}
