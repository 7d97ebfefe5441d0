package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A Group is one that was made for a process.
type Group struct {
	// Path is its folder, and Origin the folder of the group where the process came from.
	Path, Origin string
}

// attempts is how often a group is made that another process takes for a leftover.
const attempts = 10

// Join takes this process, with all its threads, into a new group called name, which
// holds it to limits. Of wishes it does what it can. Where there are only wishes, and none can
// be held, or nothing at all is asked for, the process stays where it is and the group is nil.
//
// The group is made beside the one where the process is, or above: the kernel lets no group
// have both processes and limits for the groups in it, so it cannot be within. Nothing that
// holds the process now lets go of it, though: where that would, no group is made. Errors wrap
// ErrLimit where the host will not do, and say what to do about it.
func (h Hierarchy) Join(name string, limits, wishes Limits) (*Group, error) {
	for n := 1; ; n++ {
		g, err := h.make(name, limits, wishes)
		if g == nil || err != nil {
			return nil, err
		}
		err = write(g.Path, "cgroup.procs", "0")
		switch {
		case err == nil:
			return g, nil
		case errors.Is(err, unix.ENOENT) && n < attempts:
			continue // swept away before anybody was in it
		}
		_ = Remove(g.Path)
		if limits.Zero() {
			return nil, nil
		}
		return nil, fmt.Errorf("%w: enter the control group %s: %w; start husk in one of your own: systemd-run --user --scope husk run …", ErrLimit, g.Path, err)
	}
}

// make makes a group; nil where Join makes none.
func (h Hierarchy) make(name string, limits, wishes Limits) (*Group, error) {
	must, err := limits.settings("/sys")
	if err != nil {
		return nil, err
	}
	may, err := wishes.settings("/sys")
	if err != nil {
		return nil, err
	}
	if len(must)+len(may) == 0 {
		return nil, nil
	}
	var failed error
	parents, why := h.parents()
	for _, parent := range parents {
		g, err := h.makeIn(parent, name, must, may)
		if err == nil || !errors.Is(err, ErrLimit) {
			return g, err
		}
		if failed == nil {
			failed = err // the nearest is the one to talk about
		}
	}
	if len(must) == 0 {
		return nil, nil
	}
	if failed == nil {
		failed = fmt.Errorf("%w: %s", ErrLimit, why)
	}
	return nil, failed
}

// makeIn makes a group in parent. Errors that another parent may not have wrap ErrLimit.
func (h Hierarchy) makeIn(parent, name string, must, may []setting) (*Group, error) {
	dir := h.dir(parent)
	for _, controller := range needs(must) {
		if err := h.enable(dir, controller); err != nil {
			return nil, err
		}
	}
	may = slices.DeleteFunc(slices.Clone(may), func(s setting) bool { return h.enable(dir, s.controller) != nil })
	if len(must)+len(may) == 0 {
		return nil, fmt.Errorf("%w: %s has no controller for it", ErrLimit, dir)
	}

	path := filepath.Join(dir, name)
	switch err := os.Mkdir(path, 0o755); {
	case errors.Is(err, fs.ErrPermission), errors.Is(err, unix.EROFS):
		return nil, fmt.Errorf("%w: %w", ErrLimit, err)
	case err != nil:
		return nil, fmt.Errorf("make a control group: %w", err)
	}
	g := &Group{Path: path, Origin: h.dir(h.Own)}
	if err := g.set(must, may); err != nil {
		return nil, errors.Join(err, Remove(path))
	}
	return g, nil
}

// enable makes a controller one that the groups in dir have.
func (h Hierarchy) enable(dir, controller string) error {
	enabled, err := controllers(dir, "cgroup.subtree_control")
	if err != nil {
		return fmt.Errorf("%w: %w", ErrLimit, err)
	}
	if enabled[controller] {
		return nil
	}
	available, err := controllers(dir, "cgroup.controllers")
	if err != nil {
		return fmt.Errorf("%w: %w", ErrLimit, err)
	}
	if !available[controller] {
		return fmt.Errorf("%w: %s", ErrLimit, h.missing(dir, controller))
	}
	err = write(dir, "cgroup.subtree_control", "+"+controller)
	if errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("%w: the control group %s has processes of its own, and so can have no limits for groups in it; move them to a group below it", ErrLimit, dir)
	}
	if err != nil {
		return fmt.Errorf("%w: enable the controller %s in %s: %w", ErrLimit, controller, dir, err)
	}
	return nil
}

// missing says why a group has no controller of that name.
func (h Hierarchy) missing(dir, controller string) string {
	all, _ := controllers(h.Root, "cgroup.controllers")
	switch {
	case all[controller]:
		return fmt.Sprintf("the controller %s is not delegated to %s; with systemd, Delegate=%s of user@.service does that (as root: systemctl edit user@.service)", controller, dir, controller)
	case version1(controller):
		return fmt.Sprintf("its controller %s belongs to control groups of version 1; boot it with systemd.unified_cgroup_hierarchy=1 and cgroup_no_v1=all", controller)
	default:
		return fmt.Sprintf("its control groups (%s) have no controller %s: the kernel, or who started this container, has left it out", h.Root, controller)
	}
}

// version1 tells whether a controller is mounted as one of version 1.
func version1(controller string) bool {
	if controller == "io" {
		controller = "blkio"
	}
	b, _ := os.ReadFile("/proc/self/cgroup")
	for line := range strings.Lines(string(b)) {
		fields := strings.SplitN(line, ":", 3)
		if len(fields) == 3 && slices.Contains(strings.Split(fields[1], ","), controller) {
			return true
		}
	}
	return false
}

func (g *Group) set(must, may []setting) error {
	for _, s := range must {
		if err := write(g.Path, s.file, s.text); err != nil {
			return fmt.Errorf("%w: %w", ErrLimit, err)
		}
	}
	for _, s := range may {
		_ = write(g.Path, s.file, s.text)
	}
	return nil
}

// Leave takes this process, the only one in the group, back to where it came from, and
// removes the group. What it does not manage, Sweep does after its end.
func (g *Group) Leave() error {
	if err := write(g.Origin, "cgroup.procs", "0"); err != nil {
		return fmt.Errorf("leave the control group: %w", err)
	}
	return Remove(g.Path)
}

// removal is how long a group may take to lose a process that has just ended.
const removal = 2 * time.Second

// Remove removes the group at path, when nobody is in it any more. That it is not there is
// no error.
func Remove(path string) error {
	for end := time.Now().Add(removal); ; time.Sleep(5 * time.Millisecond) {
		err := unix.Rmdir(path)
		switch {
		case err == nil, errors.Is(err, unix.ENOENT):
			return nil
		case !errors.Is(err, unix.EBUSY) || time.Now().After(end):
			return &os.PathError{Op: "remove the control group", Path: path, Err: err}
		}
	}
}
