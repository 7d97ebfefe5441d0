package pace

import (
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// onThread runs f on a thread that ends with it.
func onThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	<-done
}

func attr(t *testing.T) *unix.SchedAttr {
	t.Helper()
	a, err := unix.SchedGetAttr(0, 0)
	require.NoError(t, err)
	return a
}

// work takes n requests and rests, a number of times.
func work(p *Pace, rests, n int) {
	for range rests {
		for range n {
			p.Took()
		}
		p.Rest()
	}
}

// TestPatience is tried now and then, and kept while it pays.
func TestPatience(t *testing.T) {
	onThread(func() {
		p := Own()
		before := attr(t)
		require.EqualValues(t, unix.SCHED_NORMAL, before.Policy)
		p.again = time.Hour
		work(p, 10*trial, 3)
		require.EqualValues(t, unix.SCHED_NORMAL, attr(t).Policy, "it is not time yet")

		p.again = 0
		work(p, 1, 1)
		require.EqualValues(t, unix.SCHED_BATCH, attr(t).Policy)
		work(p, 10*trial, 2)
		now := attr(t)
		require.EqualValues(t, unix.SCHED_BATCH, now.Policy)
		now.Policy = before.Policy
		require.Equal(t, before, now, "nothing else changes")

		work(p, trial, 1)
		require.EqualValues(t, unix.SCHED_NORMAL, attr(t).Policy)
		require.Equal(t, soon, p.again-p.now)
		for range 20 {
			p.again = 0
			work(p, 1+trial, 1)
			require.EqualValues(t, unix.SCHED_NORMAL, attr(t).Policy)
		}
		require.Equal(t, late, p.pause, "what is in vain is tried more and more seldom")
		p.again = 0
		work(p, 1+trial, 2)
		require.Equal(t, soon, p.pause)
	})
}

func TestReleaseGivesTheThreadBack(t *testing.T) {
	onThread(func() {
		runtime.LockOSThread() // so that it is the same after Release
		p := Own()
		p.again = 0
		work(p, 1, 1)
		require.EqualValues(t, unix.SCHED_BATCH, attr(t).Policy)
		p.Release()
		require.EqualValues(t, unix.SCHED_NORMAL, attr(t).Policy)
	})
}

func TestAnotherPolicyIsKept(t *testing.T) {
	onThread(func() {
		runtime.LockOSThread()
		a := attr(t)
		a.Policy = unix.SCHED_IDLE
		require.NoError(t, unix.SchedSetAttr(0, a, 0))
		p := Own()
		p.again = 0
		work(p, 10*trial, 1)
		require.EqualValues(t, unix.SCHED_IDLE, attr(t).Policy)
	})
}

func TestNoPace(*testing.T) {
	var p *Pace
	work(p, 2*trial, 2)
	p.Release()
}

func TestNothingIsAllocated(t *testing.T) {
	onThread(func() {
		p := Own()
		require.Zero(t, testing.AllocsPerRun(1000, func() { work(p, 1, 1) }))
	})
}
