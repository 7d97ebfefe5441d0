// Package pace is for threads that take work from a guest: how they share
// processors with it, and with Go's runtime.
package pace

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// trial is how many rests it takes to see whether patience pays.
	trial = 8
	// soon and late are after how long patience is tried again, at least and at most.
	soon, late = 8 * time.Millisecond, 512 * time.Millisecond
	// breath is how often the runtime hears of a thread that is in one system call
	// after the other. If it does not for 10 ms, it takes the thread's right to run
	// away, and then looks every few dozen microseconds, for milliseconds, whether
	// there is more to take (sysmon): an interrupt each, which a guest on the same
	// processor pays for.
	breath = 5 * time.Millisecond
)

// A Pace is that of one thread. A nil *Pace does nothing.
//
// A thread that wakes up interrupts, at first, who runs on its processor, as
// threads do. If that is the vCPU that woke it, the answer to a lone request
// comes before the guest has gone to sleep: best where it has only one. But a
// guest with more requests to make never gets to make the second. So now and then
// the thread is patient for a while (SCHED_BATCH: it wakes when a processor is
// free, or its turn has come), and stays so as long as it finds two or more
// requests whenever it wakes.
type Pace struct {
	attr    *unix.SchedAttr // of the thread; nil if it is not ours to change
	patient bool
	rests   int // of this trial
	taken   int // in them
	pause   time.Duration

	// Since start:
	now, breathe, again time.Duration
	start               time.Time
}

// Own gives the calling goroutine a thread to itself and returns the thread's Pace. All
// methods belong to that goroutine, which calls Release at its end. It is for
// goroutines that sleep in system calls: to wake one of its own by a channel takes
// the runtime two switches of threads.
func Own() *Pace {
	runtime.LockOSThread()
	p := &Pace{pause: soon, again: soon, start: time.Now()}
	// A husk that was started with another policy keeps it.
	if a, err := unix.SchedGetAttr(0, 0); err == nil && a.Policy == unix.SCHED_NORMAL {
		p.attr = a
	}
	return p
}

// Release gives the thread back as it was.
func (p *Pace) Release() {
	if p == nil {
		return
	}
	if p.patient {
		p.set(unix.SCHED_NORMAL)
	}
	if !p.patient { // else it ends with the goroutine
		runtime.UnlockOSThread()
	}
}

// Took notes that the thread took a request.
func (p *Pace) Took() {
	if p == nil {
		return
	}
	p.taken++
	p.Breathe()
}

// Breathe lets the runtime see that the thread is alive: see breath. Took does
// it, too.
func (p *Pace) Breathe() {
	if p.now = time.Since(p.start); p.now < p.breathe {
		return
	}
	p.breathe = p.now + breath
	if p.patient { // on no other thread
		runtime.Gosched()
		return
	}
	// For a goroutine that is not bound it takes a few switches of threads less.
	runtime.UnlockOSThread()
	runtime.Gosched()
	runtime.LockOSThread()
}

// Rest notes that the thread has nothing more to do, and is about to sleep.
func (p *Pace) Rest() {
	if p == nil || p.attr == nil {
		return
	}
	if !p.patient {
		if p.now >= p.again {
			p.set(unix.SCHED_BATCH)
		}
		return
	}
	if p.rests++; p.rests < trial {
		return
	}
	if p.taken >= 2*trial {
		p.rests, p.taken, p.pause = 0, 0, soon
		return
	}
	p.set(unix.SCHED_NORMAL)
	p.again = p.now + p.pause
	p.pause = min(2*p.pause, late)
}

// SetPatient has the thread be patient, or not, for whoever decides that by itself and
// does not call Rest. It tells whether the thread is so now: it may not be ours to
// change.
func (p *Pace) SetPatient(patient bool) bool {
	if p.attr != nil && p.patient != patient {
		policy := uint32(unix.SCHED_NORMAL)
		if patient {
			policy = unix.SCHED_BATCH
		}
		p.set(policy)
	}
	return p.patient == patient
}

func (p *Pace) set(policy uint32) {
	p.attr.Policy = policy
	if unix.SchedSetAttr(0, p.attr, 0) != nil {
		p.attr = nil // we may not
		return
	}
	p.patient, p.rests, p.taken = policy == unix.SCHED_BATCH, 0, 0
}
