package machine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/huskvm/husk/internal/agent"
	"github.com/huskvm/husk/internal/machine/control"
	"github.com/huskvm/husk/internal/term"
)

// Streams are a client's side of a command.
type Streams struct {
	// Stdin is nil for none. At the end, a Read that waits is interrupted by
	// SetReadDeadline, or else left to wait. One that fails with term.ErrDetached detaches.
	Stdin io.Reader
	// Stdout and Stderr take the command's output; nil drops it. A command with a terminal
	// has no Stderr.
	Stdout, Stderr io.Writer

	Size    agent.Size        // of the terminal, at the start
	Resizes <-chan agent.Size // its new sizes
	Signals <-chan os.Signal  // sent on to the command
}

// A Failed error is that not the command is the reason for an exit code: 125 where husk or the
// machine is, 126 where the command cannot be run, 127 where it is not there, 124 where its
// time was over.
type Failed struct {
	Code   int
	Reason string
}

func (e *Failed) Error() string { return e.Reason }

// Attach is at the command's ends until it ends, and gives its exit code then, or a
// term.ErrDetached.
func (m *Machine) Attach(ctx context.Context, s Streams) (int, error) {
	conn, err := m.dial(ctx)
	if err != nil {
		return 0, err
	}
	code, _, err := m.converse(ctx, conn, control.Request{Op: control.Attach, Attach: s.ends()}, s)
	return code, err
}

// Exec runs another command in a machine that runs, and gives its exit code. What p says of
// how it is stopped counts for nothing. A Failed is one that could not be started, and
// a term.ErrDetached one that goes on.
func (m *Machine) Exec(ctx context.Context, p Process, s Streams) (int, error) {
	return m.exec(ctx, p, s, false)
}

// ExecDetached starts another command, whose ends are nowhere, and leaves it.
func (m *Machine) ExecDetached(ctx context.Context, p Process) error {
	_, err := m.exec(ctx, p, Streams{}, true)
	return err
}

func (m *Machine) exec(ctx context.Context, p Process, s Streams, detached bool) (int, error) {
	conn, err := m.dial(ctx)
	if err != nil {
		return 0, err
	}
	code, _, err := m.converse(ctx, conn, control.Request{Op: control.Exec, Exec: &control.Command{
		Ends: *s.ends(), Argv: p.Argv, Env: p.Env, Dir: p.Dir, User: p.User, Groups: p.Groups, TTY: p.TTY, Detached: detached,
	}}, s)
	return code, err
}

func (s Streams) ends() *control.Ends { return &control.Ends{Stdin: s.Stdin != nil, Size: s.Size} }

// converse makes a request for a command, on a connection that it closes, and is at its
// ends until the last reply. started tells whether the command has been started.
func (m *Machine) converse(ctx context.Context, conn *control.Conn, r control.Request, s Streams) (code int, started bool, err error) {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	if err := conn.Ask(r); err != nil {
		return 0, false, m.lost(ctx, err)
	}
	c := conversation{Conn: conn, Streams: s, over: make(chan struct{}), detached: make(chan struct{})}
	last, err := c.run()
	switch {
	case errors.Is(err, term.ErrDetached):
	case err != nil || ctx.Err() != nil:
		err = m.lost(ctx, err)
	case last.Error != "" && last.Code != 0:
		err = &Failed{last.Code, last.Error}
	default:
		err = failure(last)
	}
	return last.Code, c.started, err
}

// A conversation is a client's side of one command.
type conversation struct {
	*control.Conn
	Streams
	over     chan struct{} // closed when the last reply is there
	detached chan struct{} // closed when the user wants to go
	started  bool          // the command was
}

func (c *conversation) run() (last control.Reply, err error) {
	var side sync.WaitGroup
	fed := make(chan struct{})
	go func() {
		defer close(fed)
		c.feed()
	}()
	side.Go(c.steer)
	drains := make(chan error, 2)
	go func() { drains <- drain(c.Streams.Stdout, c.Conn.Stdout) }()
	go func() { drains <- drain(c.Streams.Stderr, c.Conn.Stderr) }()

	for !last.Last && err == nil {
		last, err = c.Reply()
		c.started = c.started || last.Started
	}
	close(c.over)
	side.Wait()
	left := false
	select {
	case <-c.detached:
		left = true
	default:
	}
	for range cap(drains) {
		if left || err != nil {
			_ = c.Close() // what has not come yet is not waited for
		}
		if failed := <-drains; err == nil && failed != nil {
			err = failed
		}
	}
	_ = c.Close() // or input that the command has not taken would wait to be sent
	if d, ok := c.Streams.Stdin.(interface{ SetReadDeadline(time.Time) error }); ok && d.SetReadDeadline(time.Unix(1, 0)) == nil {
		<-fed
		_ = d.SetReadDeadline(time.Time{}) // it is the caller's, for what comes after
	}
	if left {
		return last, term.ErrDetached
	}
	return last, err
}

// feed sends the input, and its end.
func (c *conversation) feed() {
	if c.Streams.Stdin == nil {
		_ = c.Conn.Stdin.Close()
		return
	}
	_, err := io.Copy(c.Conn.Stdin, c.Streams.Stdin)
	switch {
	case errors.Is(err, term.ErrDetached):
		close(c.detached)
		_ = c.Ask(control.Steer{Detach: true})
	default:
		_ = c.Conn.Stdin.Close()
	}
}

// steer sends signals and sizes.
func (c *conversation) steer() {
	for {
		var s control.Steer
		select {
		case <-c.over:
			return
		case signal, ok := <-c.Signals:
			n, isNumber := signal.(syscall.Signal)
			if !ok {
				c.Signals = nil
			}
			if !ok || !isNumber {
				continue
			}
			s.Signal = int(n)
		case size, ok := <-c.Resizes:
			if !ok {
				c.Resizes = nil
				continue
			}
			s.Resize = &size
		}
		if c.Ask(s) != nil {
			return
		}
	}
}

// drain copies output to the end. Where its reader has gone, the rest is dropped.
func drain(w io.Writer, r io.Reader) error {
	if w == nil {
		w = io.Discard
	}
	_, err := io.Copy(w, r)
	_, _ = io.Copy(io.Discard, r)
	if err != nil {
		return fmt.Errorf("output: %w", err)
	}
	return nil
}
