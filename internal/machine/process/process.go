// Package process is the process of a machine: it makes the virtual machine, has the guest
// run the main command, keeps what that writes, and serves the machine's clients until all is
// over.
package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/huskvm/husk/devices/netdev"
	"github.com/huskvm/husk/internal/agent"
	"github.com/huskvm/husk/internal/cgroup"
	"github.com/huskvm/husk/internal/guestinit/spec"
	"github.com/huskvm/husk/internal/machine"
	"github.com/huskvm/husk/internal/machine/control"
	"github.com/huskvm/husk/internal/machine/jsonlog"
	"github.com/huskvm/husk/vmm"
)

// A VM is a virtual machine as this package drives it; *vmm.VM is one.
type VM interface {
	Run(ctx context.Context) (*vmm.Result, error)
	ListenVsock(port uint32) (net.Listener, error)
	Published() []netdev.Publish
	Pause() error
	Resume() error
	Stats() vmm.Stats
	Close() error
}

// Options are what a process needs besides its machine.
type Options struct {
	// NewVM makes the virtual machine, whose kernel says to console what it has to say.
	NewVM func(m *machine.Machine, console io.Writer) (VM, error)
	// Groups are the host's control groups.
	Groups cgroup.Hierarchy
	// Stop, when it is closed, has the machine stop as husk stop does.
	Stop <-chan struct{}
	Log  *slog.Logger
}

// A server is the process.
type server struct {
	machine *machine.Machine
	spec    machine.Spec
	options Options
	log     *slog.Logger

	life context.Context         // of the virtual machine
	end  context.CancelCauseFunc // ends it, by an ending
	over chan struct{}           // closed when the machine has ended, and last is set
	last ending

	open context.Context // ends when no more requests are taken

	gate    chan struct{} // closed when the command may begin
	begin   sync.Once
	alone   atomic.Bool   // it was started by a client that did not attach
	started chan struct{} // closed when it has been started
	done    chan struct{} // closed when it has ended, or never will begin

	signals chan os.Signal
	resizes chan agent.Size
	input   *input // nil without
	output  *output
	clients sync.WaitGroup

	mu    sync.Mutex // guards what follows, and is held while the machine is paused and resumed
	state machine.State
	vm    VM            // nil before it is made
	guest *agent.Client // nil before the agent has called
}

// errKilled is why a machine was ended that was killed.
var errKilled = &ending{machine.CodeKilled, ""}

// Serve is all that the process does. It returns when the machine has ended and its clients
// know.
func Serve(ctx context.Context, m *machine.Inherited, o Options) error {
	s := &server{
		machine: m.Machine, spec: m.Spec(), options: o, log: o.Log,
		over: make(chan struct{}), gate: make(chan struct{}), started: make(chan struct{}), done: make(chan struct{}),
		signals: make(chan os.Signal, 16), resizes: make(chan agent.Size, 1),
	}
	s.life, s.end = context.WithCancelCause(ctx)
	defer s.end(nil)
	var closeUp context.CancelFunc
	s.open, closeUp = context.WithCancel(ctx)
	defer closeUp()
	if s.spec.Timeout > 0 {
		defer time.AfterFunc(s.spec.Timeout, func() {
			s.end(&ending{codeTimeout, fmt.Sprintf("timeout: the command had not ended after %v; a longer --timeout gives it more", s.spec.Timeout)})
		}).Stop()
	}
	pid := os.Getpid()
	s.state.Status, s.state.PID = machine.Created, pid
	s.state.PIDStart, _ = machine.ProcessStart(pid) // for people
	if err := m.WriteState(s.state); err != nil {
		return err
	}
	log, err := jsonlog.Create(m.LogFile())
	if err != nil {
		return err
	}
	s.output = newOutput(log)
	defer s.output.close()
	if s.spec.Process.OpenStdin {
		if s.input, err = newInput(); err != nil {
			return err
		}
		defer s.input.close()
	}
	listener, err := control.Listen(m.Folder())
	if err != nil {
		return err
	}
	s.clients.Go(func() { s.accept(listener) })
	s.clients.Go(func() { s.serveStarter(m.Starter) })
	s.clients.Go(func() {
		select {
		case <-o.Stop:
			_ = s.stop(0, s.spec.Process.Patience(), nil)
		case <-s.over:
		}
	})

	e := s.live()
	err = errors.Join(s.bury(e), m.Release())
	s.last = e
	close(s.over)
	// Who has come by now is to hear of the end, too: of a machine that is removed, nobody
	// else can tell it. Who says nothing is not waited for any longer.
	_ = listener.Close()
	defer time.AfterFunc(lastRequest, closeUp).Stop()
	if s.input != nil {
		s.input.close() // who waits to send more to the command need not
	}
	s.clients.Wait()
	return err
}

// lastRequest is how long who has connected before the end may take to say what is wanted.
const lastRequest = 5 * time.Second

func (s *server) isStarted() bool {
	select {
	case <-s.started:
		return true
	default:
		return false
	}
}

