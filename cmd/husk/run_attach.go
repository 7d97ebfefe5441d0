package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/internal/agent"
	"github.com/huskvm/husk/internal/machine"
	"github.com/huskvm/husk/internal/term"
)

// A createdMachine is one that has been created and waits to be started.
type createdMachine interface {
	ID() string
	// Start and Run are machine.Machine's.
	Start(ctx context.Context) error
	Run(ctx context.Context, s machine.Streams) (int, error)
	Close() error
}

// A startable is a machine and what starts its process.
type startable struct {
	*machine.Machine
	argv []string
}

func (s startable) Start(ctx context.Context) error { return s.Machine.Start(ctx, s.argv) }

func (s startable) Run(ctx context.Context, streams machine.Streams) (int, error) {
	return s.Machine.Run(ctx, s.argv, streams)
}

// createMachine makes one of the user's machines.
func createMachine(ctx context.Context, e *env, spec machine.Spec) (createdMachine, error) {
	all, err := openMachines(e)
	if err != nil {
		return nil, err
	}
	argv, err := machineProcess()
	if err != nil {
		return nil, err
	}
	m, err := all.Create(ctx, spec)
	if err != nil {
		return nil, err
	}
	return startable{m, argv}, nil
}

// beAt starts the machine and is at its command's ends until it has ended, or until the user
// leaves it.
func (r *containerRun) beAt(ctx context.Context, m createdMachine) (code int, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var s machine.Streams
	if r.ends.stdout {
		s.Stdout = r.env.stdout
	}
	if r.ends.stderr {
		s.Stderr = r.env.stderr
	}
	if r.ends.stdin {
		in, err := term.NewInput(r.env.stdin)
		if err != nil {
			return 0, errors.Join(fmt.Errorf("standard input: %w", err), m.Close())
		}
		defer in.Close()
		s.Stdin = in
	}
	if r.flags.TTY {
		restore, err := r.terminal(ctx, &s)
		if err != nil {
			return 0, errors.Join(err, m.Close())
		}
		defer func() { err = errors.Join(err, restore()) }()
	} else if r.flags.sigProxy {
		signals, stop := forwarded(cancel)
		defer stop()
		s.Signals = signals
	}
	code, err = m.Run(ctx, s)
	gone := new(goneAway)
	if errors.As(context.Cause(ctx), &gone) {
		fmt.Fprintf(r.env.stderr, "husk: %v\n", gone)
		return 128 + int(gone.signal), nil
	}
	return r.verdict(ctx, code, err)
}

// terminal has a command that has a terminal use this one: its window's size, and its keys as
// they come, if husk is at the command's input.
func (r *containerRun) terminal(ctx context.Context, s *machine.Streams) (restore func() error, err error) {
	unfollow := func() {}
	if window, ok := r.window(); ok {
		unfollow = follow(ctx, window, s)
	}
	if s.Stdin == nil {
		return func() error {
			unfollow()
			return nil
		}, nil
	}
	t, err := term.MakeRaw(r.env.stdin, guardName)
	if err != nil {
		unfollow()
		return nil, err
	}
	s.Stdin = term.NewDetach(s.Stdin, r.detachKeys)
	return func() error {
		unfollow()
		return t.Restore()
	}, nil
}

// follow has a command's terminal be as large as a window until it is called off.
func follow(ctx context.Context, window *os.File, s *machine.Streams) (unfollow func()) {
	ctx, cancel := context.WithCancel(ctx)
	sizes, done := make(chan agent.Size), make(chan struct{})
	if first, err := term.SizeOf(window); err == nil {
		s.Size = inAgentsTerms(first)
	}
	s.Resizes = sizes
	go func() {
		defer close(done)
		term.Follow(ctx, window, func(z term.Size) {
			select {
			case sizes <- inAgentsTerms(z):
			case <-ctx.Done():
			}
		})
	}()
	return func() {
		cancel()
		<-done
	}
}

func inAgentsTerms(z term.Size) agent.Size {
	return agent.Size{Rows: uint16(z.Rows), Cols: uint16(z.Columns)}
}

// window is the terminal whose size the command's is to have.
func (r *containerRun) window() (*os.File, bool) {
	out, isFile := r.env.stdout.(*os.File)
	for _, f := range []*os.File{r.env.stdin, out} {
		if (f != out || isFile) && term.IsTerminal(f) {
			return f, true
		}
	}
	return nil, false
}

// A goneAway is why a client leaves a machine alone that does not end.
type goneAway struct{ signal unix.Signal }

func (g *goneAway) Error() string {
	return fmt.Sprintf("the command does not end by %s; the machine is left running: husk stop or husk kill ends it", unix.SignalName(g.signal))
}

// insistence is how often a user asks until husk believes that the command will not end.
const insistence = 3

// forwarded are the signals for the command: all but those that are about husk itself. Who
// asks it to end again and again is let go.
func forwarded(leave context.CancelCauseFunc) (<-chan os.Signal, func()) {
	signals, forward := make(chan os.Signal, 16), make(chan os.Signal, 16)
	signal.Notify(signals)
	// Go's runtime sends itself SIGURG; a write to a pipe that nobody reads fails by its error.
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

// An idFile is where --cidfile has the machine's ID written; nil for nowhere.
type idFile struct {
	file    *os.File
	written bool
}

// openIDFile makes it, so that no other machine has the same.
func (r *containerRun) openIDFile() (*idFile, error) {
	path := r.flags.cidFile
	if path == "" {
		return nil, nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("--cidfile: container ID file found, make sure the other container isn't running or delete %s", path)
	}
	if err != nil {
		return nil, fmt.Errorf("--cidfile: %w", err)
	}
	return &idFile{file: f}, nil
}

func (i *idFile) write(id string) error {
	if i == nil {
		return nil
	}
	if _, err := i.file.WriteString(id); err != nil {
		return fmt.Errorf("--cidfile: %w", err)
	}
	i.written = true
	return nil
}

// discard closes it, and removes one without an ID.
func (i *idFile) discard() {
	if i == nil {
		return
	}
	_ = i.file.Close()
	if !i.written {
		_ = os.Remove(i.file.Name())
	}
}
