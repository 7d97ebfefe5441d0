package user

import (
	"context"
	"net"
	"net/netip"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
)

const (
	dnsPort = 53
	// dnsHeader is the size of a message's header in bytes (RFC 1035 §4.1.1).
	dnsHeader = 12
	// dnsTimeout is how long one resolver has; resolv.conf(5)'s default.
	dnsTimeout = 5 * time.Second
)

// serveDNS passes the guest's queries by UDP to the host's resolvers, of which those
// on its loopback are reached as well, this being a process of the host's. Messages
// go through as they are. TCP is dialTCP's.
func (l *Link) serveDNS() error {
	s, err := l.bind(tcpip.FullAddress{NIC: nic, Addr: address(l.addrs.dns), Port: dnsPort})
	if err != nil {
		return err
	}
	queries := make(slots, maxQueries)
	l.tasks.run(func() {
		defer s.ep.Close()
		s.receive(l.ctx.Done(), func(p []byte, from tcpip.FullAddress) error { //nolint:errcheck // it ends with the link
			if len(p) < dnsHeader || !queries.take() {
				return nil
			}
			query := append([]byte(nil), p...)
			ran := l.tasks.run(func() {
				defer queries.release()
				if answer := l.resolve(query); answer != nil {
					s.sendTo(answer, from) //nolint:errcheck // the guest asks again
				}
			})
			if !ran {
				queries.release()
			}
			return nil
		})
	})
	return nil
}

// resolve asks one resolver after the other, and returns the first answer. Without
// one the guest hears nothing, and asks again.
func (l *Link) resolve(query []byte) []byte {
	for _, server := range l.dns.servers() {
		answer, err := l.ask(server, query)
		if err == nil {
			return answer
		}
		l.log.Debug("user network: DNS", "resolver", server, "error", err)
		if l.ctx.Err() != nil {
			return nil
		}
	}
	return nil
}

// ask sends a query to a resolver, from a port of its own.
func (l *Link) ask(server netip.AddrPort, query []byte) ([]byte, error) {
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(server))
	if err != nil {
		return nil, err
	}
	defer conn.Close()                                        //nolint:errcheck // nothing is buffered
	conn.SetDeadline(time.Now().Add(dnsTimeout))              //nolint:errcheck // the read tells
	defer context.AfterFunc(l.ctx, func() { conn.Close() })() //nolint:errcheck // likewise
	if _, err := conn.Write(query); err != nil {
		return nil, err
	}
	p := chunks.Get().(*[1 << 16]byte)
	defer chunks.Put(p)
	for {
		n, err := conn.Read(p[:])
		if err != nil {
			return nil, err
		}
		if n >= dnsHeader && p[0] == query[0] && p[1] == query[1] { // the same ID
			return append([]byte(nil), p[:n]...), nil
		}
	}
}
