package main

import (
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// self runs husk-init again; the kernel keeps the file even after its file
// system is out of sight.
const self = "/proc/self/exe"

// runChild starts a program and waits for its end.
func runChild(argv, env []string, terminal *os.File) (int, error) {
	pid, err := start(argv[0], argv, env, terminal)
	if err != nil {
		return 0, err
	}
	return waitFor(pid)
}

// start starts a program in a session of its own. A terminal, unless nil, is the
// program's standard files and controls it.
func start(path string, argv, env []string, terminal *os.File) (pid int, err error) {
	files, sys := []uintptr{0, 1, 2}, &syscall.SysProcAttr{Setsid: true}
	if terminal != nil {
		fd := terminal.Fd()
		files = []uintptr{fd, fd, fd}
		sys.Setctty = true // of its file 0
	}
	pid, err = syscall.ForkExec(path, argv, &syscall.ProcAttr{
		Dir:   "/",
		Env:   env,
		Files: files,
		Sys:   sys,
	})
	if err != nil {
		return 0, &os.PathError{Op: "run", Path: path, Err: err}
	}
	return pid, nil
}

// waitFor reaps whatever ends, and returns a program's exit code when that is what
// has ended. The first process is the parent of every orphan; it does no other
// waiting, so that a wait for any child takes no result from anybody.
func waitFor(pid int) (int, error) {
	for {
		var status unix.WaitStatus
		ended, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return 0, os.NewSyscallError("wait4", err)
		case ended != pid:
		case status.Signaled():
			return 128 + int(status.Signal()), nil
		case status.Exited():
			return status.ExitStatus(), nil
		}
	}
}

// runShell runs the shell on the console: for a line, or until it ends.
func runShell(line ...string) (int, error) {
	env := []string{"PATH=/bin:/sbin:/usr/bin:/usr/sbin", "HOME=/", "TERM=linux"}
	return runChild(append([]string{self, shellArg}, line...), env, consoleTerminal())
}

// consoleTerminal is the terminal behind /dev/console, which cannot control a
// session itself; nil where there is none.
func consoleTerminal() *os.File {
	names := strings.Fields(line("/sys/class/tty/console/active"))
	if len(names) == 0 {
		return nil
	}
	f, err := os.OpenFile("/dev/"+names[len(names)-1], os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil
	}
	return f
}
