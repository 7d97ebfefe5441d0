package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/devices/netdev"
	"github.com/huskvm/husk/internal/term"
	"github.com/huskvm/husk/vmm"
)

// lastOutput is how long the guest's last output may take to be taken off
// husk's hands once the run has been ended from outside. A reader that has
// stopped reading must not keep husk from ending.
const lastOutput = 2 * time.Second

// lastRequests is how long what the guest has asked of its disks may take, and the
// flush behind it.
const lastRequests = 20 * time.Second

// A bootMachine is what a session drives; *vmm.VM is one.
type bootMachine interface {
	Run(ctx context.Context) (*vmm.Result, error)
	PowerButton()
	Break(ctx context.Context) error
	Resize(columns, rows int)
	Published() []netdev.Publish
	Stats() vmm.Stats
	Close() error
}

// A session is one run of husk boot on KVM.
type session struct {
	env   *env
	flags *bootFlags
	cfg   vmm.Config

	end      context.CancelCauseFunc // ends the run, with a stop
	con      *console
	requests chan func(bootMachine) // what is asked of the machine, whichever runs when it comes
	running  atomic.Bool            // there is a machine, and con

	result *vmm.Result // of the last run
	stats  vmm.Stats
}

// A stop is why husk, and not the guest, ends a run.
type stop struct {
	code   int
	reason string // for stderr; empty to say nothing
}

func (s *stop) Error() string { return s.reason }

// run boots the machine, writes the figures about it, and returns husk's exit
// code. All the while, signals do what husk boot's help says.
func (s *session) run(ctx context.Context, figures statsFile) (int, error) {
	ctx, s.end = context.WithCancelCause(ctx)
	defer s.end(nil)
	if s.flags.timeout > 0 {
		defer time.AfterFunc(s.flags.timeout, func() {
			s.end(&stop{exitTimeout, fmt.Sprintf("timeout: the guest had not ended after %v; a longer --timeout gives it more", s.flags.timeout)})
		}).Stop()
	}
	s.requests = make(chan func(bootMachine), 4)
	defer s.handleSignals()()

	code, err := s.boot(ctx)
	if err != nil {
		code = exitFailed
	}
	return code, errors.Join(err, figures.writeBefore(ctx, s.report(code, err)))
}

// boot boots the machine, again after each reboot if so asked.
func (s *session) boot(ctx context.Context) (code int, err error) {
	// The end that is this terminal is the one that husk's own words go to.
	type end struct {
		flag, name string
		serial     **vmm.Serial
	}
	main, other := end{"serial", s.flags.serial, &s.cfg.Serial}, end{"console", s.flags.console, &s.cfg.Console}
	if other.name == "stdio" {
		main, other = other, main
	}
	broken := func(err error) {
		s.end(&stop{exitFailed, fmt.Sprintf("console output: %v; the guest was ended, for nobody saw it", err)})
	}
	s.con, err = openConsole(s.env, main.flag, main.name, map[byte]func(){
		'x': func() { s.end(&stop{code: exitOK}) },
		'p': func() { s.ask(bootMachine.PowerButton) },
		'b': func() {
			s.ask(func(m bootMachine) {
				go func() { _ = m.Break(ctx) }() // until the guest takes it, or the end
			})
		},
		'h': func() { fmt.Fprint(s.con.stderr, consoleKeys) },
	}, broken)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, s.con.Close()) }()
	second, err := openConsole(s.env, other.flag, other.name, nil, broken)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, second.Close()) }()

	*main.serial, *other.serial = s.con.serial, second.serial
	s.cfg.Log = newLogger(s.con.stderr, s.flags.logLevel, s.flags.logFormat)
	for {
		m, err := s.make(ctx)
		if errors.As(err, new(*stop)) {
			return s.stopped(ctx)
		}
		if err != nil {
			return 0, err
		}
		code, err := s.drive(ctx, m)
		if err != nil || s.result == nil || s.result.Outcome != vmm.Reboot || s.flags.onReboot != "restart" {
			return code, err
		}
	}
}

// ask has f done with the machine, unless enough is asked already.
func (s *session) ask(f func(bootMachine)) {
	select {
	case s.requests <- f:
	default:
	}
}

