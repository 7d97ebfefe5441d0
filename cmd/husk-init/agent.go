package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/internal/agent"
)

// How long the agent waits until it tries again to reach the host, at first and at
// most. A host that listens already is reached as soon as the driver is up; a guest
// whose host never asks for it is not kept awake.
const (
	firstWait = 2 * time.Millisecond
	lastWait  = time.Second
)

// unreachableAfter is when the console is told that there is no vsock.
const unreachableAfter = 10 * time.Second

// serveGuest runs the host's commands, one connection after the other, for ever.
func serveGuest(port uint32, server *agent.Server) {
	// Who ends all processes does not mean this one; SIGKILL is for those who insist.
	// A handler is not inherited by commands, as being ignored would be.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT)
	began, told := time.Now(), false
	for wait := firstWait; ; wait = min(2*wait, lastWait) {
		conn, err := dialHost(port)
		if err == nil {
			told = true
			connected := time.Now()
			_ = server.Serve(context.Background(), conn) // its end is the host's
			if time.Since(connected) > lastWait {
				wait = firstWait
			}
		}
		if noDriver := errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EAFNOSUPPORT); noDriver && !told && time.Since(began) > unreachableAfter {
			told = true
			say("husk-init: agent: %v: there is no vsock device, or no driver for it; husk can run no commands in this guest", err)
		}
		time.Sleep(wait)
	}
}

// dialHost connects to a port of the host's vsock (vsock(7)).
func dialHost(port uint32) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	// This waits for the host's answer, two seconds at most.
	if err := unix.Connect(fd, &unix.SockaddrVM{CID: unix.VMADDR_CID_HOST, Port: port}); err != nil {
		_ = unix.Close(fd)
		return nil, os.NewSyscallError("connect", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // for Go's poller
		_ = unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(fd), "vsock"), nil
}

// enterInit moves the calling thread, and what it starts, to where the first process
// is: its mount namespace and its root, whatever that is by now.
func enterInit() error {
	const init = "/proc/1"
	root, err := unix.Open(filepath.Join(init, "root"), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "enter", Path: init + "/root", Err: err}
	}
	defer unix.Close(root)
	mounts, err := unix.Open(filepath.Join(init, "ns/mnt"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "enter", Path: init + "/ns/mnt", Err: err}
	}
	defer unix.Close(mounts)
	// A thread that shares its root with others may not change the namespace (setns(2)).
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	if err := unix.Setns(mounts, unix.CLONE_NEWNS); err != nil {
		return os.NewSyscallError("setns", err)
	}
	if err := unix.Fchdir(root); err != nil {
		return os.NewSyscallError("fchdir", err)
	}
	return os.NewSyscallError("chroot", unix.Chroot("."))
}

// ownProgram is husk-init as the program for a command that a guest has not: its
// small shell, or one of the shell's own commands.
func ownProgram(argv []string) []string {
	switch name := argv[0]; {
	case (name == "sh" || name == "/bin/sh") && len(argv) == 1:
		return []string{self, name, shellArg}
	case (name == "sh" || name == "/bin/sh") && len(argv) >= 3 && argv[1] == "-c":
		return []string{self, name, shellArg, argv[2]}
	case builtin(name) != nil:
		return append([]string{self, name, builtinArg}, argv...)
	}
	return nil
}
