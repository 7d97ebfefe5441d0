package ktrace

import (
	"testing"

	"github.com/stretchr/testify/require"
)

const histogram = `# event histogram
#
# trigger info: hist:keys=port,rw:vals=hitcount:sort=hitcount:size=8192 [active]
#

{ port:        112, rw:          1 } hitcount:          1
{ port:       1016, rw:          0 } hitcount:        549

Totals:
    Hits: 550
    Entries: 2
    Dropped: 0
`

func TestHistogram(t *testing.T) {
	got, err := parseHistogram(histogram)
	require.NoError(t, err)
	require.Equal(t, []Count{{[]uint64{112, 1}, 1}, {[]uint64{1016, 0}, 549}}, got)

	_, err = parseHistogram("Totals:\n    Dropped: 7\n")
	require.ErrorIs(t, err, ErrUnavailable, "a sum that is not whole")
	_, err = parseHistogram("{ comm: bash } hitcount: 1\n")
	require.ErrorIs(t, err, ErrUnavailable)
}

const trace = `# tracer: nop
#
           bench-10    [000] .....   100.000000: sched_process_fork: comm=bench pid=10 child_comm=bench child_pid=20
           bench-10    [000] d..2.   100.001000: sched_switch: prev_comm=bench prev_pid=10 prev_prio=120 prev_state=S ==> next_comm=bench next_pid=20 next_prio=120
            q d-20    [000] .....   100.002000: sched_process_fork: comm=q d pid=20 child_comm=q d child_pid=21
          <idle>-0     [001] d..2.   100.002500: sched_switch: prev_comm=swapper/1 prev_pid=0 prev_prio=120 prev_state=R ==> next_comm=q d next_pid=21 next_prio=120
            q d-20    [000] d..2.   100.003000: sched_switch: prev_comm=q d prev_pid=20 prev_prio=120 prev_state=S ==> next_comm=x next_pid=99 next_prio=120
             x-99    [000] d..2.   100.004000: sched_switch: prev_comm=x prev_pid=99 prev_prio=120 prev_state=S ==> next_comm=q d next_pid=20 next_prio=120
           other-77    [000] .....   100.004200: kvm_entry: vcpu 0, rip 0x1
            q d-21    [001] .....   100.004500: kvm_entry: vcpu 0, rip 0xfff0
            q d-21    [001] .....   100.009000: kvm_entry: vcpu 0, rip 0xfff2
`

// TestCPU: 20 ran 2 ms and 0.5 ms, its thread 21 ran 2 ms; neither the parent,
// the stranger 99 nor what follows the first entry counts.
func TestCPU(t *testing.T) {
	got, err := cpuUntilEntry(trace, 20)
	require.NoError(t, err)
	require.InDelta(t, 0.0045, got, 1e-9)

	_, err = cpuUntilEntry(trace, 12345)
	require.ErrorIs(t, err, ErrUnavailable)
	_, err = cpuUntilEntry("CPU:1 [LOST 36 EVENTS]\n"+trace, 20)
	require.ErrorIs(t, err, ErrUnavailable)
}
