package user

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/huskvm/husk/devices/netdev"
)

// publish listens on the host for a port of the guest's. To the guest, connections
// come from the gateway.
func (l *Link) publish(p netdev.Publish) error {
	var serve func()
	var local net.Addr
	// To Go, 0.0.0.0 is every address of version 6, too, unless told otherwise.
	version := ""
	if p.Host.Addr().Is4() {
		version = "4"
	}
	switch p.Proto {
	case "tcp":
		listener, err := net.ListenTCP("tcp"+version, net.TCPAddrFromAddrPort(p.Host))
		if err != nil {
			return err
		}
		local, serve = listener.Addr(), func() { l.servePublishedTCP(listener, p.Guest) }
	case "udp":
		conn, err := net.ListenUDP("udp"+version, net.UDPAddrFromAddrPort(p.Host))
		if err != nil {
			return err
		}
		u := &publishedUDP{link: l, conn: conn, port: p.Guest, peers: map[netip.AddrPort]*peer{}}
		local, serve = conn.LocalAddr(), u.serve
	default:
		return fmt.Errorf("%q is not a protocol", p.Proto)
	}
	p.Host = netip.AddrPortFrom(p.Host.Addr(), netip.MustParseAddrPort(local.String()).Port())
	l.published = append(l.published, p)
	l.tasks.run(serve)
	return nil
}

func (l *Link) servePublishedTCP(listener *net.TCPListener, port uint16) {
	defer context.AfterFunc(l.ctx, func() { listener.Close() })() //nolint:errcheck // it has no data
	for {
		host, err := listener.AcceptTCP()
		if err != nil {
			if l.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			// Out of descriptors, most likely: others may free some.
			l.log.Warn("user network: cannot accept", "port", port, "error", err)
			select {
			case <-time.After(time.Second):
			case <-l.ctx.Done():
			}
			continue
		}
		if !l.tcpSlots.take() {
			reset(host)
			continue
		}
		ran := l.tasks.run(func() {
			defer l.tcpSlots.release()
			g, err := l.connectGuest(port)
			if err != nil {
				l.log.Debug("user network: the guest does not take a connection", "port", port, "error", err)
				reset(host)
				return
			}
			l.relay(g, host)
		})
		if !ran {
			l.tcpSlots.release()
			reset(host)
		}
	}
}

// connectGuest makes a TCP connection to the guest.
func (l *Link) connectGuest(port uint16) (socket, error) {
	g := socket{wq: new(waiter.Queue)}
	ep, err := l.stack.NewEndpoint(tcp.ProtocolNumber, ipv4.ProtocolNumber, g.wq)
	if err != nil {
		return g, errGuest{err}
	}
	g.ep = ep
	entry, ready := waiter.NewChannelEntry(waiter.WritableEvents | waiter.EventHUp | waiter.EventErr)
	g.wq.EventRegister(&entry)
	defer g.wq.EventUnregister(&entry)
	err = ep.Bind(tcpip.FullAddress{NIC: nic, Addr: address(l.addrs.gateway)})
	if err == nil {
		err = ep.Connect(tcpip.FullAddress{NIC: nic, Addr: address(l.addrs.guest), Port: port})
	}
	if _, started := err.(*tcpip.ErrConnectStarted); started {
		ctx, cancel := context.WithTimeout(l.ctx, dialTimeout)
		defer cancel()
		select {
		case <-ready:
			err = ep.LastError()
		case <-ctx.Done():
			ep.Abort()
			ep.Close()
			return g, ctx.Err()
		}
	}
	if err != nil {
		ep.Close()
		return g, errGuest{err}
	}
	return g, nil
}
