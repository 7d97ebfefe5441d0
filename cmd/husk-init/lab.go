package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/internal/agent"
	"github.com/huskvm/husk/internal/guestinit/spec"
)

// The lab's mount points in the initramfs, before its root is the root.
const (
	hostRoot = "/host"    // the host's files, read-only
	scratch  = "/scratch" // a tmpfs with what the lab writes
	newRoot  = "/root"    // both as one
)

// lab makes the machine a lab. When it cannot, the host is told why, by the
// agent's port.
func lab(l *spec.Lab) error {
	if err := enterHostRoot(l); err != nil {
		refuse(err)
		return err
	}
	if err := loopbackUp(); err != nil {
		say("husk-init: loopback: %v", err)
	}
	setSysfs("/sys/kernel/mm/transparent_hugepage/enabled", "always")
	setSysfs("/proc/sys/kernel/perf_event_paranoid", "-1")
	return nil
}

// enterHostRoot puts the host's root under a tmpfs and makes that the root.
func enterHostRoot(l *spec.Lab) error {
	err := mountAll("/", []mount{
		{l.Root, hostRoot, "9p", unix.MS_RDONLY, options9p("loose"), false},
		{"tmpfs", scratch, "tmpfs", 0, "mode=0755", false},
	})
	if err != nil {
		return err
	}
	upper, work := scratch+"/upper", scratch+"/work"
	for _, dir := range []string{upper, work} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	// The root's own mode is the upper folder's: a host's 0755, whatever it has.
	over := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", hostRoot, upper, work)
	if err := mountAll("/", []mount{{"overlay", newRoot, "overlay", 0, over, false}}); err != nil {
		return err
	}
	for _, m := range early() {
		target := filepath.Join(newRoot, m.target)
		if err := os.MkdirAll(target, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.target, target, "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("move %s: %w", m.target, err)
		}
	}
	if err := mountAll(newRoot, late()); err != nil {
		return err
	}
	for _, s := range l.Shares {
		var flags uintptr
		if s.ReadOnly {
			flags = unix.MS_RDONLY
		}
		// cache=mmap caches nothing but what is mapped, so both sides see
		// each other's writes.
		if err := mountAll(newRoot, []mount{{s.Tag, s.Path, "9p", flags, options9p("mmap"), false}}); err != nil {
			return err
		}
	}
	return switchRoot(newRoot)
}

// options9p are for QEMU's virtio-9p. msize is the most one message carries, in
// bytes; the default, 128 KiB, makes reading several times as slow.
func options9p(cache string) string {
	return "trans=virtio,version=9p2000.L,msize=1048576,cache=" + cache
}

// switchRoot makes dir the root. The initramfs stays below it, out of sight.
func switchRoot(dir string) error {
	if err := unix.Chdir(dir); err != nil {
		return fmt.Errorf("switch root: %w", err)
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("switch root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("switch root: %w", err)
	}
	return unix.Chdir("/")
}

// setSysfs sets what is good to have.
func setSysfs(path, value string) {
	if err := os.WriteFile(path, []byte(value), 0o644); err != nil {
		say("husk-init: %v", err)
	}
}

// serveLab is the lab's agent, a process of its own. It ends with the connection.
func serveLab() error {
	port, err := openPort(spec.AgentPort)
	if err != nil {
		return err
	}
	// What a command has written to a share is on the host when its exit code is.
	server := &agent.Server{AfterExit: unix.Sync}
	return server.Serve(context.Background(), port)
}

// refuse tells the host why there is no lab, if it can.
func refuse(reason error) {
	port, err := openPort(spec.AgentPort)
	if err != nil {
		say("husk-init: %v", err)
		return
	}
	defer port.Close()
	if err := agent.Refuse(port, reason); err != nil {
		say("husk-init: %v", err)
	}
}

// portWait is how long the driver may take to find its ports.
const portWait = 30 * time.Second

// openPort opens the virtio-serial port of a name.
func openPort(name string) (*os.File, error) {
	for end := time.Now().Add(portWait); ; time.Sleep(5 * time.Millisecond) {
		dirs, _ := filepath.Glob("/sys/class/virtio-ports/*")
		for _, dir := range dirs {
			b, err := os.ReadFile(dir + "/name")
			if err == nil && strings.TrimSpace(string(b)) == name {
				return os.OpenFile("/dev/"+filepath.Base(dir), os.O_RDWR, 0)
			}
		}
		if time.Now().After(end) {
			return nil, errors.New("there is no virtio-serial port " + name)
		}
	}
}

// loopbackUp brings the lo interface up, which is all the network a lab has.
func loopbackUp() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, request)
}
