package ktrace

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// firstEntry is the event with which KVM enters a guest.
const firstEntry = "kvm/kvm_entry"

// The lines of a trace file (kernel Documentation/trace/ftrace.rst):
//
//	husk-412  [001] d..2.  17.204511: sched_switch: prev_comm=husk prev_pid=412 … ==> next_comm=… next_pid=0 …
//
// A program's name may hold anything, so numbers are taken from behind it.
var (
	record   = regexp.MustCompile(`-(\d+) +\[(\d+)\] \S+ +(\d+\.\d+): (\w+): (.*)`)
	switched = regexp.MustCompile(` prev_pid=(\d+) prev_prio=.* next_pid=(\d+) next_prio=`)
	forked   = regexp.MustCompile(` pid=(\d+) child_comm=.* child_pid=(\d+)$`)
)

// cpuUntilEntry adds up how long pid, its threads and its children were on a
// CPU until the first of them entered a guest, in seconds.
func cpuUntilEntry(trace string, pid int) (float64, error) {
	ours := map[string]bool{strconv.Itoa(pid): true}
	since := map[string]float64{} // threads that run now, and since when
	var sum float64
	for line := range strings.Lines(trace) {
		m := record.FindStringSubmatch(strings.TrimSuffix(line, "\n"))
		if m == nil {
			if strings.Contains(line, "LOST") && strings.Contains(line, "EVENTS") {
				return 0, fmt.Errorf("%w: the trace is not whole: %s", ErrUnavailable, strings.TrimSpace(line))
			}
			continue
		}
		now, err := strconv.ParseFloat(m[3], 64)
		if err != nil {
			return 0, fmt.Errorf("%w: %q: %w", ErrUnavailable, line, err)
		}
		switch m[4] {
		case "sched_process_fork":
			if f := forked.FindStringSubmatch(m[5]); f != nil && ours[f[1]] {
				ours[f[2]] = true
			}
		case "sched_switch":
			s := switched.FindStringSubmatch(" " + m[5])
			if s == nil {
				continue
			}
			if start, runs := since[s[1]]; runs {
				sum += now - start
				delete(since, s[1])
			}
			if ours[s[2]] {
				since[s[2]] = now
			}
		case "kvm_entry":
			if !ours[m[1]] {
				continue
			}
			for _, start := range since {
				sum += now - start
			}
			return sum, nil
		}
	}
	return 0, fmt.Errorf("%w: no guest was entered", ErrUnavailable)
}
