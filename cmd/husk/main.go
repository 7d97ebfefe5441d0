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

	"github.com/huskvm/husk/internal/doctor"
	"github.com/huskvm/husk/internal/machine"
	"github.com/huskvm/husk/internal/testvm"
	"github.com/huskvm/husk/vmm"
)

// verbs is the table of husk's commands, in the order in which help lists them.
func verbs() []verb {
	return []verb{
		bootVerb(),
		runVerb(),
		smokeVerb(),
		execTestVerb(),
		psVerb(),
		logsVerb(),
		execVerb(),
		attachVerb(),
		stopVerb(),
		killVerb(),
		rmVerb(),
		waitVerb(),
		inspectVerb(),
		pauseVerb(),
		resumeVerb(),
		unpauseVerb(),
		statsVerb(),
		cpVerb(),
		pullVerb(),
		imagesVerb(),
		rmiVerb(),
		loadVerb(),
		saveVerb(),
		labVerb(),
		doctorVerb(),
		helpVerb(),
		versionVerb(),
		docsVerb(),
		guardVerb(),
		smokeMachineVerb(),
		machineProcessVerb(),
	}
}

// An env is what a verb sees of the process around it, and of the host. Tests
// make their own.
type env struct {
	stdin          *os.File
	stdout, stderr io.Writer
	getenv         func(string) string
	args           []string // of the verb, as they were given

	newMachine func(vmm.Config) (bootMachine, error)
	canBoot    func() error // why KVM boots no stock kernel, nil where it does
	examine    func() *doctor.Report
	startGuest func(ctx context.Context, b testvm.Blueprint) (testGuest, error)
	// createMachine makes the machine of a container.
	createMachine func(ctx context.Context, spec machine.Spec) (createdMachine, error)
	// lab runs husk with args in the lab, which can write to the folders outputs too.
	lab func(ctx context.Context, args []string, outputs ...string) (int, error)
}

func main() {
	e := &env{
		stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, getenv: os.Getenv,
		newMachine: func(cfg vmm.Config) (bootMachine, error) { return vmm.New(cfg) },
		canBoot:    func() error { return doctor.CanBoot("") },
		examine:    doctor.Host{}.Examine,
		startGuest: func(ctx context.Context, b testvm.Blueprint) (testGuest, error) { return testvm.Start(ctx, b) },
	}
	e.lab = func(ctx context.Context, args []string, outputs ...string) (int, error) {
		return huskInLab(ctx, e, args, outputs)
	}
	e.createMachine = func(ctx context.Context, spec machine.Spec) (createdMachine, error) {
		return createMachine(ctx, e, spec)
	}
	os.Exit(dispatch(context.Background(), e, os.Args[1:]))
}
