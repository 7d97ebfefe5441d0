package cgroup

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// parents are the groups that one could be made in, best first: those that the process's own
// is in, the nearest first, as far up as no limit is left behind and the user may change them.
// why says what ended the list.
func (h Hierarchy) parents() (list []string, why string) {
	if h.Root == "" {
		return nil, "no control groups of version 2 are mounted; mount -t cgroup2 none /sys/fs/cgroup does that, where no service manager does"
	}
	own := filepath.Clean("/" + h.Own)
	why = fmt.Sprintf("the control group of this process (%s) is in none that its user may change; start husk in one that is: systemd-run --user --scope husk run …", own)
	if own == "/" && h.Privileged {
		return []string{"/"}, why
	}
	for _, group := range ancestors(own)[1:] {
		// To move a process, the kernel wants the right to write in what both groups are in.
		dir := h.dir(group)
		if !h.Privileged && (unix.Access(dir, unix.W_OK) != nil || unix.Access(filepath.Join(dir, "cgroup.procs"), unix.W_OK) != nil) {
			break
		}
		if limit := h.limitBelow(group); limit != "" {
			why = limit
			break
		}
		list = append(list, group)
	}
	// The end of root's session is not to take the machine along.
	if top, is := session(own); is && h.Privileged {
		if n := slices.Index(list, top); n >= 0 {
			list = append([]string{top}, slices.Delete(list, n, n+1)...)
		}
	}
	return list, why
}

// ancestors are a group and all that it is in, up to "/".
func ancestors(group string) []string {
	list := []string{group}
	for group != "/" {
		group = filepath.Dir(group)
		list = append(list, group)
	}
	return list
}

// session tells whether a group is a login session as systemd makes it
// (…/user.slice/user-0.slice/session-1.scope), and what all sessions are in.
func session(group string) (top string, is bool) {
	user := filepath.Dir(group)
	all := filepath.Dir(user)
	scope, _ := filepath.Match("session-*.scope", filepath.Base(group))
	slice, _ := filepath.Match("user-*.slice", filepath.Base(user))
	return filepath.Dir(all), scope && slice && filepath.Base(all) == "user.slice"
}

// limitBelow says what holds this process to a limit by a group that is in the given one, and
// would not once it had left for another in there; "" where nothing does.
func (h Hierarchy) limitBelow(top string) string {
	for _, group := range ancestors(filepath.Clean("/" + h.Own)) {
		if group == top {
			break
		}
		dir := h.dir(group)
		if _, err := os.Stat(dir); err != nil {
			return fmt.Sprintf("the control group of this process (%s) cannot be seen here, so whoever started it knows what holds it, and husk does not: %v", h.Own, err)
		}
		if file := limited(dir); file != "" {
			return fmt.Sprintf("the control group %s has a limit (%s), which a machine in a group of its own would escape; set that limit on a slice around it (systemd-run --slice=…), or leave it to husk's flags", group, file)
		}
	}
	return ""
}

// limited is the file by which a group holds what is in it to a limit; "" for none. The number
// of tasks does not count: service managers limit it everywhere, and a machine's own group does.
func limited(dir string) string {
	for _, file := range []string{"memory.max", "memory.high", "memory.swap.max", "cpu.max", "io.max", "cpuset.cpus", "cpuset.mems"} {
		b, _ := os.ReadFile(filepath.Join(dir, file)) // not there without its controller
		if text := strings.TrimSpace(string(b)); text != "" && !strings.HasPrefix(text, "max") {
			return file
		}
	}
	return ""
}

// Sweep removes the groups that processes which were killed have left: those that Join could
// have made, with a name that begins with prefix, and that nobody is in.
func (h Hierarchy) Sweep(prefix string) {
	if h.Root == "" {
		return
	}
	for _, parent := range ancestors(filepath.Clean("/" + h.Own)) {
		entries, _ := os.ReadDir(h.dir(parent))
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), prefix) {
				_ = unix.Rmdir(filepath.Join(h.dir(parent), e.Name())) // refused while somebody is
			}
		}
	}
}
