package user

import (
	"encoding/binary"
	"net"
	"net/netip"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// lease is how long the guest has its address. It is nobody else's anyway.
const lease = 24 * time.Hour

// bind makes a UDP socket of the network's own.
func (l *Link) bind(at tcpip.FullAddress) (socket, error) {
	s := socket{wq: new(waiter.Queue)}
	ep, err := l.stack.NewEndpoint(udp.ProtocolNumber, ipv4.ProtocolNumber, s.wq)
	if err != nil {
		return s, errGuest{err}
	}
	s.ep = ep
	ep.SocketOptions().SetBroadcast(true)
	if err := ep.Bind(at); err != nil {
		ep.Close()
		return s, errGuest{err}
	}
	return s, nil
}

// serveDHCP answers the guest's DHCP client (RFC 2131).
func (l *Link) serveDHCP() error {
	s, err := l.bind(tcpip.FullAddress{NIC: nic, Port: dhcpServerPort})
	if err != nil {
		return err
	}
	l.tasks.run(func() {
		defer s.ep.Close()
		s.receive(l.ctx.Done(), func(p []byte, _ tcpip.FullAddress) error { //nolint:errcheck // it ends with the link
			m, err := parseDHCP(p)
			if err != nil {
				l.log.Debug("user network: DHCP", "error", err, "bytes", len(p))
				return nil
			}
			answer, to := l.answerDHCP(&m)
			if answer != nil {
				s.sendTo(answer, tcpip.FullAddress{NIC: nic, Addr: to, Port: dhcpClientPort}) //nolint:errcheck // the client asks again
			}
			return nil
		})
	})
	return nil
}

// answerDHCP returns the answer to a request, if it gets one, and where it goes:
// to a client that has no address yet by broadcast, which any client takes.
func (l *Link) answerDHCP(m *dhcpMessage) ([]byte, tcpip.Address) {
	to := header.IPv4Broadcast
	switch m.kind {
	case dhcpDiscover:
		return l.give(m.reply(dhcpOffer, l.addrs.guest), true), to
	case dhcpRequest:
		if m.server.IsValid() && m.server != l.addrs.gateway {
			return nil, to // it has chosen another server
		}
		wanted := m.requested // selecting or rebooting: §4.3.2
		if !wanted.IsValid() {
			wanted = m.client // renewing or rebinding
		}
		if wanted != l.addrs.guest {
			r := m.reply(dhcpNak, netip.Addr{})
			r.option(optServer, l.addrs.gateway.AsSlice())
			return r.bytes(), to
		}
		if m.client == l.addrs.guest {
			to = address(m.client)
		}
		return l.give(m.reply(dhcpAck, l.addrs.guest), true), to
	case dhcpInform: // it has its address from elsewhere
		if l.cfg.Net.Contains(m.client) && m.client != l.addrs.gateway && m.client != l.addrs.dns {
			return l.give(m.reply(dhcpAck, netip.Addr{}), false), address(m.client)
		}
	}
	return nil, to
}

// give completes an answer with what the guest should know of the network.
func (l *Link) give(r *dhcpReply, leased bool) []byte {
	r.option(optServer, l.addrs.gateway.AsSlice())
	if leased {
		r.option(optLease, binary.BigEndian.AppendUint32(nil, uint32(lease/time.Second)))
	}
	r.option(optMask, net.CIDRMask(l.cfg.Net.Bits(), 32))
	r.option(optRouter, l.addrs.gateway.AsSlice())
	r.option(optDNS, l.addrs.dns.AsSlice())
	r.option(optMTU, binary.BigEndian.AppendUint16(nil, uint16(l.cfg.MTU)))
	if name := l.cfg.HostName; name != "" && len(name) <= 63 {
		r.option(optHostName, []byte(name))
	}
	return r.bytes()
}
