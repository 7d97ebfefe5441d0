package process

import (
	"os"
	"syscall"

	"github.com/huskvm/husk/internal/agent"
	"github.com/huskvm/husk/internal/machine"
	"github.com/huskvm/husk/internal/machine/control"
)

// exec runs another command.
func (s *server) exec(c *control.Conn, r control.Command) {
	guest, err := s.ready("exec in")
	if err != nil {
		c.Finish(control.Reply{Code: machine.CodeFailed, Error: err.Error()})
		return
	}
	signals, resizes := make(chan os.Signal, 16), make(chan agent.Size, 16)
	var failed error
	command := agent.Command{
		Argv: r.Argv, Env: r.Env, Dir: r.Dir, User: r.User, Groups: r.Groups, TTY: r.TTY, Size: r.Size, Signals: signals, Resizes: resizes,
		Started: func(err error) {
			switch failed = err; {
			case err != nil:
			case r.Detached:
				s.clients.Go(func() { c.Finish(control.Reply{Started: true}) })
			default:
				_ = c.Answer(control.Reply{Started: true})
			}
		},
	}
	if !r.Detached {
		command.Stdout, command.Stderr = c.Stdout, c.Stderr
		if r.Stdin {
			command.Stdin = c.Stdin
		}
		s.clients.Go(func() { s.steeredExec(c, r.TTY, signals, resizes) })
	}
	code, err := guest.Run(s.life, command)
	reply := control.Reply{Code: code}
	switch {
	case failed != nil:
		reply.Error = failed.Error()
	case err != nil && (s.life.Err() != nil || s.hasEnded()):
		reply.Code = machine.CodeKilled // with the machine
	case err != nil:
		reply.Code, reply.Error = machine.CodeFailed, err.Error()
	}
	if !r.Detached || failed != nil {
		c.Finish(reply)
	}
}

// steeredExec follows what the client of another command wants. Where it goes without
// saying so, a command on a terminal hears of it as it would of a terminal's end; one
// without goes on, and finds its ends closed.
func (s *server) steeredExec(c *control.Conn, tty bool, signals chan<- os.Signal, resizes chan<- agent.Size) {
	for {
		r, err := c.Steer()
		switch {
		case err != nil:
			if tty {
				offer(signals, os.Signal(syscall.SIGHUP))
			}
			return
		case r.Detach:
			c.Finish(control.Reply{})
			return
		case r.Resize != nil:
			offer(resizes, *r.Resize)
		case r.Signal > 0:
			offer(signals, os.Signal(syscall.Signal(r.Signal)))
		}
	}
}

// offer sends where there is room.
func offer[T any](to chan<- T, v T) {
	select {
	case to <- v:
	default:
	}
}
