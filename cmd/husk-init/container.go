package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/internal/agent"
	"github.com/huskvm/husk/internal/guestinit/spec"
)

// A container is a guest with the root of a container image.
//
// Two parties live there. husk-init stays process 1 of the guest, in the initramfs, and
// is the agent: no signal reaches it, and the kernel never ends it for want of memory.
// The container has processes and mounts of its own (namespaces(7)), so that its
// first process is process 1 to all that run there, with what that means: it reaps
// orphans, signals without a handler pass it by, and with its end all others end. It
// has nothing else of its own: network, host name and users are the machine's.
//
// Nothing is kept from it either, no capability and no file of /proc or /sys, as a
// container engine would: the machine is the border, and root in there is root of the
// machine, who may load modules and change the clock.
type container struct {
	spec *spec.Container

	first  *first   // its first process, to be
	mounts *os.File // its mount namespace
	pids   *os.File // its pid namespace
	etc    etcFiles
	upper  string // husk-init's own mount of the disk that is written to, "" for none
	off    sync.Once
}

// runContainer is the life of a container's guest.
func runContainer(init spec.Init) error {
	c := &container{spec: init.Container}
	port := uint32(spec.GuestPort)
	if init.Guest != nil {
		port = init.Guest.Port
	}
	if err := c.setUp(); err != nil {
		refuseGuest(port, err)
		return err
	}
	go func() {
		// What is not needed to start comes after it. A host that starts nothing may press
		// the button, too.
		select {
		case <-c.first.begun:
		case <-time.After(idle):
		}
		_ = loadModules(later, func(err error) { say("husk-init: %v", err) })
		_ = os.RemoveAll(spec.Drivers) // it is memory
		watchPowerButton(c.powerOff)
	}()
	serveGuest(port, &agent.Server{
		Enter:     c.enter,
		Container: c,
		PowerOff:  func() error { c.powerOff(); return nil },
	})
	return nil
}

// idle is how long the host may take to start the main command until the rest is loaded.
const idle = 2 * time.Second

// setUp makes all that there is when the agent says hello.
func (c *container) setUp() error {
	var err error
	if c.first, err = startFirst(); err != nil {
		return err
	}
	if c.mounts, err = os.Open(c.first.namespace("mnt")); err != nil {
		return err
	}
	if c.pids, err = os.Open(c.first.namespace("pid")); err != nil {
		return err
	}
	if err := loadModules(sooner, func(err error) { say("husk-init: %v", err) }); err != nil {
		return err
	}
	raiseLimits()
	if err := c.name(); err != nil {
		return err
	}
	if c.etc, err = makeEtcFiles(etcFolder); err != nil {
		return err
	}
	network := make(chan error, 1)
	go func() { network <- c.configure() }()
	err = onThread(func() error {
		if err := enterMounts(c.mounts); err != nil {
			return err
		}
		return c.build()
	})
	if err != nil {
		return err
	}
	if c.spec.Upper != nil && !c.spec.ReadOnly {
		// The same file system once more, where no process of the container's keeps it
		// from being made clean in the end.
		if c.upper, err = mountDisk(*c.spec.Upper, ownUpper, unix.MS_NOATIME); err != nil {
			return err
		}
	}
	if err := <-network; err != nil {
		return fmt.Errorf("network: %w", err)
	}
	return c.sysctls()
}

// name tells the kernel who the guest is.
func (c *container) name() error {
	if err := unix.Sethostname([]byte(c.spec.Hostname)); err != nil {
		return fmt.Errorf("host name %q: %w", c.spec.Hostname, err)
	}
	if d := c.spec.Domainname; d != "" {
		if err := unix.Setdomainname([]byte(d)); err != nil {
			return fmt.Errorf("domain name %q: %w", d, err)
		}
	}
	return nil
}

// raiseLimits lets processes have as many files and processes as Docker's containers
// may. Files of 0 bytes stay the limit for what is left of one that crashed: they would
// be in the guest's memory.
func raiseLimits() {
	const files = 1 << 20 // fs.nr_open, as it comes
	for resource, limit := range map[int]uint64{
		unix.RLIMIT_NOFILE: files,
		unix.RLIMIT_NPROC:  unix.RLIM_INFINITY,
	} {
		// Not x/sys's: what Go has changed of the first itself, it would restore.
		if err := syscall.Setrlimit(resource, &syscall.Rlimit{Cur: limit, Max: limit}); err != nil {
			say("husk-init: limit %d: %v", resource, err)
		}
	}
}

