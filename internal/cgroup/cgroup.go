// Package cgroup knows control groups, version 2 (cgroups(7), the kernel's
// admin-guide/cgroup-v2): what the one that this process is in leaves it, and how to
// make one that holds a process to limits.
package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// ErrLimit is that this host cannot hold a process to a limit.
var ErrLimit = errors.New("this host cannot hold a limit")

// A Hierarchy is the control groups of a host, as this process sees them.
type Hierarchy struct {
	// Root is where the hierarchy is mounted: "/sys/fs/cgroup"; "" where there is none.
	Root string
	// Own is this process's group, a path below Root: "/user.slice/x.scope".
	Own string
	// Privileged is a process that may make groups anywhere.
	Privileged bool
}

// Host is this host's hierarchy.
func Host() Hierarchy {
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	groups, _ := os.ReadFile("/proc/self/cgroup")
	return Hierarchy{Root: mountPoint(string(mounts)), Own: ownGroup(string(groups)), Privileged: os.Geteuid() == 0}
}

// mountPoint finds where a hierarchy of version 2 is mounted, in the lines of
// proc(5), /proc/pid/mountinfo.
func mountPoint(mountinfo string) string {
	for line := range strings.Lines(mountinfo) {
		mount, source, ok := strings.Cut(line, " - ")
		fields := strings.Fields(mount)
		if ok && len(fields) > 4 && strings.HasPrefix(source, "cgroup2 ") {
			return unescape.Replace(fields[4])
		}
	}
	return ""
}

// unescape undoes what the kernel does to blanks in names.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

// ownGroup is the group of version 2 in the lines of /proc/pid/cgroup; "/" where there
// is none.
func ownGroup(lines string) string {
	for line := range strings.Lines(lines) {
		if path, ok := strings.CutPrefix(line, "0::"); ok {
			// In a container with the host's hierarchy the path may lead above its root.
			return filepath.Clean("/" + strings.TrimSuffix(path, "\n"))
		}
	}
	return "/"
}

// dir is the folder of a group.
func (h Hierarchy) dir(group string) string { return filepath.Join(h.Root, group) }

// controllers are the words of one of a group's files that list controllers.
func controllers(dir, file string) (map[string]bool, error) {
	b, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		return nil, err
	}
	set := map[string]bool{}
	for _, name := range strings.Fields(string(b)) {
		set[name] = true
	}
	return set, nil
}

// write writes to one of a group's files, and says what it wrote where if that fails.
func write(dir, file, text string) error {
	if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
		return fmt.Errorf("write %q: %w", text, err)
	}
	return nil
}
