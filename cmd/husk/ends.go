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
}

// with calls f with the ends, and gives the terminal back afterwards.
func (c commandEnds) with(ctx context.Context, f func(context.Context, machine.Streams) (int, error)) (code int, err error) {
	keys, err := term.ParseDetachKeys(c.detachKeys)
	if err != nil {
		return 0, usageError{fmt.Errorf("--detach-keys: %w", err)}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := machine.Streams{Stdout: c.env.stdout, Stderr: c.env.stderr}
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
			s.Size, s.Resizes = followWindow(ctx, window)
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
		signals := make(chan os.Signal, 16)
		signal.Notify(signals)
		// About husk itself, or Go's own.
		signal.Reset(unix.SIGURG, unix.SIGCHLD, unix.SIGPIPE, unix.SIGWINCH, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU, unix.SIGCONT)
		defer signal.Stop(signals)
		s.Signals = signals
	}
	code, err = f(ctx, s)
	if errors.Is(err, term.ErrDetached) {
		return exitOK, nil
	}
	failed := new(machine.Failed)
	if errors.As(err, &failed) {
		fmt.Fprintf(c.env.stderr, "husk: %v\n", failed)
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

// followWindow is the size of a terminal's window, and what it becomes.
func followWindow(ctx context.Context, window *os.File) (agent.Size, <-chan agent.Size) {
	sizes := make(chan agent.Size)
	convert := func(s term.Size) agent.Size { return agent.Size{Rows: uint16(s.Rows), Cols: uint16(s.Columns)} }
	go term.Follow(ctx, window, func(s term.Size) {
		select {
		case sizes <- convert(s):
		case <-ctx.Done():
		}
	})
	first, err := term.SizeOf(window)
	if err != nil {
		return agent.Size{}, sizes
	}
	return convert(first), sizes
}
