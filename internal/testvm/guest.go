package testvm

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/huskvm/husk/internal/agent"
	"github.com/huskvm/husk/internal/guestinit/spec"
	"github.com/huskvm/husk/internal/smoke/console"
	"github.com/huskvm/husk/vmm"
)

// ErrNoAgent is that commands were asked for in a guest that was made without.
var ErrNoAgent = errors.New("the guest was started without husk's process in it, which runs commands")

// An Ended error says that the guest has ended, and how.
type Ended struct {
	Result *vmm.Result // nil where husk itself failed
	Err    error       // why, then
}

func (e *Ended) Error() string {
	switch {
	case e.Err != nil:
		return fmt.Sprintf("the machine failed: %v", e.Err)
	case e.Result.Outcome == vmm.Cancelled:
		return "the guest was ended: " + e.Result.Detail
	}
	return fmt.Sprintf("the guest has ended: %v", e.Result)
}

func (e *Ended) Unwrap() error { return e.Err }

// A machine is what a guest runs on; *vmm.VM is one.
type machine interface {
	Run(ctx context.Context) (*vmm.Result, error)
	ListenVsock(port uint32) (net.Listener, error)
	Close() error
}

// A Guest is a machine that runs. Its methods can be called from any goroutine.
type Guest struct {
	vm      *vmm.VM // nil in tests
	machine machine
	console *console.Transcript
	keys    *os.File // what is written here is typed
	noAgent bool
	trouble *trouble

	life  context.Context // ends when the machine does; its cause is an Ended
	over  context.CancelCauseFunc
	stop  context.CancelCauseFunc // ends the machine
	work  sync.WaitGroup
	ended *Ended // once life has ended

	expecting chan struct{} // has room for the one that uses cursor
	cursor    *console.Cursor

	calls   *agent.Calls // nil without an agent
	closing sync.Once
	failed  error // of Close
}

// Start boots the machine and returns at once. The end of ctx ends the guest, and its
// cause is why.
func Start(ctx context.Context, b Blueprint) (_ *Guest, err error) {
	cfg, files, err := b.config()
	if err != nil {
		return nil, err
	}
	defer files.close() // New has read them
	g := newGuest(b.NoAgent, b.AllowPanic)
	in, keys, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("pipe: %w", err)
	}
	g.keys = keys
	start := time.Now()
	cfg.Serial = &vmm.Serial{In: in, Out: writer(func(p []byte) { g.console.Add(time.Since(start), p) })}
	vm, err := vmm.New(cfg)
	if err != nil {
		_, _ = in.Close(), keys.Close()
		return nil, err
	}
	g.vm = vm
	if err := g.start(ctx, vm, in); err != nil {
		_, _, _ = in.Close(), keys.Close(), vm.Close()
		return nil, err
	}
	return g, nil
}

func newGuest(noAgent, allowPanic bool) *Guest {
	g := &Guest{console: console.New(), noAgent: noAgent, expecting: make(chan struct{}, 1)}
	g.cursor = g.console.Cursor()
	end := func(why error) { g.stop(why) }
	if allowPanic {
		end = nil
	}
	g.trouble = newTrouble(end)
	g.console.Watch(g.trouble.line)
	return g
}

// start runs a machine.
func (g *Guest) start(ctx context.Context, m machine, in *os.File) error {
	g.machine = m
	ctx, g.stop = context.WithCancelCause(ctx)
	if !g.noAgent {
		l, err := m.ListenVsock(spec.GuestPort)
		if err != nil {
			return err
		}
		g.calls = agent.Answer(l)
	}
	g.life, g.over = context.WithCancelCause(context.WithoutCancel(ctx))
	g.work.Go(func() {
		result, err := m.Run(ctx)
		g.console.Close()
		g.trouble.stop()
		g.ended = &Ended{Result: blamed(result, context.Cause(ctx)), Err: err}
		g.over(g.ended)
		_ = in.Close()
		if g.calls != nil {
			g.calls.Close()
		}
	})
	return nil
}

// Agent waits until the guest runs commands.
func (g *Guest) Agent(ctx context.Context) (*agent.Client, error) {
	if g.noAgent {
		return nil, ErrNoAgent
	}
	bound, cancel := g.bound(ctx)
	defer cancel()
	client, err := g.calls.Client(bound)
	return client, g.unready(ctx, err)
}

