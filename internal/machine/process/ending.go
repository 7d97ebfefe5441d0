package process

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/huskvm/husk/internal/agent"
	"github.com/huskvm/husk/internal/machine"
	"github.com/huskvm/husk/vmm"
)

// An ending is how a machine ends: its exit code and, where that is not the command's, why.
type ending struct {
	code   int
	reason string
}

func (e *ending) Error() string { return e.reason }

// The exit codes that husk gives a meaning, besides machine's: those of husk boot.
const (
	codeCrash   = 122
	codePanic   = 123
	codeTimeout = 124
)

// bury writes how the machine has ended, or removes it.
func (s *server) bury(e ending) error {
	if s.spec.AutoRemove {
		return s.machine.Erase()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.PID, s.state.PIDStart, s.state.Ports = 0, 0, nil
	s.state.ExitCode, s.state.Error, s.state.Finished = e.code, e.reason, time.Now()
	if s.isStarted() {
		s.state.Status = machine.Exited
	} else {
		s.state.Status = machine.Created
	}
	return errors.Join(s.machine.WriteState(s.state), s.machine.RemoveSocket())
}

// A guest is how a virtual machine has ended.
type guest struct {
	ended  chan struct{} // closed when it has
	result *vmm.Result
	err    error
}

// How long a guest may take to end: when its connection is lost, when it is to power off,
// and then where it may have much to write that is there after it.
const (
	lastWords = 5 * time.Second
	lastWrite = time.Minute
)

// powerOff has the guest end, so that what it has written to disks and shares is there.
func (s *server) powerOff(client *agent.Client, g *guest) {
	s.mu.Lock()
	if s.state.Status == machine.Paused { // the command's last words came before that
		_ = s.vm.Resume()
	}
	s.mu.Unlock()
	most := lastWords
	if len(s.spec.Disks)+len(s.spec.Volumes) > 0 {
		most = lastWrite
	}
	ctx, cancel := context.WithTimeout(s.life, most)
	defer cancel()
	if err := client.PowerOff(ctx); err != nil {
		s.log.Warn("the guest does not power off", "err", err)
		return
	}
	select {
	case <-g.ended:
	case <-ctx.Done():
		s.log.Warn("the guest does not power off", "after", most)
	}
}

// why is how the machine ends that was ended from outside.
func (s *server) why() ending {
	var e *ending
	if errors.As(context.Cause(s.life), &e) {
		return *e
	}
	return ending{machine.CodeFailed, context.Cause(s.life).Error()}
}

// unready is how a machine ends whose guest does not answer, or not any more.
func (s *server) unready(g *guest, console *console) ending {
	select {
	case <-g.ended:
	case <-s.life.Done():
		return s.why()
	case <-time.After(lastWords):
		return ending{machine.CodeFailed, "the guest's agent is gone, which husk needs there"}
	}
	if s.life.Err() != nil {
		return s.why()
	}
	s.mu.Lock()
	stopping := s.state.Status == machine.Stopping
	s.mu.Unlock()
	switch {
	case g.err != nil:
		return ending{machine.CodeFailed, g.err.Error()}
	case g.result.Outcome == vmm.GuestPanic:
		return ending{codePanic, "the guest's kernel panicked" + console.tail(g.result.Detail)}
	case g.result.Outcome != vmm.PowerOff && g.result.Outcome != vmm.Reboot:
		return ending{codeCrash, fmt.Sprint("the guest crashed: ", g.result)}
	case !s.isStarted():
		return ending{machine.CodeFailed, fmt.Sprint("the guest ended before the command could be started (", g.result, ")") + console.tail("")}
	case stopping:
		return *errKilled
	}
	return ending{0, fmt.Sprint("the guest was switched off from inside (", g.result.Outcome, ")")}
}
