package user

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// A publishedUDP is a UDP port of the guest's, on the host.
type publishedUDP struct {
	link *Link
	conn *net.UDPConn
	port uint16

	mu    sync.Mutex
	peers map[netip.AddrPort]*peer
}

// A peer is one of the host's that sends there. To the guest it is a port of the
// gateway's.
type peer struct {
	socket
	ctx  context.Context // ends when nothing has passed for a while
	end  context.CancelFunc
	idle *time.Timer
}

func (u *publishedUDP) serve() {
	defer u.conn.Close()                                                                      //nolint:errcheck // nothing is buffered
	defer context.AfterFunc(u.link.ctx, func() { u.conn.SetReadDeadline(time.Unix(1, 0)) })() //nolint:errcheck // closed is as good
	buf := make([]byte, 1<<16)
	for {
		n, from, err := u.conn.ReadFromUDPAddrPort(buf)
		if u.link.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // a peer that does not listen any more
		}
		p, err := u.peer(from)
		if err != nil {
			u.link.log.Debug("user network: a UDP flow to the guest fails", "port", u.port, "error", err)
			continue
		}
		p.idle.Reset(u.link.cfg.idleUDP)
		p.sendTo(buf[:n]) //nolint:errcheck // lost, as datagrams are
	}
}

// peer finds the peer at an address, or makes it.
func (u *publishedUDP) peer(from netip.AddrPort) (*peer, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if p := u.peers[from]; p != nil && p.ctx.Err() == nil {
		return p, nil
	}
	s, err := u.link.guestUDP(u.port)
	if err != nil {
		return nil, err
	}
	p := &peer{socket: s}
	p.ctx, p.end = context.WithCancel(u.link.ctx)
	p.idle = time.AfterFunc(u.link.cfg.idleUDP, p.end)
	if !u.link.tasks.run(func() { u.replies(p, from) }) {
		p.end()
		p.ep.Close()
		u.link.udpSlots.release()
		return nil, net.ErrClosed
	}
	u.peers[from] = p
	return p, nil
}

// replies carries the guest's datagrams back to a peer until the flow has been idle
// for long enough, and forgets the peer.
func (u *publishedUDP) replies(p *peer, to netip.AddrPort) {
	defer u.link.udpSlots.release()
	p.receive(p.ctx.Done(), func(b []byte, _ tcpip.FullAddress) error { //nolint:errcheck // the flow ends, whatever it was
		p.idle.Reset(u.link.cfg.idleUDP)
		u.conn.WriteToUDPAddrPort(b, to) //nolint:errcheck // lost, as datagrams are
		return nil
	})
	p.end()
	p.idle.Stop()
	u.mu.Lock()
	if u.peers[to] == p {
		delete(u.peers, to)
	}
	u.mu.Unlock()
	p.ep.Close()
}

var errTooMany = errors.New("too many UDP flows")

// guestUDP makes a UDP socket of the gateway's that is connected to the guest, and
// takes a slot for it.
func (l *Link) guestUDP(port uint16) (socket, error) {
	if !l.udpSlots.take() {
		return socket{}, errTooMany
	}
	g := socket{wq: new(waiter.Queue)}
	ep, err := l.stack.NewEndpoint(udp.ProtocolNumber, ipv4.ProtocolNumber, g.wq)
	if err != nil {
		l.udpSlots.release()
		return g, errGuest{err}
	}
	g.ep = ep
	if err = ep.Bind(tcpip.FullAddress{NIC: nic, Addr: address(l.addrs.gateway)}); err == nil {
		err = ep.Connect(tcpip.FullAddress{NIC: nic, Addr: address(l.addrs.guest), Port: port})
	}
	if err != nil {
		l.udpSlots.release()
		ep.Close()
		return g, errGuest{err}
	}
	return g, nil
}
