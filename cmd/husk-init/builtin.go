package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A command is one of the shell's own.
type command struct {
	name, help string
	run        func(sh *shell, args []string) error
}

// builtins are the shell's own commands, in the order help lists them.
func builtins() []command {
	return []command{
		{"help", "list these commands", help},
		{"cat", "FILE...: print files", cat},
		{"cd", "[DIR]: change the directory", cd},
		{"dmesg", "print the kernel's messages", dmesg},
		{"echo", "[WORD...]: print words; $? is the last exit code", echo},
		{"exit", "[CODE]: leave the shell, which powers off", exitShell},
		{"free", "print how much memory is used", free},
		{"insmod", "FILE [PARAMETER=VALUE...]: load a kernel module", insmod},
		{"lines", "COUNT: print numbered lines", lines},
		{"ls", "[DIR...]: list files", ls},
		{"mount", "print what is mounted; TYPE SOURCE DIR: mount", mountCommand},
		{"oom", "take memory until there is none", oom},
		{"panic", "have the kernel panic", noArgs(crash)},
		{"poweroff", "power the machine off", noArgs(func() error { powerOff(); return nil })},
		{"ps", "list processes", ps},
		{"reboot", "restart the machine", noArgs(reboot)},
		{"sleep", "SECONDS", sleep},
		{"uname", "print the kernel's name and version", uname},
		{"uptime", "print for how long the kernel has run", uptime},
		{"write", "FILE [WORD...]: write words to a file that is there", write},
	}
}

func builtin(name string) *command {
	for _, c := range builtins() {
		if c.name == name {
			return &c
		}
	}
	return nil
}

func noArgs(f func() error) func(*shell, []string) error {
	return func(*shell, []string) error { return f() }
}

func help(sh *shell, _ []string) error {
	for _, c := range builtins() {
		fmt.Fprintf(sh.out, "  %-9s %s\n", c.name, c.help)
	}
	fmt.Fprintln(sh.out, "other words are programs; commands may be joined by ; && and ||")
	return nil
}

func cat(sh *shell, args []string) error {
	if len(args) == 0 {
		_, err := io.Copy(sh.out, os.Stdin)
		return err
	}
	var failed error
	for _, name := range args {
		f, err := os.Open(name)
		if err == nil {
			_, err = io.Copy(sh.out, f)
			_ = f.Close()
		}
		failed = errors.Join(failed, err)
	}
	return failed
}

func cd(_ *shell, args []string) error {
	if len(args) == 0 {
		args = []string{"/"}
	}
	return os.Chdir(args[0])
}

// dmesg reads the kernel's ring buffer at once (syslog(2)).
func dmesg(sh *shell, _ []string) error {
	size, err := unix.Klogctl(unix.SYSLOG_ACTION_SIZE_BUFFER, nil)
	if err != nil {
		return err
	}
	b := make([]byte, size)
	n, err := unix.Klogctl(unix.SYSLOG_ACTION_READ_ALL, b)
	if err != nil {
		return err
	}
	_, err = sh.out.Write(b[:n])
	return err
}

func echo(sh *shell, args []string) error {
	_, err := fmt.Fprintln(sh.out, strings.Join(args, " "))
	return err
}

func exitShell(sh *shell, args []string) error {
	sh.ended = true
	if len(args) == 0 {
		return nil
	}
	code, err := strconv.ParseUint(args[0], 10, 8)
	if err != nil {
		return fmt.Errorf("%s: not a number from 0 to 255", args[0])
	}
	sh.code = int(code)
	return nil
}

func free(sh *shell, _ []string) error {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return err
	}
	for _, l := range strings.Split(string(b), "\n") {
		name, value, _ := strings.Cut(l, ":")
		kib, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		switch name {
		case "MemTotal", "MemFree", "MemAvailable":
			if err == nil {
				fmt.Fprintf(sh.out, "%-10s %6d MiB\n", strings.ToLower(name[3:]), kib>>10)
			}
		}
	}
	return nil
}

func ls(sh *shell, args []string) error {
	// Long is all there is; -l and -a are habits.
	args = slices.DeleteFunc(args, func(a string) bool { return strings.HasPrefix(a, "-") })
	if len(args) == 0 {
		args = []string{"."}
	}
	var failed error
	for _, dir := range args {
		names := []string{dir}
		if st, err := os.Stat(dir); err == nil && st.IsDir() {
			names, _ = filepath.Glob(filepath.Join(dir, "*"))
		}
		for _, name := range names {
			st, err := os.Lstat(name)
			if err != nil {
				failed = errors.Join(failed, err)
				continue
			}
			fmt.Fprintf(sh.out, "%s %10d %s\n", st.Mode(), st.Size(), filepath.Base(name))
		}
	}
	return failed
}

func mountCommand(sh *shell, args []string) error {
	switch len(args) {
	case 0:
		return cat(sh, []string{"/proc/mounts"})
	case 3:
		return mountAll("/", []mount{{source: args[1], target: args[2], fstype: args[0]}})
	}
	return errors.New("want TYPE SOURCE DIR")
}

func ps(sh *shell, _ []string) error {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		b, _ := os.ReadFile(dir + "/cmdline")
		name := strings.TrimSpace(strings.ReplaceAll(string(b), "\x00", " "))
		if name == "" { // a thread of the kernel's
			name = "[" + line(dir+"/comm") + "]"
		}
		fmt.Fprintf(sh.out, "%6s %s\n", filepath.Base(dir), name)
	}
	return err
}

func sleep(_ *shell, args []string) error {
	if len(args) != 1 {
		return errors.New("want a number of seconds")
	}
	seconds, err := strconv.ParseFloat(args[0], 64)
	if err != nil || !(seconds >= 0 && seconds < 1e9) {
		return fmt.Errorf("%s: not a number of seconds", args[0])
	}
	time.Sleep(time.Duration(seconds * float64(time.Second)))
	return nil
}

// uname takes the flags of POSIX's, and without any prints what is of use.
func uname(sh *shell, args []string) error {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return err
	}
	wanted := "srvm"
	if len(args) > 0 {
		wanted = strings.ReplaceAll(strings.ReplaceAll(strings.Join(args, ""), "-", ""), "a", "snrvm")
	}
	if strings.Trim(wanted, "snrvm") != "" {
		return fmt.Errorf("%s: there are -s, -n, -r, -v, -m and -a", strings.Join(args, " "))
	}
	var line []string
	for _, f := range []struct{ flag, value string }{
		{"s", text(u.Sysname[:])}, {"n", text(u.Nodename[:])}, {"r", text(u.Release[:])}, {"v", text(u.Version[:])}, {"m", text(u.Machine[:])},
	} {
		if strings.Contains(wanted, f.flag) {
			line = append(line, f.value)
		}
	}
	fmt.Fprintln(sh.out, strings.Join(line, " "))
	return nil
}

func uptime(sh *shell, _ []string) error {
	fmt.Fprintln(sh.out, sinceBoot(), "s")
	return nil
}
