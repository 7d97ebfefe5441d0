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
	"time"

	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/vmm"
)

// lastOutput is how long the guest's last output may take to be taken off
// husk's hands once the run has been ended from outside. A reader that has
// stopped reading must not keep husk from ending.
const lastOutput = 2 * time.Second

// A machine is what a session drives; *vmm.VM is one.
type machine interface {
	Run(ctx context.Context) (*vmm.Result, error)
	PowerButton()
	Break(ctx context.Context) error
	Stats() vmm.Stats
	Close() error
}

// A session is one run of husk boot on KVM.
type session struct {
	env   *env
	flags *bootFlags
	cfg   vmm.Config

	result *vmm.Result // of the last run
	stats  vmm.Stats
}

// A stop is why husk, and not the guest, ends a run.
type stop struct {
	code   int
	reason string // for stderr; empty to say nothing
}

func (s *stop) Error() string { return s.reason }

// run boots the machine, again after each reboot if so asked, and returns
// husk's exit code.
func (s *session) run(ctx context.Context) (code int, err error) {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	if s.flags.timeout > 0 {
		defer time.AfterFunc(s.flags.timeout, func() {
			end(&stop{exitTimeout, fmt.Sprintf("timeout: the guest had not ended after %v; a longer --timeout gives it more", s.flags.timeout)})
		}).Stop()
	}

	// What is asked of the machine, whichever runs when it comes.
	requests := make(chan func(machine), 4)
	ask := func(f func(machine)) func() {
		return func() {
			select {
			case requests <- f:
			default: // enough is asked already
			}
		}
	}
	press := ask(machine.PowerButton)
	var con *console
	con, err = openConsole(s.env, s.flags.serial, map[byte]func(){
		'x': func() { end(&stop{code: exitOK}) },
		'p': press,
		'b': ask(func(m machine) {
			go func() { _ = m.Break(ctx) }() // until the guest takes it, or the end
		}),
		'h': func() { fmt.Fprint(con.stderr, consoleKeys) },
	}, func(err error) {
		end(&stop{exitFailed, fmt.Sprintf("console output: %v; the guest was ended, for nobody saw it", err)})
	})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, con.Close()) }()

	s.cfg.Serial, s.cfg.Log = con.serial, newLogger(con.stderr, s.flags.logLevel, s.flags.logFormat)
	for {
		m, err := s.env.newMachine(s.cfg)
		if err != nil {
			return 0, err
		}
		code, err := s.drive(ctx, end, m, con, requests, press)
		if err != nil || s.result == nil || s.result.Outcome != vmm.Reboot || s.flags.onReboot != "restart" {
			return code, err
		}
	}
}

// drive runs one machine to its end.
func (s *session) drive(ctx context.Context, end context.CancelCauseFunc, m machine, con *console, requests <-chan func(machine), press func()) (int, error) {
	stopSignals := handleSignals(con, press, end)
	defer stopSignals()

	type ending struct {
		result *vmm.Result
		err    error
	}
	ended := make(chan ending, 1)
	go func() {
		result, err := m.Run(ctx)
		ended <- ending{result, err}
	}()
	over := ctx.Done()
	var patience <-chan time.Time
	for {
		select {
		case request := <-requests:
			request(m)
		case <-over:
			over, patience = nil, time.After(lastOutput)
		case <-patience:
			// Run is stuck in a write to standard output. The process ends, and the
			// machine with it.
			s.stats = m.Stats()
			return s.stopped(ctx, con)
		case e := <-ended:
			s.result, s.stats = e.result, m.Stats()
			err := m.Close()
			if cause := new(stop); errors.As(context.Cause(ctx), &cause) && (e.result == nil || e.result.Outcome == vmm.Cancelled) {
				// Why it was ended says more than what that led to.
				code, _ := s.stopped(ctx, con)
				return code, err
			}
			if err = errors.Join(e.err, err); err != nil {
				return 0, err
			}
			return verdict(e.result, s.flags.onReboot, con.say, con.stderr), nil
		}
	}
}

// stopped is the exit code of a run that husk has ended.
func (s *session) stopped(ctx context.Context, con *console) (int, error) {
	cause := new(stop)
	if !errors.As(context.Cause(ctx), &cause) {
		return 0, context.Cause(ctx)
	}
	if cause.reason != "" {
		con.say("%s", cause.reason)
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
// button, and the second one end the run. A closed standard output becomes an
// error of the write that finds it so, instead of husk's silent death.
func handleSignals(con *console, press func(), end context.CancelCauseFunc) (stopHandling func()) {
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
				name := unix.SignalName(received.(unix.Signal))
				if asked {
					end(&stop{128 + int(received.(unix.Signal)), name + ": the guest was ended"})
					return
				}
				con.say("%s: pressed the guest's power button; a second signal ends the guest at once", name)
				press()
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
