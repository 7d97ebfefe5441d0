package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/internal/agent"
	"github.com/huskvm/husk/internal/machine"
	"github.com/huskvm/husk/internal/term"
)

// commandEnds are husk's own input and output as those of a command in a machine.
type commandEnds struct {
	env        *env
	stdin      bool
	tty        bool // the command is on a terminal
	detachKeys string
	signals    bool // those that husk gets are the command's
	// noStdout and noStderr leave the command's output where it is.
	noStdout, noStderr bool
}

// with calls f with the ends, and gives the terminal back afterwards.
func (c commandEnds) with(ctx context.Context, f func(context.Context, machine.Streams) (int, error)) (code int, err error) {
	keys, err := term.ParseDetachKeys(c.detachKeys)
	if err != nil {
		return 0, usageError{fmt.Errorf("--detach-keys: %w", err)}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var s machine.Streams
	if !c.noStdout {
		s.Stdout = c.env.stdout
	}
	if !c.noStderr {
		s.Stderr = c.env.stderr
	}
	if c.stdin {
		in, err := term.NewInput(c.env.stdin)
		if err != nil {
			return 0, fmt.Errorf("standard input: %w", err)
		}
		defer in.Close()
		s.Stdin = in
	}
	if c.tty {
		if window := terminalOf(c.env); window != nil {
			var unfollow func()
			s.Size, s.Resizes, unfollow = followWindow(ctx, window)
			defer unfollow()
		}
		if c.stdin && term.IsTerminal(c.env.stdin) {
			t, err := term.MakeRaw(c.env.stdin, guardName)
			if err != nil {
				return 0, err
			}
			defer func() { err = errors.Join(err, t.Restore()) }()
			s.Stdin = term.NewDetach(s.Stdin, keys)
		}
	}
	if c.signals {
		signals, stop := forwarded(cancel)
		defer stop()
		s.Signals = signals
	}
	code, err = f(ctx, s)
	gone := new(goneAway)
	if errors.As(context.Cause(ctx), &gone) {
		fmt.Fprintf(c.env.stderr, "husk: %v\n", gone)
		return 128 + int(gone.signal), nil
	}
	return endOfCommand(c.env, code, err)
}

// endOfCommand is the exit code of a command that a machine was asked for.
func endOfCommand(e *env, code int, err error) (int, error) {
	failed := new(machine.Failed)
	switch {
	case errors.Is(err, term.ErrDetached):
		return exitOK, nil
	case errors.As(err, &failed):
		fmt.Fprintf(e.stderr, "husk: %v\n", failed)
		return failed.Code, nil
	}
	return code, err
}

// terminalOf is the terminal that husk is on, nil for none.
func terminalOf(e *env) *os.File {
	if term.IsTerminal(e.stdin) {
		return e.stdin
	}
	if f, is := e.stdout.(*os.File); is && term.IsTerminal(f) {
		return f
	}
	return nil
}

// followWindow is the size of a terminal's window, and what it becomes until unfollow is
// called.
func followWindow(ctx context.Context, window *os.File) (_ agent.Size, _ <-chan agent.Size, unfollow func()) {
	ctx, cancel := context.WithCancel(ctx)
	sizes, done := make(chan agent.Size), make(chan struct{})
	convert := func(s term.Size) agent.Size { return agent.Size{Rows: uint16(s.Rows), Cols: uint16(s.Columns)} }
	go func() {
		defer close(done)
		term.Follow(ctx, window, func(s term.Size) {
			select {
			case sizes <- convert(s):
			case <-ctx.Done():
			}
		})
	}()
	unfollow = func() {
		cancel()
		<-done
	}
	first, err := term.SizeOf(window)
	if err != nil {
		return agent.Size{}, sizes, unfollow
	}
	return convert(first), sizes, unfollow
}

// A goneAway is why a client leaves a machine alone that does not end.
type goneAway struct{ signal unix.Signal }

func (g *goneAway) Error() string {
	return fmt.Sprintf("the command does not end by %s; it is left running: husk stop and husk kill end a machine", unix.SignalName(g.signal))
}

// insistence is how often a user asks until husk believes that the command will not end.
const insistence = 3

// forwarded are the signals for the command: all but those that are about husk itself. Who
// asks it to end again and again is let go.
func forwarded(leave context.CancelCauseFunc) (<-chan os.Signal, func()) {
	signals, forward := make(chan os.Signal, 16), make(chan os.Signal, 16)
	signal.Notify(signals)
	// Go's runtime sends itself SIGURG; a pipe that nobody reads ends husk, and the machine
	// goes on, as with Docker.
	signal.Reset(unix.SIGURG, unix.SIGCHLD, unix.SIGPIPE, unix.SIGWINCH, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU, unix.SIGCONT)
	done := make(chan struct{})
	go func() {
		asked := 0
		for {
			select {
			case <-done:
				return
			case s := <-signals:
				n, _ := s.(unix.Signal)
				if n == unix.SIGINT || n == unix.SIGTERM {
					if asked++; asked == insistence {
						leave(&goneAway{n})
						return
					}
				}
				select {
				case forward <- s:
				case <-done:
					return
				}
			}
		}
	}()
	return forward, func() {
		signal.Stop(signals)
		close(done)
	}
}