// live is the machine's life, up to its end.
func (s *server) live() ending {
	fail := func(err error) ending { return ending{machine.CodeFailed, err.Error()} }
	group, err := s.options.Groups.Join(s.machine.Group(), s.spec.Limits, s.spec.Bounds)
	if err != nil {
		return fail(err)
	}
	if group != nil {
		s.update(func(state *machine.State) { state.Group = group.Path })
		defer func() {
			if err := group.Leave(); err != nil {
				s.log.Warn("the control group is left behind", "err", err)
			}
		}()
	}
	console, err := newConsole(s.machine.ConsoleFile())
	if err != nil {
		return fail(err)
	}
	defer console.close()
	vm, err := s.options.NewVM(s.machine, console)
	if err != nil {
		return fail(err)
	}
	e, err := s.drive(vm, console)
	if err != nil {
		return fail(err)
	}
	if e.code == machine.CodeKilled && console.outOfMemory() {
		s.update(func(state *machine.State) { state.OOMKilled = true })
	}
	if n, why := s.output.log.Lost(); n > 0 {
		s.log.Warn("output could not be kept in the log", "bytes", n, "err", why)
	}
	return e
}

// closeTime is how long a machine's disks and networks may take to be closed, as a host's
// disk may not answer.
const closeTime = 20 * time.Second

// drive runs the virtual machine and the command in it, and closes it.
func (s *server) drive(vm VM, console *console) (ending, error) {
	listener, err := vm.ListenVsock(spec.GuestPort)
	if err != nil {
		return ending{}, errors.Join(err, vm.Close())
	}
	s.mu.Lock()
	s.vm = vm
	s.mu.Unlock()
	calls := agent.Answer(listener)
	g := &guest{ended: make(chan struct{})}
	go func() {
		defer close(g.ended)
		g.result, g.err = vm.Run(s.life)
	}()
	e := s.run(calls, g, console)
	s.end(&e)
	<-g.ended
	calls.Close()
	s.mu.Lock()
	s.vm, s.guest = nil, nil // nobody asks it anything more
	s.mu.Unlock()

	closed := make(chan error, 1)
	go func() { closed <- vm.Close() }()
	select {
	case err = <-closed:
	case <-time.After(closeTime):
		err = errors.New("the machine does not close: a request is stuck on the host")
	}
	if err != nil {
		s.log.Error("the machine was not closed", "err", err)
	}
	return e, nil
}

// run has the guest run the command, and the machine power off.
func (s *server) run(calls *agent.Calls, g *guest, console *console) ending {
	ended := sync.OnceFunc(func() { close(s.done) })
	defer ended()
	bound, cancel := context.WithCancel(s.life)
	defer cancel()
	go func() {
		select {
		case <-g.ended:
			cancel()
		case <-bound.Done():
		}
	}()
	client, err := calls.Client(bound)
	if err == nil {
		select {
		case <-s.gate:
		case <-bound.Done():
			err = context.Cause(bound)
		}
	}
	switch {
	case errors.Is(err, agent.ErrGuest):
		return ending{machine.CodeFailed, err.Error()}
	case err != nil:
		return s.unready(g, console)
	}
	calls.Only()
	s.mu.Lock()
	s.guest = client
	s.mu.Unlock()

	var failed error
	p := s.spec.Process
	command := agent.Command{
		Argv: p.Argv, Dir: p.Dir, Env: p.Env, User: p.User, Groups: p.Groups, TTY: p.TTY, Size: s.firstSize(),
		Stdout: s.onceStarted(s.output.to(jsonlog.Stdout)), Stderr: s.onceStarted(s.output.to(jsonlog.Stderr)),
		Signals: s.signals, Resizes: s.resizes,
		Started: func(err error) {
			if failed = err; err == nil {
				s.begun()
			}
		},
	}
	if s.input != nil {
		command.Stdin = s.input
	}
	code, err := client.Run(s.life, command)
	ended() // the guest's end, which follows, may take longer than the command was given
	switch {
	case s.life.Err() != nil:
		return s.why()
	case err != nil:
		return s.unready(g, console)
	case failed != nil:
		s.powerOff(client, g)
		return ending{code, failed.Error()}
	}
	s.powerOff(client, g)
	return ending{code, ""}
}

// begun is called when the command has been started.
func (s *server) begun() {
	s.update(func(state *machine.State) {
		state.Status, state.Started = machine.Running, time.Now()
		state.Ports, state.IP = s.vm.Published(), address(s.spec.Networks)
	})
	close(s.started)
}

// onceStarted writes to w when it is known that the command runs: its first output may be
// here before that, and who sees it may send a signal at once.
func (s *server) onceStarted(w io.Writer) io.Writer {
	return writer(func(p []byte) {
		select {
		case <-s.started:
		case <-s.life.Done():
		}
		_, _ = w.Write(p)
	})
}

// update changes the state, for all to see.
func (s *server) update(f func(*machine.State)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.updateLocked(f)
}

func (s *server) updateLocked(f func(*machine.State)) {
	f(&s.state)
	if err := s.machine.WriteState(s.state); err != nil {
		s.log.Error("the machine's state cannot be written", "err", err)
	}
}

// send sends a signal to the command.
func (s *server) send(n int) error {
	if !s.isStarted() {
		switch syscall.Signal(n) {
		case syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGHUP, syscall.SIGKILL:
			s.end(&ending{128 + n, "it was ended before the command was started"})
			return nil
		}
		return errors.New("the command has not been started yet")
	}
	if err := s.unpaused("signal"); err != nil {
		return err
	}
	select {
	case s.signals <- syscall.Signal(n):
		return nil
	default:
		return errors.New("the guest does not take signals as fast as they come")
	}
}
