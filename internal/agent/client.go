package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/yamux"
)

// ErrGuest wraps what a guest's side says of itself when it cannot serve.
var ErrGuest = errors.New("the guest cannot run commands")

// ErrSilent is that a guest has answered nothing for too long.
var ErrSilent = errors.New("the guest has stopped answering")

// A Command is what to run, and how.
type Command struct {
	op     op
	owners bool     // of opUpload: they are kept
	Argv   []string // the program, found by PATH of Env, and its arguments
	Dir    string   // working directory, "" for /
	Env    []string // the whole environment, "key=value"; the guest adds PATH and HOME where they are missing, a container's also HOSTNAME and TERM
	TTY    bool     // run on a terminal of its own; then there is no Stderr
	Size   Size     // of the terminal, at the start

	// User is who runs it: "USER[:GROUP]", names or numbers, looked up in the guest's
	// /etc/passwd and /etc/group; "" for root. A user of the former has the groups of the
	// latter, unless GROUP is given. Groups are further ones.
	User   string
	Groups []string

	Stdin          io.Reader // nil is /dev/null. At the end a Read that waits is interrupted by SetReadDeadline, or else left to wait
	Stdout, Stderr io.Writer // nil discards

	// Started, unless nil, is called once: with nil when the program has been started, or with why
	// it could not be, which is not written to Stderr then.
	Started func(err error)

	Signals <-chan os.Signal // sent on to the command's process group, in a container to its process alone
	Resizes <-chan Size      // the terminal's new sizes
}

// A Client is the host's side.
type Client struct {
	session *yamux.Session
	opening sync.Mutex // a command's streams are opened one after the other
	watch   sync.WaitGroup
	silent  atomic.Bool // the guest is, and so the session was closed
	resting atomic.Bool // the guest is not expected to answer

	patience time.Duration
}

// Connect waits for the guest's hello on conn, which the client owns from then
// on. When ctx ends first, it closes conn and returns the context's error.
func Connect(ctx context.Context, conn io.ReadWriteCloser) (*Client, error) {
	return connect(ctx, conn, heartbeat, patience)
}

