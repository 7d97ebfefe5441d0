package virtio

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/huskvm/husk/devices/virtio/queue"
)

// serving is the part of State that starts and stops the device. Nobody but
// settle does either: all others say what they want and call it.
type serving struct {
	run       *run // the Serve under way, or nil
	latest    *run // the last that was started: what its end causes may be under way yet
	resetting bool // the device, and soon its registers
	finishing bool // the transport's registers are being reset, without the lock
	restart   bool // a queue was added
	paused    bool
	closed    bool

	// Due when the lock is released.
	tell  bool // a ConfigInterrupt
	lines []line
}

// A line is one for the log.
type line struct {
	level   slog.Level
	message string
	args    []any
}

// A run is one call of Serve.
type run struct {
	session *Session
	cancel  context.CancelFunc
	done    chan struct{} // closed when nothing of it or of those before it goes on
}

var errGaveUp = errors.New("the device stopped")

// settle makes of the device what the registers say. It may release the lock for
// a while.
func (s *State) settle() {
	for !s.finishing {
		if s.run != nil {
			if s.mustStop() {
				s.run.cancel()
			}
			return // the end of the run settles the rest
		}
		s.restart = false
		for i := range s.queues {
			if q := &s.queues[i]; q.resetting {
				q.reset()
			}
		}
		if s.resetting {
			s.finishReset()
			continue
		}
		if s.status&StatusDriverOK == 0 || s.mustStop() {
			return
		}
		if err := s.start(); err != nil {
			s.fault(err)
		}
		return
	}
}

// mustStop tells whether the device may not be served as it is now.
func (s *State) mustStop() bool {
	if s.resetting || s.restart || s.paused || s.closed || s.status&(StatusNeedsReset|StatusFailed) != 0 {
		return true
	}
	for i := range s.queues {
		if s.queues[i].resetting {
			return true
		}
	}
	return false
}

func (s *State) finishReset() {
	if s.c.OnReset != nil {
		s.finishing = true
		s.mu.Unlock()
		s.c.OnReset()
		s.mu.Lock()
		s.finishing = false
	}
	s.clear()
	s.resetting = false
}

// start starts the device. It fails if a queue is not where it could be.
func (s *State) start() error {
	session, err := s.newSession()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &run{session: session, cancel: cancel, done: make(chan struct{})}
	before := s.latest
	s.run, s.latest = r, r
	go func() {
		defer close(r.done)
		err := s.c.Device.Serve(ctx, session)
		if ctx.Err() == nil && err == nil {
			err = errGaveUp
		}
		if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
			err = nil
		}
		cancel()
		s.ended(r, err)
		if before != nil {
			<-before.done
		}
	}()
	return nil
}

// newSession takes up the queues where they were left.
func (s *State) newSession() (*Session, error) {
	features := queue.Features{
		IndirectDesc: s.acked&FeatIndirectDesc != 0,
		EventIdx:     s.acked&FeatEventIdx != 0,
	}
	session := &Session{Features: s.acked, Queues: make([]*queue.Queue, len(s.queues)), Log: s.log, state: s}
	for i := range s.queues {
		if !s.queues[i].Enabled {
			continue
		}
		q, err := queue.New(s.queues[i].State, features, s.c.Memory, s.c.Kicks[i], s.c.Interrupts[i])
		if err == nil && q.Size() > int(s.queues[i].max) {
			err = fmt.Errorf("%w: its size %d is more than %d", queue.ErrBadRing, q.Size(), s.queues[i].max)
		}
		if err != nil {
			return nil, fmt.Errorf("queue %d: %w", i, err)
		}
		session.Queues[i] = q
	}
	return session, nil
}

// ended takes what is left of a run, and goes on as the registers say.
func (s *State) ended(r *run, err error) {
	for _, q := range r.session.Queues {
		if q != nil {
			q.Flush()
		}
	}
	s.mu.Lock()
	for i, q := range r.session.Queues {
		if q != nil {
			s.queues[i].State = q.State()
		}
	}
	s.run = nil
	if err != nil && !s.resetting {
		s.fault(err)
	}
	s.settle()
	s.unlock()
}

// awaitReset waits for a reset to be done, but not for long. It releases the
// lock meanwhile.
func (s *State) awaitReset() { s.await(func() bool { return !s.resetting }) }

// await waits for the run under way to end, unless done holds.
func (s *State) await(done func() bool) {
	r := s.run
	if r == nil || done() {
		return
	}
	s.mu.Unlock()
	timer := time.NewTimer(patience)
	select {
	case <-r.done:
	case <-timer.C:
	}
	timer.Stop()
	s.mu.Lock()
}

// Pause stops the device, and returns when nothing is in flight, no interrupt
// either: the guest's memory and queues rest until Resume. The driver does not
// notice. If ctx ends first, the device goes on, and Pause returns the error of
// ctx.
func (s *State) Pause(ctx context.Context) error {
	s.mu.Lock()
	s.paused = true
	s.settle()
	r := s.latest
	s.unlock()
	if r == nil {
		return nil
	}
	select {
	case <-r.done:
		return nil
	case <-ctx.Done():
		s.Resume()
		return ctx.Err()
	}
}

// Resume undoes Pause.
func (s *State) Resume() {
	s.mu.Lock()
	defer s.unlock()
	s.paused = false
	s.settle()
}

// Close stops the device for good, and returns when nothing is in flight, no
// interrupt either: what they lead to may go away.
func (s *State) Close() {
	s.mu.Lock()
	s.closed = true
	s.settle()
	r := s.latest
	s.unlock()
	if r != nil {
		<-r.done
	}
}
