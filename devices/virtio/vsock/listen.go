package vsock

import (
	"context"
	"fmt"
	"net"
	"sync"
)

// backlog bounds the connections that wait for a listener's Accept.
const backlog = 128

// Dial connects to a port of the guest. It fails with ErrRefused if nobody listens
// there, with ErrNotReady before the guest's driver has started, and with the
// error of ctx when that ends first. The connection is a *Conn.
func (d *Device) Dial(ctx context.Context, port uint32) (net.Conn, error) {
	c, err := d.dial(ctx, port)
	if err != nil {
		return nil, fmt.Errorf("connecting to port %d of the guest: %w", port, err)
	}
	return c, nil
}

func (d *Device) dial(ctx context.Context, port uint32) (*Conn, error) {
	c, err := d.add(d, key{guest: port}, connecting)
	if err != nil {
		return nil, err
	}
	defer context.AfterFunc(ctx, c.look)()
	c.mu.Lock()
	c.todo |= dueRequest
	c.schedule()
	for c.state == connecting && ctx.Err() == nil {
		c.canWrite.Wait()
	}
	s, err := c.state, c.err
	c.mu.Unlock()
	switch {
	case s == connecting:
		err = ctx.Err()
	case s == gone && err == nil: // it was accepted, and closed at once
		return c, nil
	case s == established:
		return c, nil
	}
	_ = c.Close()
	return nil, err
}

// Listen has the host's port answered by this process. Connections are *Conn. It
// fails with ErrConfig if the port is listened to already. A listener goes before
// the Unix socket for the same port.
func (d *Device) Listen(port uint32) (net.Listener, error) {
	l := &listener{d: d, port: port, conns: make(chan *Conn, backlog), done: make(chan struct{})}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, errClosed
	}
	if d.listeners[port] != nil {
		return nil, fmt.Errorf("%w: port %d is listened to already", ErrConfig, port)
	}
	d.listeners[port] = l
	return l, nil
}

// offer gives c to who listens to its port, if anybody does, and there is room.
func (d *Device) offer(c *Conn) (listened, accepted bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	l := d.listeners[c.key.host]
	if l == nil {
		return false, false
	}
	select {
	case l.conns <- c:
		return true, true
	default:
		return true, false
	}
}

type listener struct {
	d     *Device
	port  uint32
	conns chan *Conn
	done  chan struct{} // closed when nothing more comes to conns
	once  sync.Once
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case <-l.done:
		return nil, errClosed
	default:
	}
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, errClosed
	}
}

// Close implements net.Listener. What was not accepted is reset.
func (l *listener) Close() error {
	err := errClosed
	l.once.Do(func() {
		err = nil
		l.d.mu.Lock()
		if l.d.listeners[l.port] == l {
			delete(l.d.listeners, l.port)
			close(l.done)
		}
		l.d.mu.Unlock()
		for {
			select {
			case c := <-l.conns:
				c.abort()
				_ = c.Close()
			default:
				return
			}
		}
	})
	return err
}

// Addr implements net.Listener.
func (l *listener) Addr() net.Addr { return Addr{hostCID, l.port} }
