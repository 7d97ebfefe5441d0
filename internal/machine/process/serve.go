package process

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/internal/agent"
	"github.com/huskvm/husk/internal/machine"
	"github.com/huskvm/husk/internal/machine/control"
)

// accept serves who connects to the control socket, until that is closed.
func (s *server) accept(l net.Listener) {
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of descriptors, perhaps
			s.log.Warn("a client could not connect", "err", err)
			time.Sleep(10 * time.Millisecond)
			continue
		}
		s.clients.Go(func() {
			c, r, err := control.Accept(s.open, conn, s.spec.ID)
			if err != nil {
				s.log.Debug("a client made no request", "err", err)
				return
			}
			s.serve(c, r)
		})
	}
}

// errStarterGone is why a machine ends that nobody waits for.
var errStarterGone = &ending{machine.CodeFailed, "who started the machine was gone before the command had been started"}

// serveStarter serves who has started the process.
func (s *server) serveStarter(conn net.Conn) {
	// It hears of the end also where that comes first.
	c, r, err := control.Accept(context.Background(), conn, s.spec.ID)
	if err == nil && r.Op != control.Start {
		c.Finish(control.Reply{Error: "the machine was started by nobody"})
		err = control.ErrProtocol
	}
	if err != nil {
		s.end(errStarterGone)
		return
	}
	if r.Attach != nil {
		s.attach(c, *r.Attach, true)
		return
	}
	s.alone.Store(true)
	s.begin.Do(func() { close(s.gate) })
	select {
	case <-s.started:
		c.Finish(control.Reply{Started: true})
	case <-s.over:
		c.Finish(s.outcome())
	case <-c.Gone():
		s.end(errStarterGone)
	}
}

// outcome is what clients hear of the machine's end.
func (s *server) outcome() control.Reply {
	return control.Reply{Code: s.last.code, Error: s.last.reason}
}

// serve does what a client wants.
func (s *server) serve(c *control.Conn, r control.Request) {
	var err error
	switch r.Op {
	case control.Attach:
		if r.Attach != nil {
			if err = s.unpaused("attach to"); err == nil {
				s.attach(c, *r.Attach, false)
				return
			}
		}
	case control.Exec:
		if r.Exec != nil {
			s.exec(c, *r.Exec)
			return
		}
	case control.Upload, control.Download:
		err = s.copy(c, r)
	case control.Signal:
		err = s.send(r.Number)
	case control.Stop:
		err = s.stop(r.Number, r.Timeout, c.Gone())
	case control.Kill:
		s.end(errKilled)
		<-s.over
	case control.Wait:
		select {
		case <-s.over:
			c.Finish(control.Reply{Code: s.last.code}) // why is not what it was asked for
		case <-c.Gone():
		}
		return
	case control.Pause:
		err = s.pause()
	case control.Resume:
		err = s.resume()
	case control.Stats:
		usage, err := s.usage()
		c.Finish(control.Reply{Stats: usage, Error: text(err)})
		return
	default:
		err = fmt.Errorf("the machine's process knows no request %q", r.Op)
	}
	c.Finish(control.Reply{Error: text(err)})
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// attach is a client at the command's ends.
func (s *server) attach(c *control.Conn, ends control.Ends, first bool) {
	v := s.output.add(c.Stdout, c.Stderr, first)
	defer s.output.remove(v)
	s.resize(ends.Size)
	detached := make(chan struct{})
	if s.input != nil && ends.Stdin {
		s.clients.Go(func() {
			s.input.from(c.Stdin)
			select {
			case <-detached:
			default:
				if !s.alone.Load() { // else it waits for the next client
					s.input.end()
				}
			}
		})
	}
	s.clients.Go(func() { s.steered(c, detached) })
	if first {
		s.begin.Do(func() { close(s.gate) })
		select {
		case <-s.started:
			_ = c.Answer(control.Reply{Started: true})
		case <-s.over:
		case <-c.Gone():
			s.end(errStarterGone)
			return
		}
	}
	select {
	case <-s.over:
		s.output.remove(v)
		select {
		case <-v.drained:
		case <-c.Gone():
		}
		c.Finish(s.outcome())
	case <-v.tooSlow:
		c.Finish(control.Reply{Error: "the output was not taken as fast as it came, and the client is not the one that the command waits for; husk logs has it all"})
	case <-detached:
		c.Finish(control.Reply{})
	case <-c.Gone():
	}
}

// steered follows what an attached client wants, until it goes.
func (s *server) steered(c *control.Conn, detached chan<- struct{}) {
	for {
		r, err := c.Steer()
		switch {
		case err != nil:
			return
		case r.Detach:
			close(detached)
			return
		case r.Resize != nil:
			s.resize(*r.Resize)
		case r.Signal > 0:
			if err := s.send(r.Signal); err != nil {
				s.log.Info("a signal was not sent", "signal", r.Signal, "err", err)
			}
		}
	}
}

// resize has the command's terminal be as large as that of a client. The last one counts.
func (s *server) resize(size agent.Size) {
	if !s.spec.Process.TTY || size == (agent.Size{}) {
		return
	}
	for {
		select {
		case s.resizes <- size:
			return
		default:
		}
		select {
		case <-s.resizes:
		default:
		}
	}
}

// firstSize is that of the terminal of who has started the machine.
func (s *server) firstSize() agent.Size {
	select {
	case size := <-s.resizes:
		return size
	default:
		return agent.Size{}
	}
}

// errPaused is what a paused machine cannot do.
func (s *server) unpaused(what string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state.Status == machine.Paused {
		return fmt.Errorf("cannot %s a paused machine; resume it first (husk resume %s)", what, s.spec.Name)
	}
	return nil
}

// ready is the guest's agent, for something that is to be done in the guest.
func (s *server) ready(what string) (*agent.Client, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.state.Status == machine.Paused:
		return nil, fmt.Errorf("cannot %s a paused machine; resume it first (husk resume %s)", what, s.spec.Name)
	case s.guest == nil || !s.isStarted():
		return nil, errors.New("the machine's command does not run yet, or not any more")
	}
	return s.guest, nil
}

// copy moves a tar.
func (s *server) copy(c *control.Conn, r control.Request) error {
	guest, err := s.ready("copy files with")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(s.life)
	defer cancel()
	go func() {
		select {
		case <-c.Gone():
			cancel()
		case <-ctx.Done():
		}
	}()
	if r.Op == control.Download {
		return guest.Download(ctx, r.Path, c.Stdout)
	}
	if r.Owners {
		return guest.UploadOwned(ctx, r.Path, c.Stdin)
	}
	return guest.Upload(ctx, r.Path, c.Stdin)
}

// killTime is how long a guest may take to kill the command.
const killTime = 2 * time.Second

var errNotPaused = errors.New("the machine is not paused")

// usage is what the machine has used so far.
func (s *server) usage() (*control.Usage, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.vm == nil {
		return nil, errors.New("the machine is not made yet, or not any more")
	}
	stats := s.vm.Stats()
	u := &control.Usage{At: time.Now(), CPUs: s.spec.CPUs, Memory: stats.Memory, IO: stats.IO}
	var used unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &used); err != nil {
		return nil, os.NewSyscallError("getrusage", err)
	}
	u.CPU = time.Duration(used.Utime.Nano() + used.Stime.Nano())
	return u, nil
}