// standardSysctls are as Docker sets them: each user may ping, and listen at any port.
func standardSysctls() map[string]string {
	return map[string]string{
		"net.ipv4.ping_group_range":           "0 2147483647",
		"net.ipv4.ip_unprivileged_port_start": "0",
	}
}

// sysctls writes kernel parameters (sysctl(8)).
func (c *container) sysctls() error {
	for name, value := range standardSysctls() {
		_ = os.WriteFile(sysctlFile(name), []byte(value), 0o644) // a kernel need not have them
	}
	for name, value := range c.spec.Sysctls {
		if err := os.WriteFile(sysctlFile(name), []byte(value), 0o644); err != nil {
			return fmt.Errorf("sysctl %s=%s: %w", name, value, err)
		}
	}
	return nil
}

// onThread calls f on a thread that ends with it: nothing else shall run where it went.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		done <- f()
	}()
	return <-done
}

// enterMounts moves the calling thread to a mount namespace, and to the root there.
func enterMounts(ns *os.File) error {
	// A thread that shares its root with others may not change the namespace (setns(2)).
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	return os.NewSyscallError("setns", unix.Setns(int(ns.Fd()), unix.CLONE_NEWNS))
}

// enter is agent.Server.Enter.
func (c *container) enter() error { return enterMounts(c.mounts) }

// Join is agent.Container's: what the thread starts is in the container's pid
// namespace, and it itself stays where it is.
func (c *container) Join() error {
	return os.NewSyscallError("setns", unix.Setns(int(c.pids.Fd()), unix.CLONE_NEWPID))
}

// First is agent.Container's.
func (c *container) First(p *agent.Program) (*os.Process, error) {
	if p.Terminal {
		// Docker's users find the terminal there, too.
		const console = "/dev/console"
		if err := unix.Mount(p.Files[0].Name(), console, "", unix.MS_BIND, ""); err != nil {
			return nil, &os.PathError{Op: "mount", Path: console, Err: err}
		}
	}
	return c.first.become(p)
}

// How long a container's processes may take to end by themselves when the machine is
// powered off. Who wants to give them more time has sent them a signal before.
const (
	endGrace  = 3 * time.Second
	killGrace = 2 * time.Second
)

// powerOff ends the container, has its data written, and switches the machine off.
func (c *container) powerOff() {
	c.off.Do(func() {
		if end, err := unix.PidfdOpen(c.first.pid(), 0); err == nil { // else it has ended
			if c.first.isRunning() {
				_ = unix.Kill(-1, unix.SIGTERM) // all but this process
				awaitEnd(end, endGrace)
			}
			_ = unix.Kill(c.first.pid(), unix.SIGKILL) // and with it all others
			awaitEnd(end, killGrace)
		}
		unix.Sync()
		if c.upper != "" {
			if err := unix.Mount("", c.upper, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
				say("husk-init: the disk with the container's data: %v", err)
			}
		}
	})
	powerOff()
}

// awaitEnd waits for the end of a process.
func awaitEnd(pidfd int, most time.Duration) {
	for end := time.Now().Add(most); ; {
		left := time.Until(end)
		if left <= 0 {
			return
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, int(left.Milliseconds())+1)
		if n > 0 || err != nil && err != unix.EINTR {
			return
		}
	}
}

// How long the host may take to answer a guest that has something to say.
const (
	refuseWait = 10 * time.Second
	lastWord   = 5 * time.Second
)

// refuseGuest tells the host why there is no container, if it can.
func refuseGuest(port uint32, reason error) {
	for end := time.Now().Add(refuseWait); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		conn, err := dialHost(port)
		if err != nil {
			continue
		}
		if agent.Refuse(conn, reason) == nil {
			// The machine must not be gone before the host has read it: it closes then.
			_ = conn.SetReadDeadline(time.Now().Add(lastWord))
			_, _ = io.Copy(io.Discard, conn)
		}
		_ = conn.Close()
		return
	}
}

// sysctlFile is where a kernel parameter is.
func sysctlFile(name string) string {
	b := []byte(name)
	for i, c := range b {
		switch c {
		case '.':
			b[i] = '/'
		case '/':
			b[i] = '.' // as in net.ipv4.conf.eth0/1.forwarding
		}
	}
	return filepath.Join("/proc/sys", filepath.Clean("/"+string(b)))
}
