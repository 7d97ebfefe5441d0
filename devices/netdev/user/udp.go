package user

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// acceptUDP handles the first datagram of a flow: four addresses and ports that
// belong together. It runs within Send. What it does not handle is answered with
// "port unreachable".
func (l *Link) acceptUDP(r *udp.ForwarderRequest) bool {
	id := r.ID()
	at, ok := l.target(addr(id.LocalAddress))
	if !ok {
		return false
	}
	if !l.udpSlots.take() {
		l.log.Debug("user network: a UDP flow too many", "limit", cap(l.udpSlots))
		return false
	}
	// The socket is connected, so it hears of a port that nobody listens to, and
	// takes nothing from others.
	host, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(at, id.LocalPort)))
	if err != nil {
		l.udpSlots.release()
		l.log.Debug("user network: no UDP flow", "to", at, "error", err)
		return false
	}
	g := socket{wq: new(waiter.Queue)}
	ep, terr := r.CreateEndpoint(g.wq)
	if terr != nil {
		l.udpSlots.release()
		host.Close() //nolint:errcheck // unused
		return true  // two datagrams at once; the other has made it
	}
	g.ep = ep
	ran := l.tasks.run(func() {
		defer l.udpSlots.release()
		l.flow(g, host)
	})
	if !ran {
		l.udpSlots.release()
		ep.Close()
		host.Close() //nolint:errcheck // unused
	}
	return true
}

// flow carries datagrams between a socket of the guest's and one of the host's until
// there was none for a while, and closes both.
func (l *Link) flow(g socket, host *net.UDPConn) {
	ctx, end := context.WithCancel(l.ctx)
	var last atomic.Int64
	touch := func() { last.Store(time.Now().UnixNano()) }
	touch()
	defer context.AfterFunc(ctx, func() { host.SetReadDeadline(time.Unix(1, 0)) })() //nolint:errcheck // closed is as good
	back := make(chan struct{})
	go func() {
		defer close(back)
		defer end()
		for ctx.Err() == nil {
			rest := time.Until(time.Unix(0, last.Load()).Add(l.cfg.idleUDP))
			if rest <= 0 {
				return
			}
			host.SetReadDeadline(time.Now().Add(rest)) //nolint:errcheck // the read tells
			if ctx.Err() != nil {
				return // the deadline may have undone the end's
			}
			err := fromHost(host, false, func(p []byte) error {
				touch()
				g.sendTo(p) //nolint:errcheck // lost, as datagrams are
				return nil
			})
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				return // such as a refused port: the next datagram begins anew
			}
		}
	}()
	g.receive(ctx.Done(), func(p []byte, _ tcpip.FullAddress) error { //nolint:errcheck // the flow ends, whatever it was
		touch()
		host.Write(p) //nolint:errcheck // lost; a refusal is read above
		return nil
	})
	end()
	<-back
	g.ep.Close()
	host.Close() //nolint:errcheck // nothing is buffered
}
