package blk

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/huskvm/husk/devices/virtio/queue"
)

// handOver is how many requests go to workers after one was found to have kept
// another waiting.
const handOver = 64

// A server serves one queue, with up to depth requests under way.
//
// A request that is alone is done where it was taken: to hand it to another
// goroutine would cost a good part of what a read from the page cache takes. But
// while that goes on nobody looks at the queue, so a guest with two requests at a
// time on a slow disk would get one. If a request came meanwhile, the next ones
// all go to workers.
type server struct {
	*Device
	queue *queue.Queue
	log   *slog.Logger
	depth int

	work    chan request // to a worker that waits: not buffered
	workers int
	wg      sync.WaitGroup
	busy    atomic.Int32 // workers that do something
	handing int          // requests still to hand over

	atWork atomic.Int64  // the weight of the requests under way
	eased  chan struct{} // has a token if that has become less
}

func newServer(d *Device, q *queue.Queue, log *slog.Logger) *server {
	return &server{Device: d, queue: q, log: log, depth: d.c.Depth, work: make(chan request), eased: make(chan struct{}, 1)}
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
		if s.alone(&r) {
			st, read := s.do(&r, s.log)
			if s.queue.Pending() > 0 {
				s.handing = handOver
			}
			s.finish(&r, st, read)
		} else {
			s.hand(r)
		}
	}
}

// admit waits until not too much is under way, or for the end of ctx.
func (s *server) admit(ctx context.Context, r *request) error {
	for s.atWork.Load() >= maxAtWork {
		s.queue.Flush() // the driver may wait for what is done
		select {
		case <-s.eased:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	s.atWork.Add(r.weight())
	return nil
}

// alone tells whether r may be done here. A flush may take as long as it likes.
func (s *server) alone(r *request) bool {
	if s.handing > 0 {
		s.handing--
		return false
	}
	return (r.kind == typeIn || r.kind == typeOut) && s.busy.Load() == 0 && s.queue.Pending() == 0
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
		s.finish(&r, st, read)
	}
}

// finish gives a request back: the status byte last, behind the data.
func (s *server) finish(r *request, st status, read uint64) {
	r.status[0] = byte(st)
	// What was written counts from the front of the chain's room, so the status
	// counts only where no gap lies before it (§2.7.8.2).
	if read == r.room {
		read++
	}
	weight := r.weight()
	s.queue.Push(r.chain, uint32(read))
	s.queue.Flush()
	if s.atWork.Add(-weight) < maxAtWork {
		select {
		case s.eased <- struct{}{}:
		default:
		}
	}
}
