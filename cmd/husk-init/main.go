// Command husk-init is the first process of husk's own guests: those of
// "husk lab", of the demonstration and of the tests. It is alone in its
// initramfs, so it is also the shell there.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/internal/guestinit/spec"
)

// agentArg makes husk-init the lab's agent instead of the first process.
const agentArg = "agent"

func main() {
	if len(os.Args) > 1 && os.Args[1] == agentArg {
		if err := serveAgent(); err != nil {
			say("husk-init: agent: %v", err)
			os.Exit(1)
		}
		return
	}
	if os.Getpid() != 1 {
		say("husk-init is the first process of a guest; it does nothing elsewhere")
		os.Exit(1)
	}
	// Whatever went wrong, a first process must not end: the kernel would panic.
	if err := boot(); err != nil {
		say("husk-init: %v", err)
	}
	powerOff()
}

// boot does what the initramfs says.
func boot() error {
	if err := mountAll("/", early()); err != nil {
		return err
	}
	init, err := readInit()
	if err != nil {
		return err
	}
	if err := loadModules(func(err error) { say("husk-init: %v", err) }); err != nil {
		return err
	}
	if init.Lab == nil {
		return nil
	}
	if err := lab(init.Lab); err != nil {
		return err
	}
	_, err = runChild([]string{self, agentArg}, nil)
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

// powerOff ends the machine.
func powerOff() {
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	select {} // the kernel has no way to switch the machine off
}
