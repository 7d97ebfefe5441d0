package main

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// self runs husk-init again; the kernel keeps the file even after its file
// system is out of sight.
const self = "/proc/self/exe"

// runChild starts a program, reaps whatever ends, and returns the program's
// exit code when that is what has ended. The first process is the parent of
// every orphan; it starts one child and does no other waiting, so that a
// wait for any child takes no result from anybody.
func runChild(argv []string, env []string) (int, error) {
	pid, err := syscall.ForkExec(argv[0], argv, &syscall.ProcAttr{
		Dir:   "/",
		Env:   env,
		Files: []uintptr{0, 1, 2},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return 0, &os.PathError{Op: "run", Path: argv[0], Err: err}
	}
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
