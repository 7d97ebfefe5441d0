package fs

import (
	"context"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/devices/pace"
	"github.com/huskvm/husk/devices/virtio/queue"
)

const (
	// depth is how many requests of a queue are under way at most.
	depth = 64
	// maxAtWork bounds the weight of those under way, in bytes.
	maxAtWork = 16 << 20
	// small is the heaviest request that is answered where it was taken though others
	// wait: several processors copy faster than one.
	small = 64 << 10
	// handOver is how many requests go to workers at first, after one in which our
	// thread slept while others waited; maxHandOver bounds that number, which doubles
	// while it goes on so.
	handOver, maxHandOver = 64, 1024
	// burst is how many requests that were answered here, one behind the other, the
	// driver does not hear of at most.
	burst = 16
)

// A server serves one request queue.
//
// As with a disk (virtio/blk), a request is answered best where it was taken, as long
// as that does not sleep: names and attributes are mostly in the host's caches, and so is
// data. Where our thread did sleep in one, and others had come meanwhile, the next ones go
// to workers, and then it is tried again.
type server struct {
	Server
	queue *queue.Queue

	work    chan *queue.Chain // to a worker that waits: not buffered
	workers int
	wg      sync.WaitGroup
	handing int // requests still to hand over
	next    int // how many to hand over when it is slow again
	done    int // requests answered here since that was last so
	unshown int // requests answered here that the driver has not heard of

	atWork atomic.Int64  // the weight of the requests with workers
	eased  chan struct{} // has a token if that has become less
}

func newServer(s Server, q *queue.Queue) *server {
	return &server{
		Server: s, queue: q, next: handOver,
		work: make(chan *queue.Chain), eased: make(chan struct{}, 1),
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
		if s.here(c) {
			s.answer(c)
			continue
		}
		if err := s.admit(ctx, c); err != nil {
			s.queue.Return(c)
			return err
		}
		s.hand(c)
	}
}

// weight is how much data a request may move, in bytes.
func weight(c *queue.Chain) int64 { return int64(queue.Len(c.Out) + queue.Len(c.In)) }

// here tells whether a request is to be answered here.
func (s *server) here(c *queue.Chain) bool {
	if s.Slow(c.Out) {
		return false
	}
	if s.handing > 0 {
		s.handing--
		return false
	}
	return weight(c) <= small || s.queue.Pending() == 0
}

// answer answers a request here.
func (s *server) answer(c *queue.Chain) {
	before := threadSleeps()
	s.queue.Push(c, s.Do(c.Out, c.In))
	slept := threadSleeps() > before
	switch s.done++; {
	case slept && s.queue.Pending() > 0:
		s.handing, s.done = s.next, 0
		s.next = min(2*s.next, maxHandOver)
	case s.done == maxHandOver:
		s.next = handOver
	}
	if s.unshown++; s.unshown >= burst {
		s.show() // else Take does where it waits, and serve before it hands over
	}
}

// show tells the driver of what was answered here.
func (s *server) show() {
	if s.unshown > 0 {
		s.unshown = 0
		s.queue.Flush()
	}
}

// admit waits until not too much is under way, or for the end of ctx.
func (s *server) admit(ctx context.Context, c *queue.Chain) error {
	s.show() // the driver may wait for it
	for s.atWork.Load() >= maxAtWork {
		select {
		case <-s.eased:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	s.atWork.Add(weight(c))
	return nil
}

// hand gives a request to a worker. It waits for one if depth are at work.
func (s *server) hand(c *queue.Chain) {
	select {
	case s.work <- c:
		return
	default: // nobody waits
	}
	if s.workers == depth {
		s.work <- c
		return
	}
	s.workers++
	s.wg.Go(func() { s.worker(c) })
}

func (s *server) worker(c *queue.Chain) {
	for ok := true; ok; c, ok = <-s.work {
		w := weight(c)
		s.queue.Push(c, s.Do(c.Out, c.In))
		s.queue.Flush()
		if s.atWork.Add(-w) < maxAtWork {
			select {
			case s.eased <- struct{}{}:
			default:
			}
		}
	}
}

// threadSleeps is how often the calling thread has given up its processor by itself
// (getrusage(2): ru_nvcsw): it had to wait.
func threadSleeps() int64 {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_THREAD, &u) != nil {
		return 0 // Linux has had this since 2.6.26
	}
	return u.Nvcsw
}
