package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/internal/guestinit/spec"
)

// live is a guest's life.
func live(init spec.Init) error {
	watchPowerButton(powerOff)
	for _, m := range late() {
		if err := mountAll("/", []mount{m}); err != nil {
			say("husk-init: %v", err) // a small kernel need not have all of them
		}
	}
	makeTemporary()
	var agent int
	if g := init.Guest; g != nil {
		if err := loopbackUp(); err != nil {
			say("husk-init: loopback: %v", err)
		}
		var err error
		if agent, err = startAgent(g); err != nil {
			return err
		}
	}
	if !init.Demo.Quiet {
		introduce()
	}
	if init.Guest == nil || init.Demo.Do != "" {
		return act(init.Demo)
	}
	code, err := waitFor(agent)
	if err == nil {
		err = fmt.Errorf("the agent ended with exit code %d", code)
	}
	return err
}

// makeTemporary makes the folder for temporary files, unless the initramfs has it.
func makeTemporary() {
	const dir = "/tmp"
	if err := os.Mkdir(dir, 0o777); err != nil && !errors.Is(err, fs.ErrExist) {
		say("husk-init: %v", err)
	} else if err == nil {
		_ = os.Chmod(dir, 0o777|fs.ModeSticky)
	}
}

// act does what a guest is there for.
func act(d spec.Demo) error {
	switch d.Do {
	case spec.Shell, "":
		_, err := runShell()
		return err
	case spec.Run:
		return runLine(d.Run)
	case spec.Lines:
		return runLine(fmt.Sprint("lines ", cmp.Or(d.Count, spec.DefaultCount)))
	case spec.OutOfMemory:
		return runLine("oom")
	case spec.ExitInit:
		os.Exit(int(d.Code))
	case spec.Exit:
		return exit(d.Code)
	case spec.PowerOff:
		return nil // the end of every guest
	case spec.Reboot:
		return reboot()
	case spec.Panic:
		return crash()
	case spec.TripleFault:
		return tripleFault()
	case spec.Idle:
		select {}
	case spec.Spin:
		for n := 0; ; n++ {
			_ = n
		}
	}
	return fmt.Errorf("husk.do=%s: there is no such action", d.Do)
}

// runLine runs a line in the shell, and ends the machine with its exit code.
func runLine(text string) error {
	code, err := runShell(text)
	if err != nil {
		return err
	}
	return exit(byte(code))
}

// introduce prints what the guest sees.
func introduce() {
	fmt.Println()
	fmt.Println("  husk: a virtual machine of its own, from here on down")
	for _, line := range facts() {
		fmt.Printf("  %-8s %s\n", line[0], line[1])
	}
	fmt.Println()
}

// facts are what the guest sees, each with its name.
func facts() [][2]string {
	var list [][2]string
	add := func(name, value string) {
		if value != "" {
			list = append(list, [2]string{name, value})
		}
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		add("kernel", text(u.Sysname[:])+" "+text(u.Release[:]))
	}
	add("cpus", cpus())
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		add("memory", fmt.Sprintf("%d MiB", info.Totalram*uint64(info.Unit)>>20))
	}
	add("clock", line("/sys/devices/system/clocksource/clocksource0/current_clocksource"))
	add("boot", sinceBoot()+" s from the kernel's start to this line")
	return list
}

// cpus counts the processors and says what they call themselves.
func cpus() string {
	var set unix.CPUSet
	if unix.SchedGetaffinity(0, &set) != nil {
		return ""
	}
	b, _ := os.ReadFile("/proc/cpuinfo")
	_, rest, _ := strings.Cut(string(b), "model name")
	model, _, _ := strings.Cut(strings.TrimLeft(rest, "\t :"), "\n")
	return strings.TrimSuffix(fmt.Sprintf("%d, %s", set.Count(), model), ", ")
}

// sinceBoot is the kernel's uptime in seconds.
func sinceBoot() string {
	var now unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &now) != nil {
		return "?"
	}
	return fmt.Sprintf("%.2f", float64(now.Nano())/1e9)
}

// line is a file's first line, "" where it cannot be read.
func line(file string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	first, _, _ := strings.Cut(string(b), "\n")
	return first
}

// text is a string that C ends with NUL.
func text(b []byte) string {
	s, _, _ := strings.Cut(string(b), "\x00")
	return s
}

// exit ends the machine with an exit code, where it has the device for it.
func exit(code byte) error {
	unix.Sync()
	if err := writePort(debugExitPort, code); err != nil {
		return err
	}
	if code == 0 {
		return nil
	}
	return fmt.Errorf("exit code %d; there is no debug-exit device to give it to: boot with --debug-exit", code)
}

// powerOff ends the machine. It does not return.
func powerOff() {
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	select {} // the kernel has no way to switch the machine off
}

func reboot() error {
	unix.Sync()
	return os.NewSyscallError("reboot", unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART))
}

// crash has the kernel panic (kernel Documentation/admin-guide/sysrq.rst, "c").
func crash() error {
	return os.WriteFile("/proc/sysrq-trigger", []byte("c"), 0)
}

// tripleFault has the kernel restart by one: an interrupt with an empty table
// (kernel Documentation/ABI/testing/sysfs-kernel-reboot).
func tripleFault() error {
	err := errors.Join(
		os.WriteFile("/sys/kernel/reboot/type", []byte("triple"), 0),
		os.WriteFile("/sys/kernel/reboot/force", []byte("1"), 0),
	)
	if err != nil {
		return err
	}
	return reboot()
}
