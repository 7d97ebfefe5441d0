package blk

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/devices/virtio/queue"
)

const (
	// handOver is how many requests go to workers, at first, where one may keep
	// another waiting.
	handOver = 64
	// maxHandOver bounds that number, which doubles while the disk is slow.
	maxHandOver = 1024
	// quick is how long a request may wait that is done here: about what it costs
	// to hand it over. A disk takes longer, the page cache does not wait.
	quick = 50 * time.Microsecond
	// small is the longest request, in bytes, that is done here though others wait:
	// several processors copy long ones faster than one.
	small = 64 << 10
	// burst is how many requests that were done here, one behind the other, the
	// driver does not hear of at most.
	burst = 8
)

// A server serves one queue, with up to depth requests under way.
//
// A request that is alone is done where it was taken: to hand it to another
// goroutine would cost a good part of what a read from the page cache takes. But
// while that goes on nobody looks at the queue, so a guest with two requests at a
// time on a slow disk would get one. So where others wait or are under way, the
// next ones all go to workers. Behind them one is tried here: if it did not have
// to wait, neither will the others, and they are done here until one does.
type server struct {
	*Device
	queue *queue.Queue
	log   *slog.Logger
	depth int
	quick time.Duration

	work    chan request // to a worker that waits: not buffered
	workers int
	wg      sync.WaitGroup
	busy    atomic.Int32 // workers that do something
	handing int          // requests still to hand over
	next    int          // how many to hand over when the disk is slow again
	trust   bool         // requests are done here though others wait
	suspect bool         // the last one took long
	pardon  int          // requests still to do without a look at the clock
	done    int          // requests done here
	inVain  int          // times that giving way brought nothing, on end
	unshown int          // requests done here that the driver has not heard of

	atWork atomic.Int64  // the weight of the requests under way
	eased  chan struct{} // has a token if that has become less
}

func newServer(d *Device, q *queue.Queue, log *slog.Logger) *server {
	return &server{
		Device: d, queue: q, log: log, depth: d.c.Depth, quick: quick, next: handOver,
		work: make(chan request), eased: make(chan struct{}, 1),
	}
}

// serve returns when ctx has ended and all that was taken is done.
func (s *server) serve(ctx context.Context) error {
	defer s.wg.Wait()
	defer close(s.work)
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
	switch {
	case r.kind != typeIn && r.kind != typeOut:
		return false
	case s.handing > 0:
		s.handing--
		s.trust = s.handing == 0
		return false
	case s.trust && r.room+queue.Len(r.out) > small && s.queue.Pending() > 0:
		return false
	case s.trust || s.busy.Load() == 0 && s.queue.Pending() == 0:
		return true
	}
	s.handOver()
	s.handing--
	return false
}

// handOver has the next requests go to workers.
func (s *server) handOver() {
	s.handing, s.trust, s.suspect, s.pardon = s.next, false, true, 0
	s.next = min(2*s.next, maxHandOver)
}

func (s *server) doHere(r *request) {
	var st status
	var read uint64
	slow := s.tooSlow(func() { st, read = s.do(r, s.log) })
	s.push(r, st, read)
	s.unshown++
	s.done++
	waiting := s.queue.Pending() > 0 || (s.trust || s.done%handOver == 0) && s.giveWay()
	if waiting {
		s.inVain = 0
	}
	switch {
	case !waiting:
	case slow:
		s.handOver()
	default:
		s.next = handOver
	}
	if !waiting || !s.trust || s.unshown == burst {
		s.show()
	}
}

// giveWay lets a vCPU add requests that shares our processor, and tells whether it
// did. A notification interrupts it: were each request done at once, there would
// never be a second one, and every one would cost an interrupt. Where that is
// in vain for some time, the guest has no more to add, and is asked only now and
// then.
func (s *server) giveWay() bool {
	_, _, _ = unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0) // it always succeeds
	if s.queue.Pending() > 0 {
		return true
	}
	if s.inVain++; s.inVain == handOver {
		s.inVain, s.trust = 0, false
	}
	return false
}

// tooSlow calls f, which does a request, and tells whether the next ones belong
// to workers. To learn whether a request had to wait is dear, so that is asked of
// one after another that took long, and then not soon again.
func (s *server) tooSlow(f func()) bool {
	switch {
	case !s.trust:
		f()
		return true
	case s.pardon > 0:
		s.pardon--
		f()
	case s.suspect:
		if slept(s.quick, f) {
			return true
		}
		s.suspect, s.pardon = false, burst
	default:
		began := time.Now()
		f()
		s.suspect = time.Since(began) >= s.quick
	}
	return false
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
	s.busy.Add(1)
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
		s.busy.Add(-1)
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