// unready says of an error of waiting for the agent what it means. The end of ctx, the
// caller's, is the reason also where it is the guest's.
func (g *Guest) unready(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("the guest does not run commands yet: %w", context.Cause(ctx))
	case g.life.Err() != nil, errors.Is(err, agent.ErrHungUp):
		return context.Cause(g.life)
	}
	return err
}

// With calls f with the guest's agent, once that is there, and a context that ends
// with ctx or with the guest. An error that the guest's end has led to says that end.
func (g *Guest) With(ctx context.Context, f func(context.Context, *agent.Client) error) error {
	if g.noAgent {
		return ErrNoAgent
	}
	bound, cancel := g.bound(ctx)
	defer cancel()
	var client *agent.Client
	err := g.calls.With(bound, g.life.Done(), func(c *agent.Client) error {
		client = c
		return f(bound, c)
	})
	switch {
	case client == nil:
		return g.unready(ctx, err)
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case client.Lost():
		g.awaitEnd(ctx)
	}
	if g.life.Err() != nil {
		return context.Cause(g.life)
	}
	return err
}

// endTime is how long a guest may take to end once its connection is lost.
const endTime = 2 * time.Second

// awaitEnd waits for the end that the loss of the connection is a sign of.
func (g *Guest) awaitEnd(ctx context.Context) {
	select {
	case <-g.life.Done():
	case <-ctx.Done():
	case <-time.After(endTime):
	}
}

// bound is a context that also ends with the guest.
func (g *Guest) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(g.life, func() { cancel(context.Cause(g.life)) })
	return ctx, func() {
		stop()
		cancel(nil)
	}
}

// VM is the machine.
func (g *Guest) VM() *vmm.VM { return g.vm }

// Console is what the guest says.
func (g *Guest) Console() *console.Transcript { return g.console }

// Send types text on the serial port. It returns when the machine has it, which the
// guest may not have yet.
func (g *Guest) Send(ctx context.Context, text string) error {
	ctx, cancel := g.bound(ctx)
	defer cancel()
	if g.life.Err() != nil {
		return context.Cause(g.life)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	stop := context.AfterFunc(ctx, func() { _ = g.keys.SetWriteDeadline(time.Unix(1, 0)) })
	_, err := g.keys.WriteString(text)
	if !stop() {
		_ = g.keys.SetWriteDeadline(time.Time{})
		return context.Cause(ctx)
	}
	if err != nil && g.life.Err() != nil {
		return context.Cause(g.life)
	}
	return err
}

// PowerOff asks the guest to power off: husk's process in it, or without one, by the
// power button.
func (g *Guest) PowerOff(ctx context.Context) error {
	if g.noAgent {
		g.vm.PowerButton()
		return nil
	}
	err := g.With(ctx, func(ctx context.Context, client *agent.Client) error { return client.PowerOff(ctx) })
	if ended := new(Ended); errors.As(err, &ended) {
		return nil // how, Wait says
	}
	return err
}

// Done is closed when the guest has ended.
func (g *Guest) Done() <-chan struct{} { return g.life.Done() }

// Wait waits for the guest's end and says how it ended.
func (g *Guest) Wait(ctx context.Context) (*vmm.Result, error) {
	select {
	case <-g.life.Done():
		return g.ended.Result, g.ended.Err
	case <-ctx.Done():
		return nil, fmt.Errorf("the guest has not ended: %w", context.Cause(ctx))
	}
}

// errClosed is why a guest was ended that was closed.
var errClosed = errors.New("it is not needed any more")

// Close ends the guest, if it runs, and gives back all that it took. A second time it
// does nothing.
func (g *Guest) Close() error {
	g.closing.Do(func() {
		g.stop(errClosed)
		g.work.Wait()
		_ = g.keys.Close()
		g.failed = errors.Join(g.ended.Err, g.machine.Close())
	})
	return g.failed
}

// writer makes a function a Writer.
type writer func(p []byte)

func (w writer) Write(p []byte) (int, error) {
	w(p)
	return len(p), nil
}