func connect(ctx context.Context, conn io.ReadWriteCloser, every time.Duration, patience int) (*Client, error) {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	var h hello
	err := readFrame(conn, &h)
	if !stop() {
		return nil, context.Cause(ctx)
	}
	switch {
	case err != nil:
	case h.Version != version:
		err = fmt.Errorf("%w: the guest speaks version %d, this is %d: rebuild with make", ErrProtocol, h.Version, version)
	case h.Error != "":
		err = fmt.Errorf("%w: %s", ErrGuest, printable(h.Error))
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	session, err := yamux.Client(&incoming{ReadWriteCloser: conn}, config())
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	c := &Client{session: session, patience: time.Duration(patience) * every}
	c.watch.Go(func() { c.heartbeat(every, patience) })
	return c, nil
}

// Lost tells whether the connection has ended.
func (c *Client) Lost() bool { return c.session.IsClosed() }

// Close ends the connection; commands that run are killed.
func (c *Client) Close() error {
	err := c.session.Close()
	c.watch.Wait()
	return err
}

// The guest is asked every heartbeat whether it is there. When it has answered
// none of patience questions, it never will: a software CPU of a busy host may
// stand still for long, but not for minutes.
const (
	heartbeat = time.Second
	patience  = 150
)

// Rest says whether the guest's machine is paused, and need not answer.
func (c *Client) Rest(resting bool) { c.resting.Store(resting) }

// heartbeat closes a session whose other side is silent. It counts ticks and not
// time, because the host itself may have been stopped meanwhile. Each question
// is asked whether the last was answered or not: its interrupt may wake a machine
// that has lost one (ARCHITECTURE.md). A paused one is asked nothing: it may be so for
// days, and the questions would wait for it.
func (c *Client) heartbeat(every time.Duration, patience int) {
	ticks := time.NewTicker(every)
	defer ticks.Stop()
	answers := make(chan struct{}, 1)
	for silent := 0; silent < patience; silent++ {
		if !c.resting.Load() {
			c.watch.Go(func() {
				if _, err := c.session.Ping(); err == nil {
					select {
					case answers <- struct{}{}:
					default:
					}
				}
			})
		}
		select {
		case <-c.session.CloseChan():
			return
		case <-ticks.C:
		}
		select {
		case <-answers:
			silent = -1
		default:
			if c.resting.Load() {
				silent = -1
			}
		}
	}
	c.silent.Store(true)
	_ = c.session.Close()
}

// Run runs a command to its end and gives its exit code: its own, 128 and the
// number of the signal that ended it, 127 when there is no such program,
// 126 when it cannot be run, and 125 when it was not come to that. Everything it wrote before it ended has been
// written to Stdout and Stderr by then. An error is one of the connection, or
// the context's when that ended, which kills the command. Then a Write to
// Stdout or Stderr that does not return is given drainGrace, and left behind.
// ErrSilent is a guest that hangs.
//
// In a container, the first command that starts is its main one: process 1 of the
// container's, with whose end all others end. Later ones join it.
func (c *Client) Run(ctx context.Context, cmd Command) (int, error) {
	end, err := c.RunToEnd(ctx, cmd)
	return end.Code, err
}

// An End is how a command ended.
type End struct {
	Code int // as Run has it
	// Error says why it did not start; "" if it did. Run has written it to Stderr, too.
	Error string
	// OOMKilled says that the guest's kernel had too little memory while the command ran,
	// and ended a process for it.
	OOMKilled bool
}

// RunToEnd is Run for who wants to know more of the end.
func (c *Client) RunToEnd(ctx context.Context, cmd Command) (End, error) {
	end, err := c.do(ctx, cmd)
	return End{Code: end.Code & 0xff, Error: printable(end.Error), OOMKilled: end.OOMKilled}, err
}

// do has the guest do something, to its end.
func (c *Client) do(ctx context.Context, cmd Command) (outcome, error) {
	s, err := c.open()
	if err != nil {
		return outcome{}, c.blame(err)
	}
	defer closeAll(s)
	stop := context.AfterFunc(ctx, func() { abandon(s) })
	defer stop()

	end, err := c.run(ctx, cmd, s)
	if ctx.Err() != nil {
		return outcome{}, context.Cause(ctx)
	}
	return end, c.blame(err)
}

// blame puts the reason for the end of the connection before what followed from it.
func (c *Client) blame(err error) error {
	if err != nil && c.silent.Load() {
		return fmt.Errorf("%w, for %v", ErrSilent, c.patience)
	}
	return err
}

func (c *Client) open() ([]*yamux.Stream, error) {
	c.opening.Lock()
	defer c.opening.Unlock()
	s := make([]*yamux.Stream, streams)
	for i := range s {
		var err error
		if s[i], err = c.session.OpenStream(); err != nil {
			closeAll(s)
			return nil, err
		}
	}
	return s, nil
}

func (c *Client) run(ctx context.Context, cmd Command, s []*yamux.Stream) (end outcome, err error) {
	control, stdin, stdout, stderr := s[0], s[1], s[2], s[3]
	err = writeFrame(control, start{
		Op: cmd.op, Owners: cmd.owners, Argv: cmd.Argv, Dir: cmd.Dir, Env: cmd.Env, TTY: cmd.TTY, Size: cmd.Size,
		User: cmd.User, Groups: cmd.Groups, NoInput: cmd.Stdin == nil,
	})
	if err != nil {
		return end, err
	}
	fed := make(chan struct{})
	go func() {
		defer close(fed)
		if cmd.Stdin != nil {
			_, _ = io.Copy(stdin, cmd.Stdin)
		}
		_ = stdin.Close()
	}()
	ended := make(chan struct{})
	var side sync.WaitGroup
	side.Go(func() { steer(control, cmd, ended) })

	drains := []<-chan error{deliver(cmd.Stdout, stdout), deliver(cmd.Stderr, stderr)}

	started := false
	for err = readFrame(control, &end); err == nil && end.Started; err = readFrame(control, &end) {
		if end.Started = false; !started && cmd.Started != nil {
			cmd.Started(nil)
		}
		started = true
	}
	if err != nil {
		abandon(s)
	}
	lost := await(ctx, drains...)
	close(ended)
	side.Wait()
	abandon(s)
	if d, ok := cmd.Stdin.(interface{ SetReadDeadline(time.Time) error }); ok && d.SetReadDeadline(past) == nil {
		<-fed
		_ = d.SetReadDeadline(time.Time{}) // it is the caller's, for what comes after
	}
	switch {
	case ctx.Err() != nil: // a write may be under way still
		return end, context.Cause(ctx)
	case err != nil:
		return end, fmt.Errorf("the connection to the guest ended before the command: %w", err)
	case end.Error != "" && cmd.Started != nil && !started:
		cmd.Started(errors.New(printable(end.Error)))
	case end.Error != "" && cmd.Stderr != nil:
		_ = await(ctx, deliver(cmd.Stderr, strings.NewReader(printable(end.Error)+"\n")))
	case end.Error != "" && cmd.Stdout != nil:
		_ = await(ctx, deliver(cmd.Stdout, strings.NewReader(printable(end.Error)+"\r\n")))
	}
	return end, lost
}

// drainGrace is how long a write may take after the context has ended. What
// reads the output may be slow, and what the command wrote in its time is worth
// a wait; but it may also have stopped reading for good, as in "| sleep inf".
const drainGrace = 2 * time.Second

// deliver drains r into w, which may be nil, and then sends the error.
func deliver(w io.Writer, r io.Reader) <-chan error {
	if w == nil {
		w = io.Discard
	}
	done := make(chan error, 1) // await may have given up
	go func() { done <- drain(w, r) }()
	return done
}

// await joins the errors of all deliveries. It gives up those that are not at
// their end drainGrace after ctx is.
func await(ctx context.Context, deliveries ...<-chan error) error {
	var errs []error
	ended := ctx.Done()
	var late <-chan time.Time
	for len(errs) < len(deliveries) {
		select {
		case err := <-deliveries[len(errs)]:
			errs = append(errs, err)
		case <-ended:
			ended, late = nil, time.After(drainGrace)
		case <-late:
			return context.Cause(ctx)
		}
	}
	return errors.Join(errs...)
}

// abandon gives a command up. The end of its control stream kills it; what the
// guest says after that is not waited for.
func abandon(s []*yamux.Stream) {
	for _, stream := range s {
		_ = stream.Close()
		_ = stream.SetDeadline(past)
	}
}

// past is a deadline that interrupts whatever waits.
var past = time.Unix(1, 0)

// steer sends signals and sizes on while the command runs.
func steer(control io.Writer, cmd Command, ended <-chan struct{}) {
	for {
		var r request
		select {
		case <-ended:
			return
		case sig, ok := <-cmd.Signals:
			n, isNumber := sig.(syscall.Signal)
			if !ok {
				cmd.Signals = nil
			}
			if !ok || !isNumber {
				continue
			}
			r.Signal = int(n)
		case size, ok := <-cmd.Resizes:
			if !ok {
				cmd.Resizes = nil
				continue
			}
			r.Resize = &size
		}
		if writeFrame(control, r) != nil {
			return
		}
	}
}

// drain copies to the end. Where the reader of the output has gone, the rest is
// dropped, so that the command does not hang.
func drain(w io.Writer, r io.Reader) error {
	_, err := io.Copy(w, r)
	_, _ = io.Copy(io.Discard, r)
	return err
}

// printable keeps what a guest says from steering the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
}
