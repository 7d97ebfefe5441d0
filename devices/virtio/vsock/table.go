package vsock

import (
	"context"
	"fmt"
	"log/slog"
	"net"
)

const (
	// wideWindow is the credit of a connection, in bytes, as long as there are not
	// more than maxWide; window that of the others. So 2,048 connections whose
	// readers sleep hold less than 64 MiB.
	wideWindow = 256 << 10
	window     = 16 << 10
	maxWide    = 64

	// firstPort is where the host's own ports begin, as in Firecracker: above
	// those that programs choose for themselves.
	firstPort = 1 << 30

	// maxResets bounds the RSTs that wait for the guest to take them.
	maxResets = 4096
)

// A key is what tells connections apart: the ports of both ends.
type key struct{ guest, host uint32 }

// A reset is a RST that is due.
type reset struct {
	key
	cid uint64 // that the guest wrote to
	typ uint16
}

func (t *table) init() {
	t.conns, t.listeners = map[key]*Conn{}, map[uint32]*listener{}
	t.nextPort = firstPort
	t.wake = make(chan struct{}, 1)
	t.log = slog.New(slog.DiscardHandler)
	t.wideBlocks.New, t.narrowBlocks.New = blocks(wideWindow/4), blocks(chunkSize)
	t.ctx, t.cancel = context.WithCancel(context.Background())
}

// close refuses everything from now on. It tells whether it was the first.
func (t *table) close() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	first := !t.closed
	t.closed = true
	t.cancel()
	for _, l := range t.listeners {
		close(l.done)
	}
	clear(t.listeners)
	return first
}

// spawn runs f in a goroutine that Close waits for. After Close it does not.
func (t *table) spawn(f func()) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.running.Go(f)
	return true
}

// driverHere lets connections begin. What they send waits for Serve.
func (t *table) driverHere() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.live = true
}

// driverGone drops all connections: the guest knows nothing of them any more.
func (t *table) driverGone() {
	t.mu.Lock()
	t.live = false
	t.mu.Unlock()
	t.dropAll(fmt.Errorf("%w: the guest's driver ended", ErrReset), false)
	t.mu.Lock()
	t.resets = nil
	t.mu.Unlock()
}

// dropAll ends all connections.
func (t *table) dropAll(err error, tell bool) {
	t.mu.Lock()
	all := make([]*Conn, 0, len(t.conns))
	for _, c := range t.conns {
		all = append(all, c)
	}
	t.mu.Unlock()
	for _, c := range all {
		c.mu.Lock()
		c.finish(err, tell)
		c.mu.Unlock()
	}
}

func (t *table) find(k key) *Conn {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.conns[k]
}

// add makes a connection of d. If k.host is 0, it gets a port of its own.
func (t *table) add(d *Device, k key, s state) (*Conn, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.closed:
		return nil, fmt.Errorf("vsock: %w", net.ErrClosed)
	case !t.live:
		return nil, ErrNotReady
	case t.held >= d.c.MaxConns:
		return nil, fmt.Errorf("%w: there are %d", ErrLimit, t.held)
	}
	if k.host == 0 {
		// It ends, as there are fewer connections than ports.
		for taken := true; taken; _, taken = t.conns[k] {
			k.host = t.nextPort
			if t.nextPort++; t.nextPort == 1<<32-1 {
				t.nextPort = firstPort
			}
		}
	}
	c := &Conn{d: d, key: k, window: window, flow: flow{state: s}}
	if t.wide < maxWide {
		t.wide++
		c.window = wideWindow
	}
	c.canRead.L, c.canWrite.L = &c.mu, &c.mu
	t.held++
	t.conns[k] = c
	return c, nil
}

// remove takes a connection out: the guest knows nothing of it any more, or is
// told so.
func (t *table) remove(c *Conn, tell bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.conns, c.key)
	t.ready.remove(c)
	if tell {
		t.addReset(reset{c.key, hostCID, typeStream})
	}
}

// release gives back what a connection held, when both sides are done.
func (t *table) release(c *Conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.held--
	if c.window == wideWindow {
		t.wide--
	}
}

// reset has a RST sent.
func (t *table) reset(r reset) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.addReset(r)
}

// addReset drops the RST if the guest has not taken many others: to wait would
// hold up its other connections.
func (t *table) addReset(r reset) {
	if t.live && len(t.resets) < maxResets {
		t.resets = append(t.resets, r)
		t.wakeSender()
	}
}

// enqueue puts a connection at the end of the line.
func (t *table) enqueue(c *Conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	// A connection that ended meanwhile is not in the table any more.
	if t.conns[c.key] == c {
		t.ready.add(c)
		t.wakeSender()
	}
}

func (t *table) wakeSender() {
	select {
	case t.wake <- struct{}{}:
	default: // it is being woken
	}
}

// work tells whether anything is due to the guest.
func (t *table) work() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.ready.first != nil || len(t.resets) > 0
}

func (t *table) nextReset() (r reset, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.resets) == 0 {
		return r, false
	}
	r = t.resets[0]
	if t.resets = t.resets[1:]; len(t.resets) == 0 {
		t.resets = nil
	}
	return r, true
}

// nextReady takes the connection at the front of the line, nil if there is none.
func (t *table) nextReady() *Conn {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.ready.first
	if c != nil {
		t.ready.remove(c)
	}
	return c
}

// A line is a list of connections, linked through them.
type line struct{ first, last *Conn }

func (l *line) add(c *Conn) {
	if c.queued {
		return
	}
	c.queued, c.prev, c.next = true, l.last, nil
	if l.last != nil {
		l.last.next = c
	} else {
		l.first = c
	}
	l.last = c
}

func (l *line) remove(c *Conn) {
	if !c.queued {
		return
	}
	if c.prev != nil {
		c.prev.next = c.next
	} else {
		l.first = c.next
	}
	if c.next != nil {
		c.next.prev = c.prev
	} else {
		l.last = c.prev
	}
	c.queued, c.prev, c.next = false, nil, nil
}

func (t *table) setGuestLog(log *slog.Logger) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.log = log
}

// guestLog is for what the guest can cause.
func (t *table) guestLog() *slog.Logger {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.log
}
