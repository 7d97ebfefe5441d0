package vsock

import (
	"fmt"

	"github.com/huskvm/husk/devices/virtio/queue"
)

// A state is how far a connection is.
type state int

const (
	connecting  state = iota // the host asks; the guest has not answered
	requested                // the guest asks; the host has not answered
	established              // until both sides have said SHUTDOWN, and one RST
	gone                     // the guest knows nothing of it, or will be told RST
)

// A due is a set of packets to send that carry no data.
type due uint8

const (
	dueRequest due = 1 << iota
	dueResponse
	dueShutdown
	dueCreditUpdate
	dueCreditRequest
)

// flow is the protocol's part of a Conn, under its lock. The counters run
// freely, as in §5.10.6.3.
type flow struct {
	state state
	err   error // why it is gone; nil if in good order
	todo  due

	// From the guest.
	in        fifo
	fwd       uint32 // fwd_cnt: bytes that the host took
	told      uint32 // fwd_cnt as the guest knows it
	guestShut uint32 // flags of its SHUTDOWN

	// To the guest.
	out       []byte // what a Write waits to have sent
	sent      uint32 // tx_cnt
	guestFwd  uint32
	guestRoom uint32 // its buf_alloc
	asked     bool   // CREDIT_REQUEST was sent since there was credit
	shut      uint32 // flags of our SHUTDOWN
}

// credit is how many bytes the guest has room for. A guest whose counters cannot
// be gets nothing.
func (c *Conn) credit() int {
	if flying := c.sent - c.guestFwd; flying < c.guestRoom {
		return int(c.guestRoom - flying)
	}
	return 0
}

// askForCredit asks once for news when there is no credit.
func (c *Conn) askForCredit() {
	if c.state != established || c.credit() > 0 {
		c.asked = false
	} else if !c.asked {
		c.asked = true
		c.todo |= dueCreditRequest
	}
}

// hasData tells whether data can be sent.
func (c *Conn) hasData() bool {
	return len(c.out) > 0 && c.state == established && c.shut&shutSend == 0 && c.guestShut&shutReceive == 0 && c.credit() > 0
}

// schedule puts the connection in line if it has something to send.
func (c *Conn) schedule() {
	if c.todo != 0 || c.hasData() {
		c.d.enqueue(c)
	}
}

// consumed says that the host took n bytes. The guest is told when that is worth
// a packet.
func (c *Conn) consumed(n int) {
	c.fwd += uint32(n)
	if c.state == established && c.guestShut&shutSend == 0 && c.fwd-c.told >= uint32(c.window/4) {
		c.todo |= dueCreditUpdate
		c.schedule()
	}
}

// finish ends the connection on the guest's side. An error is one that the host
// gets, and breaks what it is doing; without, it can read what came before. tell
// has the guest told, by RST.
func (c *Conn) finish(err error, tell bool) {
	if c.state == gone {
		return
	}
	c.state, c.err, c.todo = gone, err, 0
	c.d.remove(c, tell)
	if c.lingerTimer != nil {
		c.lingerTimer.Stop()
	}
	if c.watch != nil && err != nil {
		c.watch.broken()
	} else if c.watch != nil {
		c.watch.deaf()
	}
	c.broadcast()
	if c.closed {
		c.d.release(c)
	}
}

// establish says yes to the guest's request.
func (c *Conn) establish() {
	if c.state == requested {
		c.state = established
		c.todo |= dueResponse
		c.schedule()
		c.broadcast()
	}
}

// packet deals with a packet of this connection that the guest sent; payload
// holds its data. The error is why the connection was reset, if it broke the
// rules.
func (c *Conn) packet(h *header, payload *queue.Chain) error {
	if c.state == gone { // it ended while the packet was looked at
		if h.op != opRST {
			c.d.reset(reset{c.key, hostCID, typeStream})
		}
		return nil
	}
	c.guestRoom, c.guestFwd = h.bufAlloc, h.fwdCnt
	if c.closed {
		c.lingerTimer.Reset(c.d.times.linger)
	}
	err := c.operate(h, payload)
	if err != nil {
		c.finish(fmt.Errorf("%w: the guest broke the rules: %w", ErrReset, err), true)
		return err
	}
	if c.credit() > 0 {
		c.canWrite.Broadcast()
	}
	if len(c.out) > 0 {
		c.askForCredit() // the guest may have taken some away
	}
	c.schedule()
	return nil
}

func (c *Conn) operate(h *header, payload *queue.Chain) error {
	switch {
	case h.op == opRST:
		c.resetByGuest()
	case c.state == connecting && h.op == opResponse:
		c.state = established
		c.broadcast()
	case c.state == requested && (h.op == opCreditUpdate || h.op == opCreditRequest):
		// A guest that changes its mind about its room; the answer tells of ours.
	case c.state != established || h.op == opRequest || h.op == opResponse:
		return fmt.Errorf("operation %d at this time", h.op)
	case h.op == opShutdown:
		c.shutDownByGuest(h.flags & shutBoth)
	case h.op == opRW:
		return c.take(int(h.length), payload)
	case h.op == opCreditRequest:
		c.todo |= dueCreditUpdate
	}
	return nil
}

// resetByGuest takes a RST. It is the good end of a connection that nothing more
// was to come of.
func (c *Conn) resetByGuest() {
	switch {
	case c.state == connecting:
		c.finish(ErrRefused, false)
	case c.shut == shutBoth || c.guestShut&shutSend != 0:
		c.finish(nil, false)
	default:
		c.finish(fmt.Errorf("%w by the guest", ErrReset), false)
	}
}

// shutDownByGuest takes a SHUTDOWN. What was said stays so (§5.10.6.5). With both
// directions shut, RST confirms; what came before waits for the host.
func (c *Conn) shutDownByGuest(flags uint32) {
	c.guestShut |= flags
	if c.guestShut == shutBoth {
		c.finish(nil, true)
		return
	}
	if flags&shutReceive != 0 && c.watch != nil {
		c.watch.deaf()
	}
	c.broadcast()
}

// take takes n bytes. A guest that sends more than it has credit for, or after it
// said that it would not, breaks the rules.
func (c *Conn) take(n int, payload *queue.Chain) error {
	switch {
	case c.guestShut&shutSend != 0:
		return fmt.Errorf("%d bytes after SHUTDOWN", n)
	case n > c.window-c.in.n:
		return fmt.Errorf("%d bytes without credit: %d of %d are free", n, c.window-c.in.n, c.window)
	case c.shut&shutReceive != 0: // it did not know yet
		c.consumed(n)
		return nil
	}
	c.in.fill(&c.d.chunks, payload, n)
	c.canRead.Broadcast()
	return nil
}
