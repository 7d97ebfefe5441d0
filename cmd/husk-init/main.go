// Command husk-init is the first process of husk's own guests: those of
// "husk lab", of the demonstration and of the tests. It is alone in its
// initramfs, so it is also the shell there. Before another first process it
// starts the agent that runs husk's commands in the guest, and becomes the other.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/huskvm/husk/internal/guestinit/spec"
)

// What husk-init is when it is not the first process: its first argument, from
// itself.
const (
	labArg     = "lab"     // the lab's agent
	guestArg   = "guest"   // a guest's agent, for the port of the host's vsock that follows
	besideArg  = "beside"  // the same, beside another first process
	shellArg   = "shell"   // the shell, for a line or the console
	builtinArg = "builtin" // one of the shell's own commands
)

// firstName is argument 0 of a container's first process, before it is the container's
// command. The kernel calls its first process by its path.
const firstName = "@husk-first"

func main() {
	if os.Args[0] == firstName { // process 1, too, of the container's
		failWith("container", firstMain())
	}
	if os.Getpid() == 1 {
		// Whatever went wrong, a first process must not end: the kernel would panic.
		if err := boot(); err != nil {
			say("husk-init: %v", err)
		}
		powerOff()
	}
	args := append(os.Args, "", "")
	switch args[1] {
	case labArg:
		failWith("agent", serveLab())
	case guestArg, besideArg:
		failWith("agent", guestAgent(args[1], args[2]))
	case shellArg:
		os.Exit(shellMain(os.Args[2:]))
	case builtinArg:
		sh := &shell{out: os.Stdout, err: os.Stderr}
		sh.command(os.Args[2:])
		os.Exit(sh.code)
	default:
		say("husk-init is the first process of a guest; it does nothing elsewhere")
		os.Exit(1)
	}
}

// failWith ends a process that is not the first.
func failWith(what string, err error) {
	if err != nil {
		say("husk-init: %s: %v", what, err)
		os.Exit(1)
	}
}

// boot does what the initramfs and the kernel command line say.
func boot() error {
	init, err := readInit()
	if err != nil {
		return err
	}
	if g := init.Guest; g != nil && g.Then != "" {
		err := becomeAnother(g)
		say("husk-init: %v", err)
		os.Exit(1) // the kernel panics, as it would without a first process
	}
	if err := mountAll("/", early()); err != nil {
		return err
	}
	if init.Container != nil {
		return runContainer(init)
	}
	if init.Lab == nil {
		if err := readCommandLine(&init.Demo); err != nil {
			return err
		}
		if init.Demo.Marker != 0 {
			if err := writePort(markerPort, init.Demo.Marker); err != nil {
				return err
			}
		}
	}
	if err := loadModules(every, func(err error) { say("husk-init: %v", err) }); err != nil {
		return err
	}
	if init.Lab == nil {
		return live(init)
	}
	if err := lab(init.Lab); err != nil {
		return err
	}
	_, err = runChild([]string{self, labArg}, nil, nil)
	return err
}

// readInit reads what the host has packed.
func readInit() (spec.Init, error) {
	var init spec.Init
	b, err := os.ReadFile(spec.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return init, nil
	}
	if err != nil {
		return init, err
	}
	if err := json.Unmarshal(b, &init); err != nil {
		return init, fmt.Errorf("%s: %w", spec.Path, err)
	}
	return init, nil
}

// say prints a line on the console.
func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
}
