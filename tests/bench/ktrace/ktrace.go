// Package ktrace counts what the kernel does for one program and its children,
// by trace events (kernel Documentation/trace/events.rst and histogram.rst).
// The kernel adds up itself: nothing is copied out while the program runs, and
// every monitor is seen alike.
package ktrace

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// tracefs is where trace events are, and debugfs KVM's counters.
const (
	tracefs = "/sys/kernel/tracing"
	debugfs = "/sys/kernel/debug"
)

// ErrUnavailable says that this host does not let us trace; it says why.
var ErrUnavailable = errors.New("no trace events")

// Mount makes tracefs and debugfs available where they are not yet.
func Mount() error {
	for path, fstype := range map[string]string{tracefs: "tracefs", debugfs: "debugfs"} {
		var st unix.Statfs_t
		if unix.Statfs(path, &st) == nil && (st.Type == unix.TRACEFS_MAGIC || st.Type == unix.DEBUGFS_MAGIC) {
			continue
		}
		if err := unix.Mount(fstype, path, fstype, unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
			return fmt.Errorf("%w: mount %s: %w; be root", ErrUnavailable, path, err)
		}
	}
	return nil
}

// An Instance is a set of trace events of its own, which nobody else's tracing
// disturbs.
type Instance struct{ dir string }

// New makes an instance that follows the children of one thread from now on.
func New(tid int) (*Instance, error) {
	i := &Instance{dir: filepath.Join(tracefs, "instances", "husk-bench-"+strconv.Itoa(os.Getpid()))}
	if err := os.Mkdir(i.dir, 0o750); err != nil {
		return nil, fmt.Errorf("%w: %w; be root, and have tracefs", ErrUnavailable, err)
	}
	for _, setting := range [][2]string{
		{"options/event-fork", "1"}, // children are followed, too
		{"trace_clock", "mono"},
		{"buffer_size_kb", "4096"},
		{"set_event_pid", strconv.Itoa(tid)},
	} {
		if err := i.write(setting[0], setting[1]); err != nil {
			return nil, errors.Join(err, i.Close())
		}
	}
	return i, nil
}

// Count adds up an event by some of its fields: "kvm/kvm_pio", "port,rw".
func (i *Instance) Count(event, keys string) error {
	return i.write(filepath.Join("events", event, "trigger"), "hist:keys="+keys+":size=8192")
}

// Counts are the sums so far.
func (i *Instance) Counts(event string) ([]Count, error) {
	b, err := os.ReadFile(filepath.Join(i.dir, "events", event, "hist"))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return parseHistogram(string(b))
}

// WatchCPU records who runs when, until the first guest is entered.
func (i *Instance) WatchCPU() error {
	for _, event := range []string{"sched/sched_switch", "sched/sched_process_fork", firstEntry} {
		if err := i.write(filepath.Join("events", event, "enable"), "1"); err != nil {
			return err
		}
	}
	// The condition is always true. A trigger without one would not be bound to
	// our children: any machine on this host would set it off.
	return i.write(filepath.Join("events", firstEntry, "trigger"), "traceoff:1 if common_pid > 0")
}

// CPU is the time, in seconds, that a child and its own threads and children
// had run on any CPU when it first entered a guest.
func (i *Instance) CPU(pid int) (float64, error) {
	b, err := os.ReadFile(filepath.Join(i.dir, "trace"))
	if err != nil {
		return 0, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return cpuUntilEntry(string(b), pid)
}

// Close removes the instance with all it has counted.
func (i *Instance) Close() error { return os.Remove(i.dir) }

func (i *Instance) write(file, value string) error {
	if err := os.WriteFile(filepath.Join(i.dir, file), []byte(value), 0); err != nil {
		return fmt.Errorf("%w: %q: %w", ErrUnavailable, value, err)
	}
	return nil
}
