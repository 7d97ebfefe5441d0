// Command shareguest is the guest's side of the tests of shared folders: it uses a
// folder as programs do, and says what is not as in any file system of Linux.
//
//	shareguest mount TAG DIR [ro]
//	shareguest fsx DIR SEED OPERATIONS   random reads, writes, truncations and mappings
//	shareguest semantics DIR             what POSIX and Linux promise, as root and others
//	shareguest unprivileged DIR          the same, where the host's side is not root's
//	shareguest readonly DIR              nothing can be changed; DIR has a file "file"
//	shareguest watch DIR ROUNDS          sees at once what the host changes, by echo
//	shareguest bench DIR                 figures
//	shareguest as UID GID UMASK PROGRAM [ARG]...
//	shareguest do ACTION PATH            touch, mkdir, write and so on
package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "shareguest:", err)
		os.Exit(1)
	}
}

var errUsage = errors.New("see the source for how it is used")

func run(args []string) error {
	if len(args) < 2 {
		return errUsage
	}
	dir := args[1]
	switch args[0] {
	case "mount":
		if len(args) < 3 {
			return errUsage
		}
		return mount(dir, args[2], len(args) > 3)
	case "fsx":
		n, err := numbers(args[2:], 2)
		if err != nil {
			return err
		}
		return fsx(dir, uint64(n[0]), n[1])
	case "semantics":
		return semantics(dir, true)
	case "unprivileged":
		return semantics(dir, false)
	case "readonly":
		return readonly(dir)
	case "watch":
		n, err := numbers(args[2:], 1)
		if err != nil {
			return err
		}
		return watch(dir, n[0])
	case "bench":
		return bench(dir)
	case "as":
		return as(args[1:])
	case "do":
		if len(args) == 3 {
			return act(dir, args[2])
		}
	}
	return errUsage
}

func numbers(args []string, want int) ([]int, error) {
	if len(args) != want {
		return nil, errUsage
	}
	n := make([]int, want)
	for i, a := range args {
		var err error
		if n[i], err = strconv.Atoi(a); err != nil {
			return nil, err
		}
	}
	return n, nil
}

func mount(tag, dir string, ro bool) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var flags uintptr
	if ro {
		flags = unix.MS_RDONLY
	}
	if err := unix.Mount(tag, dir, "virtiofs", flags, ""); err != nil {
		return fmt.Errorf("mount %s: %w", tag, err)
	}
	return nil
}

// as becomes a program of another user's.
func as(args []string) error {
	if len(args) < 4 {
		return errUsage
	}
	n, err := numbers(args[:2], 2)
	if err != nil {
		return err
	}
	mask, err := strconv.ParseUint(args[2], 8, 32)
	if err != nil {
		return err
	}
	unix.Umask(int(mask))
	if err := errors.Join(syscall.Setgroups(nil), syscall.Setgid(n[1]), syscall.Setuid(n[0])); err != nil {
		return err
	}
	return unix.Exec(args[3], args[3:], os.Environ())
}
