package process

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/internal/machine"
)

// stop ends the command, gently at first, and returns when the machine has ended, or nobody
// waits for it: it goes on then. The guest is to kill a command that does not end, so
// that what it has written is on the disks; only where it cannot, the machine is ended under it.
func (s *server) stop(signal int, timeout time.Duration, gone <-chan struct{}) error {
	if !s.isStarted() {
		s.end(&ending{machine.CodeKilled, "it was stopped before the command was started"})
		<-s.over
		return nil
	}
	if signal == 0 {
		signal = s.stopSignal()
	}
	if err := s.resume(); err != nil && !errors.Is(err, errNotPaused) {
		return err
	}
	s.mu.Lock()
	if s.state.Status == machine.Running {
		s.updateLocked(func(state *machine.State) { state.Status = machine.Stopping })
	}
	s.mu.Unlock()
	if err := s.send(signal); err != nil { // then the time is all that it gets
		s.log.Warn("the stop signal was not sent", "err", err)
	}
	var late <-chan time.Time
	if timeout >= 0 {
		timer := time.NewTimer(timeout)
		defer timer.Stop()
		late = timer.C
	}
	select {
	case <-s.done:
	case <-gone:
		s.mu.Lock()
		if s.state.Status == machine.Stopping {
			s.updateLocked(func(state *machine.State) { state.Status = machine.Running })
		}
		s.mu.Unlock()
		return nil
	case <-late:
		if err := s.send(int(unix.SIGKILL)); err != nil {
			s.log.Warn("the command was not killed by the guest", "err", err)
		}
		select {
		case <-s.done:
		case <-time.After(killTime):
			s.end(errKilled)
		}
	}
	<-s.over
	return nil
}

// hasEnded tells whether the command has.
func (s *server) hasEnded() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// stopSignal is what asks the command to end.
func (s *server) stopSignal() int {
	if n, err := machine.ParseSignal(s.spec.Process.StopSignal); err == nil {
		return int(n)
	}
	return int(unix.SIGTERM)
}

// pause stops the guest, and resume lets it go on.
func (s *server) pause() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.state.Status == machine.Paused:
		return errors.New("the machine is paused already")
	case s.state.Status == machine.Stopping:
		return errors.New("the machine is being stopped")
	case s.vm == nil || !s.isStarted():
		return errors.New("the machine's command does not run yet, or not any more")
	}
	s.guest.Rest(true)
	if err := s.vm.Pause(); err != nil {
		s.guest.Rest(false)
		return err
	}
	s.updateLocked(func(state *machine.State) { state.Status = machine.Paused })
	return nil
}

func (s *server) resume() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state.Status != machine.Paused || s.vm == nil {
		return errNotPaused
	}
	if err := s.vm.Resume(); err != nil {
		return err
	}
	s.guest.Rest(false)
	s.updateLocked(func(state *machine.State) { state.Status = machine.Running })
	return nil
}
