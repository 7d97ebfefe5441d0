package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/internal/agent"
	"github.com/huskvm/husk/internal/guestinit/spec"
)

// agentName is the agent's argument 0. systemd leaves processes alone whose names
// begin so, both when it leaves an initramfs and when it shuts down
// (systemd.io/ROOT_STORAGE_DAEMONS).
const agentName = "@husk-agent"

// startAgent starts the agent of a guest that has husk-init as its first process.
func startAgent(g *spec.Guest) (pid int, err error) {
	return start(self, []string{agentName, guestArg, fmt.Sprint(g.Port)}, nil, nil)
}

// besideReady is the agent's file that it closes when the initramfs is not needed any more.
const besideReady = 3

// becomeAnother starts the agent beside another first process, and becomes that. It
// returns only if it cannot.
//
// The other one finds what it would have found without us: what the agent has to
// mount is mounted in a namespace of its own.
func becomeAnother(g *spec.Guest) error {
	if err := startBeside(g); err != nil {
		say("husk-init: agent: %v; husk can run no commands in this guest", err)
	}
	err := unix.Exec(g.Then, append([]string{g.Then}, os.Args[1:]...), os.Environ())
	return fmt.Errorf("the first process %s: %w", g.Then, err)
}

// besideWait is how long the other first process waits for the agent's modules.
const besideWait = time.Minute

// startBeside starts the agent, and waits until it needs nothing of the initramfs:
// the other first process may delete it.
func startBeside(g *spec.Guest) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	// There is no /proc to find ourselves by; the kernel calls us by our path.
	_, err = syscall.ForkExec(os.Args[0], []string{agentName, besideArg, fmt.Sprint(g.Port)}, &syscall.ProcAttr{
		Dir:   "/",
		Env:   os.Environ(),
		Files: []uintptr{0, 1, 2, w.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true, Unshareflags: unix.CLONE_NEWNS},
	})
	_ = w.Close()
	if err != nil {
		return &os.PathError{Op: "run", Path: os.Args[0], Err: err}
	}
	if err := r.SetReadDeadline(time.Now().Add(besideWait)); err != nil {
		return err
	}
	if n, err := r.Read(make([]byte, 1)); n != 1 {
		return fmt.Errorf("it did not start: %w", err)
	}
	return nil
}

// settleBeside is the agent's start beside another first process: it loads the
// modules, and makes itself a root that nobody removes. In the initramfs it could not
// stay: when the folder that something is mounted on is deleted, the mount is gone
// in all namespaces (mount_namespaces(7)).
func settleBeside() error {
	ready := os.NewFile(besideReady, "ready")
	defer ready.Close()
	if err := loadModules(every, func(err error) { say("husk-init: %v", err) }); err != nil {
		return err
	}
	root := filepath.Join(spec.Dir, "root")
	// ramfs is in every kernel: the initramfs itself needs it.
	if err := mountAll("/", []mount{{"ramfs", root, "ramfs", locked, "mode=0700", false}}); err != nil {
		return err
	}
	if err := mountAll(root, early()[:1]); err != nil { // proc
		return err
	}
	if err := switchRoot(root); err != nil {
		return err
	}
	_, err := ready.Write([]byte{1})
	return err
}

// guestAgent is the agent's own process.
func guestAgent(kind, text string) error {
	port, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return err
	}
	server := &agent.Server{Enter: enterInit, Builtin: ownProgram}
	if kind == besideArg {
		if err := settleBeside(); err != nil {
			return err
		}
	} else {
		server.PowerOff = func() error { powerOff(); return nil }
	}
	serveGuest(uint32(port), server)
	return nil
}
