package dhcp

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNoAnswer is that no server has given an address.
var ErrNoAnswer = errors.New("no DHCP server has given an address")

// A Client asks for one card's address.
type Client struct {
	Conn net.PacketConn   // of port 68, on the card; see Listen
	HW   net.HardwareAddr // the card's, of 6 bytes
	Host string           // the name to give to the server; "" for none
}

// Listen opens a card's socket for a client. The card is up, and needs no address.
func Listen(card string) (net.PacketConn, error) {
	listen := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		cerr := c.Control(func(fd uintptr) {
			err = unix.BindToDevice(int(fd), card)
		})
		return errors.Join(cerr, os.NewSyscallError("setsockopt", err))
	}}
	return listen.ListenPacket(context.Background(), "udp4", fmt.Sprint(":", ClientPort))
}

// everyone is where questions go when the server is not known, or silent.
var everyone = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// firstWait is how long the first answer is waited for; each time twice as long
// (RFC 2131 §4.1), up to lastWait.
const (
	firstWait = time.Second
	lastWait  = 16 * time.Second
)

// Ask asks for an address until there is one, or ctx ends: ErrNoAnswer.
func (c *Client) Ask(ctx context.Context) (Lease, error) {
	stop := context.AfterFunc(ctx, func() { _ = c.Conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	for wait := firstWait; ; wait = min(2*wait, lastWait) {
		until := time.Now().Add(wait)
		l, err := c.handshake(ctx, until)
		switch {
		case err == nil:
			return l, nil
		case ctx.Err() != nil:
			return l, fmt.Errorf("%w: %w", ErrNoAnswer, context.Cause(ctx))
		case errors.Is(err, net.ErrClosed):
			return l, err
		}
		// A server that says no is asked anew, but not at once.
		select {
		case <-ctx.Done():
		case <-time.After(time.Until(until)):
		}
	}
}

var errNak = errors.New("the server takes the address back")

// handshake asks once who gives an address, and for the first that is offered.
func (c *Client) handshake(ctx context.Context, until time.Time) (Lease, error) {
	q := question{kind: discover, xid: newXID(), hw: c.HW, host: c.Host}
	offered, err := c.exchange(ctx, &q, everyone, until)
	if err != nil {
		return Lease{}, err
	}
	q.kind, q.requested, q.server = request, offered.Address.Addr(), offered.Server
	return c.exchange(ctx, &q, everyone, until)
}

// exchange sends a question and gives the lease in its answer.
func (c *Client) exchange(ctx context.Context, q *question, to netip.Addr, until time.Time) (Lease, error) {
	want := byte(ack)
	if q.kind == discover {
		want = offer
	}
	if err := c.Conn.SetReadDeadline(until); err != nil {
		return Lease{}, err
	}
	if ctx.Err() != nil { // it has set its own
		return Lease{}, ctx.Err()
	}
	if _, err := c.Conn.WriteTo(q.bytes(), net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, ServerPort))); err != nil {
		return Lease{}, err
	}
	b := make([]byte, 1<<16)
	for {
		n, _, err := c.Conn.ReadFrom(b)
		if err != nil {
			return Lease{}, err
		}
		r, err := parse(b[:n], q.xid, c.HW)
		switch {
		case err != nil: // another's
		case r.kind == want:
			return r.lease, nil
		case r.kind == nak && want == ack:
			return Lease{}, errNak
		}
	}
}

// newXID is the number of a conversation.
func newXID() uint32 {
	var b [4]byte
	_, _ = rand.Read(b[:]) // it does not fail
	return binary.BigEndian.Uint32(b[:])
}

// Keep renews a lease until ctx ends. changed is called with each new one that differs
// from the last; with the zero Lease where the address is not to be used any more,
// for then Keep asks for another.
func (c *Client) Keep(ctx context.Context, l Lease, changed func(Lease)) {
	for ctx.Err() == nil {
		next, err := c.renew(ctx, l)
		if err != nil {
			if ctx.Err() != nil {
				return
			}
			changed(Lease{})
			if next, err = c.Ask(ctx); err != nil {
				return
			}
			changed(next)
		} else if !next.sameAs(l) {
			changed(next)
		}
		l = next
	}
}

// sameAs tells whether a card is configured alike by both.
func (l Lease) sameAs(o Lease) bool {
	return l.Address == o.Address && l.MTU == o.MTU && l.Domain == o.Domain &&
		fmt.Sprint(l.Routes, l.DNS) == fmt.Sprint(o.Routes, o.DNS)
}

// leastWait is between questions for a renewal: RFC 2131 §4.4.5.
const leastWait = time.Minute

// renew waits until a lease is to be renewed, and does it: by its server, later by
// any. It fails when the lease has ended.
func (c *Client) renew(ctx context.Context, l Lease) (Lease, error) {
	stop := context.AfterFunc(ctx, func() { _ = c.Conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	began := time.Now()
	at := l.T1
	for {
		select {
		case <-ctx.Done():
			return l, ctx.Err()
		case <-time.After(time.Until(began.Add(at))):
		}
		since := time.Since(began)
		if since >= l.Time {
			return l, ErrNoAnswer
		}
		to, end := l.Server, l.T2
		if since >= l.T2 {
			to, end = everyone, l.Time
		}
		at = min(since+max((end-since)/2, leastWait), max(end, since+time.Second))
		q := question{kind: request, xid: newXID(), hw: c.HW, host: c.Host, client: l.Address.Addr()}
		next, err := c.exchange(ctx, &q, to, time.Now().Add(min(lastWait, time.Until(began.Add(at)))))
		if err == nil || errors.Is(err, errNak) {
			return next, err
		}
	}
}
