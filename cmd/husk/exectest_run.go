package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/internal/gotest"
	guestconsole "github.com/huskvm/husk/internal/smoke/console"
	"github.com/huskvm/husk/internal/smoke/result"
	"github.com/huskvm/husk/internal/term"
	"github.com/huskvm/husk/internal/testvm"
	"github.com/huskvm/husk/vmm"
)

// A testGuest is a guest that a test runs in; *testvm.Guest is one.
type testGuest interface {
	gotest.Guest
	Console() *guestconsole.Transcript
	Findings() []result.Finding
	Close() error
}

// A testRun is one run of husk exec-test on KVM.
type testRun struct {
	env   *env
	flags *execTestFlags
	job   gotest.Job

	guest   testGuest
	running atomic.Bool // the job does
	before  int         // lines on the console before it did
}

// guestBoot is how long a guest may take until it runs commands: in the lab of a busy
// host it has been seen to take one minute.
const guestBoot = 3 * time.Minute

func (t *testRun) run(ctx context.Context, b testvm.Blueprint) (code int, err error) {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	if d := t.flags.timeout; d > 0 {
		defer time.AfterFunc(d, func() {
			end(&stop{exitTimeout, fmt.Sprintf("timeout: the test had not ended after %v; a longer --timeout gives it more", d)})
		}).Stop()
	}
	boot := time.AfterFunc(guestBoot, func() {
		end(&stop{exitFailed, fmt.Sprintf("the guest did not run the test after %v", guestBoot)})
	})
	defer boot.Stop()
	ctx, t.job.Signals = t.followSignals(ctx, end)

	in, err := term.NewInput(t.env.stdin)
	if err != nil {
		return 0, fmt.Errorf("standard input: %w", err)
	}
	defer in.Close()
	t.job.Stdin = in

	b.Machine.Log = newLogger(t.env.stderr, "warn", "text")
	if t.guest, err = t.env.startGuest(ctx, b); err != nil {
		return 0, err
	}
	defer func() {
		if cerr := t.guest.Close(); cerr != nil && err == nil {
			err = cerr
		}
	}()
	if t.flags.console {
		t.guest.Console().Watch(func(l guestconsole.Line) { fmt.Fprintln(t.env.stderr, printable(l.Text)) })
	}
	code, err = t.job.Run(ctx, t.guest, func() {
		boot.Stop()
		t.before = len(t.guest.Console().Lines())
		t.running.Store(true)
	})
	if err != nil {
		return t.blame(err)
	}
	if code != 0 {
		lines := t.guest.Console().Lines()
		t.show("the guest's kernel said meanwhile", lines[min(t.before, len(lines)):])
	}
	for _, f := range t.guest.Findings() {
		t.say("the guest's kernel has reported (%s): %s", f.Kind, printable(f.Summary))
	}
	return code, nil
}

// blame makes an exit code of the reason why the test has none.
func (t *testRun) blame(err error) (int, error) {
	ended, stopped, held := new(testvm.Ended), new(stop), new(stubborn)
	switch {
	case errors.As(err, &stopped):
		t.say("%s", stopped.reason)
		if stopped.code == exitFailed || stopped.code == exitTimeout {
			t.showAll()
		}
		return stopped.code, nil
	case errors.As(err, held):
		t.say("%v", err)
		return 128 + int(held.signal), nil
	case !errors.As(err, &ended):
		// The guest hangs, or has lost what runs commands: its console may say why.
		t.showAll()
		return 0, err
	}
	t.showAll()
	if ended.Result == nil {
		return 0, ended
	}
	switch ended.Result.Outcome {
	case vmm.GuestPanic:
		t.say("the guest's kernel panicked: %s", ended.Result.Detail)
		return exitPanic, nil
	case vmm.TripleFault, vmm.InternalError:
		t.say("%v", ended.Result)
		if ended.Result.Dump != nil {
			fmt.Fprint(t.env.stderr, ended.Result.Dump)
		}
		return exitCrash, nil
	}
	return 0, fmt.Errorf("%w, before the test: did it power the machine off?", ended)
}

func (t *testRun) say(format string, args ...any) {
	fmt.Fprintf(t.env.stderr, "husk: "+format+"\n", args...)
}

// shown is how many lines of a console are shown where something has failed.
const shown = 300

func (t *testRun) showAll() { t.show("the guest's console", t.guest.Console().Lines()) }

// show prints lines of the console that have not been seen.
func (t *testRun) show(title string, lines []guestconsole.Line) {
	if len(lines) == 0 || t.flags.console {
		return
	}
	t.say("%s:", title)
	if over := len(lines) - shown; over > 0 {
		fmt.Fprintf(t.env.stderr, "  … %d lines before …\n", over)
		lines = lines[over:]
	}
	for _, l := range lines {
		fmt.Fprintf(t.env.stderr, "  %s\n", printable(l.Text))
	}
}

// printable keeps what a guest says from steering the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\t' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
}

// followSignals passes on to the job the signals that come while it runs. Before that,
// one ends husk. A job that does not end by one that asks it to is ended.
func (t *testRun) followSignals(ctx context.Context, end context.CancelCauseFunc) (context.Context, <-chan os.Signal) {
	signals, forward := make(chan os.Signal, 8), make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2)
	insisting, forwarded, quit := insist(ctx, forward)
	go func() {
		defer signal.Stop(signals)
		defer quit()
		for {
			select {
			case <-insisting.Done():
				return
			case received := <-signals:
				if !t.running.Load() {
					n := received.(unix.Signal)
					end(&stop{128 + int(n), unix.SignalName(n) + ": husk ended before the test began"})
					continue
				}
				select {
				case forward <- received:
				case <-insisting.Done():
				}
			}
		}
	}()
	return insisting, forwarded
}