// make makes the machine. When ctx ends first, its cause is the error: to make
// a machine can take long, and cannot be interrupted.
func (s *session) make(ctx context.Context) (bootMachine, error) {
	type making struct {
		m   bootMachine
		err error
	}
	made := make(chan making)
	go func() {
		m, err := s.env.newMachine(s.cfg)
		select {
		case made <- making{m, err}:
		case <-ctx.Done(): // nobody waits
			if err == nil {
				_ = m.Close()
			}
		}
	}()
	select {
	case r := <-made:
		return r.m, r.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// drive runs one machine to its end.
func (s *session) drive(ctx context.Context, m bootMachine) (int, error) {
	s.running.Store(true)
	defer s.running.Store(false)
	for _, port := range m.Published() {
		s.con.say("the guest's port %d/%s is %v here", port.Guest, port.Proto, port.Host)
	}
	if s.con.terminal != nil {
		following, stopFollowing := context.WithCancel(ctx)
		defer stopFollowing()
		go term.Follow(following, s.env.stdin, func(size term.Size) { m.Resize(size.Columns, size.Rows) })
	}

	type outcome struct {
		result *vmm.Result
		err    error
	}
	forgetStart()
	ended := make(chan outcome, 1)
	go func() {
		result, err := m.Run(ctx)
		ended <- outcome{result, err}
	}()
	over := ctx.Done()
	var patience <-chan time.Time
	var ending time.Time
	for {
		select {
		case request := <-s.requests:
			request(m)
		case <-over:
			over, patience, ending = nil, time.After(lastOutput), time.Now()
		case <-patience:
			if !s.con.stuck() && time.Since(ending) < lastRequests {
				patience = time.After(lastOutput)
				continue
			}
			// Run is stuck in a write to standard output, or in a request of a disk whose
			// host does not answer. The process ends, and the machine with it.
			s.stats = m.Stats()
			return s.stopped(ctx)
		case e := <-ended:
			s.running.Store(false)
			s.result, s.stats = e.result, m.Stats()
			err := closeMachine(m)
			if cause := new(stop); errors.As(context.Cause(ctx), &cause) && (e.result == nil || e.result.Outcome == vmm.Cancelled) {
				// Why it was ended says more than what that led to.
				code, _ := s.stopped(ctx)
				return code, err
			}
			if err = errors.Join(e.err, err); err != nil {
				return 0, err
			}
			return verdict(e.result, s.flags.onReboot, s.con.say, s.con.stderr), nil
		}
	}
}

// closeMachine closes it, unless the host does not let go of a disk.
func closeMachine(m bootMachine) error {
	closed := make(chan error, 1)
	go func() { closed <- m.Close() }()
	select {
	case err := <-closed:
		return err
	case <-time.After(lastRequests):
		return errors.New("the machine does not close: a request is stuck on the host; what the guest had not flushed may be lost")
	}
}

// stopped is the exit code of a run that husk has ended.
func (s *session) stopped(ctx context.Context) (int, error) {
	cause := new(stop)
	if !errors.As(context.Cause(ctx), &cause) {
		return 0, context.Cause(ctx)
	}
	if cause.reason != "" {
		s.con.say("%s", cause.reason)
	}
	return cause.code, nil
}

// verdict turns how the guest ended into an exit code, and says what cannot be
// seen on the guest's console.
func verdict(r *vmm.Result, onReboot string, say func(string, ...any), details io.Writer) int {
	switch r.Outcome {
	case vmm.PowerOff:
		return exitOK
	case vmm.Reboot:
		if onReboot == "fail" {
			say("the guest asked for a reboot, which --on-reboot=fail makes a failure")
			return exitReboot
		}
		return exitOK
	case vmm.DebugExit:
		return r.Code & 0xff
	case vmm.GuestPanic:
		say("the guest's kernel panicked: %s", cmp.Or(r.Detail, "it did not say why on the serial console"))
		return exitPanic
	default:
		say("%v", r)
		if r.Dump != nil {
			fmt.Fprint(details, r.Dump)
		}
		return exitCrash
	}
}

// handleSignals makes the first signal that asks for an end press the power
// button, and the second one end the run. Where there is no machine, the first
// one does. A closed standard output becomes an error of the write that finds it
// so, instead of husk's silent death.
func (s *session) handleSignals() (stopHandling func()) {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	pipes := make(chan os.Signal, 1)
	signal.Notify(pipes, unix.SIGPIPE)
	done := make(chan struct{})
	go func() {
		for asked := false; ; asked = true {
			select {
			case <-done:
				return
			case received := <-signals:
				name, code := unix.SignalName(received.(unix.Signal)), 128+int(received.(unix.Signal))
				switch {
				case !s.running.Load():
					s.end(&stop{code, name + ": husk ended without a guest"})
				case asked:
					s.end(&stop{code, name + ": the guest was ended"})
				default:
					s.con.say("%s: pressed the guest's power button; a second signal ends the guest at once", name)
					s.ask(bootMachine.PowerButton)
				}
			}
		}
	}()
	return func() {
		signal.Stop(signals)
		signal.Stop(pipes)
		close(done)
	}
}

// newLogger writes to w what level, one of slog's names, lets through.
func newLogger(w io.Writer, level, format string) *slog.Logger {
	var l slog.Level
	_ = l.UnmarshalText([]byte(level)) // check has seen to it
	options := &slog.HandlerOptions{Level: l}
	if format == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}
