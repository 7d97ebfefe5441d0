package blk

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/huskvm/husk/devices/pace"
	"github.com/huskvm/husk/devices/virtio/queue"
)

const (
	// handOver is how many requests go to workers, at first.
	handOver = 64
	// maxHandOver bounds that number, which doubles while the disk is slow.
	maxHandOver = 1024
	// longestTrial is how many requests are done here, others waiting, until it is
	// looked at how that went.
	longestTrial = 32
	// small is the longest request, in bytes, that is done here though others wait:
	// several processors copy long ones faster than one.
	small = 64 << 10
	// burst is how many requests that were done here, one behind the other, the
	// driver does not hear of at most.
	burst = 16
)

// A server serves one queue, with up to depth requests under way.
//
// A request to the page cache is done best where it was taken: to hand it to
// another goroutine would cost a good part of what it takes. But while that goes
// on nobody looks at the queue, so a guest with two requests at a time on a slow
// disk would get one. What a disk is like shows when it is tried: after some
// requests that went to workers, the next ones are done here, as long as our
// thread does not sleep in them while others wait.
type server struct {
	*Device
	queue *queue.Queue
	log   *slog.Logger
	depth int

	work    chan request // to a worker that waits: not buffered
	workers int
	wg      sync.WaitGroup
	handing int // requests still to hand over
	next    int // how many to hand over when the disk is slow again
	trial   trial
	unshown int // requests done here that the driver has not heard of

	atWork atomic.Int64  // the weight of the requests under way
	eased  chan struct{} // has a token if that has become less
}

// A trial is of requests that are done here though others wait.
type trial struct {
	begun  bool
	done   int   // requests so far
	length int   // how many there are to be
	sleeps int64 // of the thread, when it began
}

func newServer(d *Device, q *queue.Queue, log *slog.Logger) *server {
	return &server{
		Device: d, queue: q, log: log, depth: d.c.Depth,
		handing: handOver, next: 2 * handOver, trial: trial{length: 1},
		work: make(chan request), eased: make(chan struct{}, 1),
	}
}

// serve returns when ctx has ended and all that was taken is done.
func (s *server) serve(ctx context.Context) error {
	defer s.wg.Wait()
	defer close(s.work)
	thread := pace.Own()
	defer thread.Release()
	s.queue.SetPace(thread)
	for {
		c, err := s.queue.Take(ctx)
		if err != nil {
			return err
		}
		r, err := parse(c)
		if err != nil {
			s.queue.Return(c)
			return err
		}
		if err := s.admit(ctx, &r); err != nil {
			s.queue.Return(c)
			return err
		}
		if s.here(&r) {
			s.doHere(&r)
		} else {
			s.show()
			s.hand(r)
		}
	}
}

// admit waits until not too much is under way, or for the end of ctx.
func (s *server) admit(ctx context.Context, r *request) error {
	for s.atWork.Load() >= maxAtWork {
		s.show() // the driver may wait for it
		select {
		case <-s.eased:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	s.atWork.Add(r.weight())
	return nil
}

// here tells whether r is to be done here. A flush may take as long as it likes.
func (s *server) here(r *request) bool {
	if r.kind != typeIn && r.kind != typeOut {
		return false
	}
	if s.handing > 0 {
		s.handing--
		if s.handing == 0 {
			s.trial = trial{length: 1}
		}
		return false
	}
	// Linux cuts a request that has too many segments; what is left waits then, and
	// is short.
	return r.room+queue.Len(r.out) <= small || s.queue.Pending() <= 1
}

func (s *server) doHere(r *request) {
	if s.trial.length == 1 {
		s.trial.begin()
	}
	st, read := s.do(r, s.log)
	s.push(r, st, read)
	s.unshown++
	waiting := s.queue.Pending() > 0
	switch slow, over := s.trial.went(waiting); {
	case slow:
		s.handing = s.next
		s.next = min(2*s.next, maxHandOver)
	case over:
		s.next = handOver
	}
	if s.unshown == burst {
		s.show() // else Take does where it waits, and serve before it hands over
	}
}

func (t *trial) begin() { t.begun, t.done, t.sleeps = true, 0, threadSleeps() }

// went notes that a request is done, and tells whether the trial is over, and
// whether requests belong to workers. A thread sleeps now and then for other
// reasons, too.
func (t *trial) went(waiting bool) (slow, over bool) {
	if t.begun {
		t.done++
		if over = t.done == t.length || !waiting; over {
			t.begun = false
			if slow = threadSleeps()-t.sleeps > int64(t.done/16); !slow && t.done == t.length {
				t.length = min(2*t.length, longestTrial)
			}
		}
	}
	if waiting && !t.begun && !slow {
		t.begin()
	}
	return slow, over
}

// show tells the driver of what was done here.
func (s *server) show() {
	if s.unshown > 0 {
		s.unshown = 0
		s.queue.Flush()
	}
}

// hand gives r to a worker. It waits for one if depth are at work.
func (s *server) hand(r request) {
	select {
	case s.work <- r:
		return
	default: // nobody waits
	}
	if s.workers == s.depth {
		s.work <- r
		return
	}
	s.workers++
	s.wg.Go(func() { s.worker(r) })
}

func (s *server) worker(r request) {
	for ok := true; ok; r, ok = <-s.work {
		st, read := s.do(&r, s.log)
		s.push(&r, st, read)
		s.queue.Flush()
	}
}

// push gives a request back: the status byte last, behind the data. The driver
// sees it after a Flush.
func (s *server) push(r *request, st status, read uint64) {
	r.status[0] = byte(st)
	// What was written counts from the front of the chain's room, so the status
	// counts only where no gap lies before it (§2.7.8.2).
	if read == r.room {
		read++
	}
	weight := r.weight()
	s.queue.Push(r.chain, uint32(read))
	if s.atWork.Add(-weight) < maxAtWork {
		select {
		case s.eased <- struct{}{}:
		default:
		}
	}
}
