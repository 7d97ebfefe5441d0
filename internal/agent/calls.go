package agent

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"
)

// ErrHungUp is that no more calls are taken.
var ErrHungUp = errors.New("the guest is not listened to any more")

// Calls takes the calls of a guest's agent, which calls its host: one, and another
// when that connection is lost, as by a reboot. The last one counts.
type Calls struct {
	listener net.Listener
	life     context.Context // ends with Close
	hangUp   context.CancelFunc
	work     sync.WaitGroup

	mu      sync.Mutex
	client  *Client
	only    bool          // there will be no other
	refused error         // by the last caller, ErrGuest with its reason
	changed chan struct{} // closed when one of the two is set
}

// Answer takes calls at l until Close, which closes l too.
func Answer(l net.Listener) *Calls {
	c := &Calls{listener: l, changed: make(chan struct{})}
	c.life, c.hangUp = context.WithCancel(context.Background())
	c.work.Go(c.answer)
	return c
}

func (c *Calls) answer() {
	callers := make(chan struct{}, maxCallers)
	for {
		conn, err := c.listener.Accept()
		if err != nil {
			return
		}
		select {
		case callers <- struct{}{}:
		default: // the agent calls again, when those that say nothing have gone
			_ = conn.Close()
			continue
		}
		c.work.Go(func() {
			defer func() { <-callers }()
			c.greet(conn)
		})
	}
}

// helloTime is how long a caller may take to say hello. Any program of the guest's can
// call.
const helloTime = 30 * time.Second

// maxCallers is how many may do so at the same time.
const maxCallers = 8

// greet makes a caller the one that counts, if it is an agent.
func (c *Calls) greet(conn net.Conn) {
	ctx, cancel := context.WithTimeout(c.life, helloTime)
	defer cancel()
	client, err := Connect(ctx, conn)
	if err != nil && !errors.Is(err, ErrGuest) {
		return // it calls again
	}
	c.mu.Lock()
	if c.only {
		c.mu.Unlock()
		if client != nil {
			_ = client.Close()
		}
		return
	}
	before := c.client
	c.client, c.refused = client, err
	close(c.changed)
	c.changed = make(chan struct{})
	c.mu.Unlock()
	if before != nil {
		_ = before.Close()
	}
}

// Client waits for the guest's call, and for the next one where the connection of the
// last is lost. Errors are ctx's cause, ErrHungUp, and ErrGuest from a guest that calls
// to say that it cannot serve.
func (c *Calls) Client(ctx context.Context) (*Client, error) {
	for {
		c.mu.Lock()
		client, refused, changed := c.client, c.refused, c.changed
		c.mu.Unlock()
		if refused != nil {
			return nil, refused
		}
		if client != nil && !client.Lost() {
			return client, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-c.life.Done():
			return nil, ErrHungUp
		}
	}
}

// Only takes no more calls: the client that is there stays the one that counts. Before a
// guest runs anything but its agent, nobody else can have called; later any of its users
// can, and could take the agent's place.
func (c *Calls) Only() {
	_ = c.listener.Close()
	c.mu.Lock()
	c.only = true
	c.mu.Unlock()
}

// lastWords is how long a guest may take to give up what it does.
const lastWords = 5 * time.Second

// With calls f with the guest's agent, once that is there. Where f does not return
// soon after ctx has ended, or ended is closed, the connection is closed under it: what
// waits to be sent to a guest that hangs would wait for ever.
func (c *Calls) With(ctx context.Context, ended <-chan struct{}, f func(*Client) error) error {
	client, err := c.Client(ctx)
	if err != nil {
		return err
	}
	done := make(chan struct{})
	defer close(done)
	defer context.AfterFunc(ctx, func() {
		select {
		case <-done:
			return
		case <-ended:
		case <-time.After(lastWords):
		}
		_ = client.Close()
	})()
	return f(client)
}

// Close takes no more calls and closes the connection.
func (c *Calls) Close() {
	c.hangUp()
	_ = c.listener.Close()
	c.work.Wait()
	c.mu.Lock()
	client := c.client
	c.mu.Unlock()
	if client != nil {
		_ = client.Close()
	}
}
