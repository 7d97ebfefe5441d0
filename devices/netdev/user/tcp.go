package user

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// dialTimeout is how long the host may take to connect. Linux in the guest gives
// up after about two minutes by itself.
const dialTimeout = 30 * time.Second

// acceptTCP handles a SYN of the guest's. The forwarder calls it in a goroutine of
// its own. The host connects first, so that the guest gets the refusal that the
// host got.
func (l *Link) acceptTCP(r *tcp.ForwarderRequest) {
	id := r.ID() // before Complete, which forgets it
	if !l.tasks.enter() {
		r.Complete(true)
		return
	}
	defer l.tasks.leave()
	if !l.tcpSlots.take() {
		l.log.Debug("user network: a TCP connection too many", "limit", cap(l.tcpSlots))
		r.Complete(true)
		return
	}
	defer l.tcpSlots.release()
	host, silent := l.dialTCP(netip.AddrPortFrom(addr(id.LocalAddress), id.LocalPort))
	if host == nil {
		r.Complete(!silent)
		return
	}
	g := socket{wq: new(waiter.Queue)}
	ep, err := r.CreateEndpoint(g.wq)
	r.Complete(false)
	if err != nil { // the guest has lost interest
		reset(host)
		return
	}
	g.ep = ep
	l.relay(g, host)
}

// dialTCP connects to where an address of the guest's leads. Without a connection
// it says whether the guest should hear nothing, as from a host that does not answer.
func (l *Link) dialTCP(to netip.AddrPort) (conn *net.TCPConn, silent bool) {
	ctx, cancel := context.WithTimeout(l.ctx, dialTimeout)
	defer cancel()
	var servers []netip.AddrPort
	if to == netip.AddrPortFrom(l.addrs.dns, dnsPort) {
		servers = l.dns.servers()
	} else if at, ok := l.target(to.Addr()); ok {
		servers = []netip.AddrPort{netip.AddrPortFrom(at, to.Port())}
	}
	var d net.Dialer
	for _, server := range servers {
		c, err := d.DialContext(ctx, "tcp", server.String())
		if err == nil {
			return c.(*net.TCPConn), false
		}
		l.log.Debug("user network: no TCP connection", "to", to, "error", err)
		var timeout net.Error
		silent = errors.As(err, &timeout) && timeout.Timeout()
	}
	return nil, silent
}

// relay carries bytes between the guest's connection and the host's until both
// directions have ended, and frees both. An end of one direction is passed on as
// such, and anything else as a reset.
func (l *Link) relay(g socket, host *net.TCPConn) {
	keepAlive(g.ep)
	abort := sync.OnceFunc(func() {
		reset(host)
		g.ep.Abort()
	})
	stop := context.AfterFunc(l.ctx, abort)
	defer stop()
	back := make(chan struct{})
	go func() {
		defer close(back)
		err := fromHost(host, true, func(p []byte) error { return g.send(l.ctx.Done(), p) })
		if err != nil || g.ep.Shutdown(tcpip.ShutdownWrite) != nil {
			abort()
		}
	}()
	err := g.receive(l.ctx.Done(), func(p []byte, _ tcpip.FullAddress) error {
		_, err := host.Write(p)
		return err
	})
	if err != nil || host.CloseWrite() != nil {
		abort()
	}
	<-back
	host.Close() //nolint:errcheck // both directions have ended
	l.bury(g)
}

// bury closes the guest's connection and waits for its last acknowledgements, so
// that what the stack keeps for a guest that never gives them is bounded, too.
func (l *Link) bury(g socket) {
	entry, gone := waiter.NewChannelEntry(waiter.EventHUp | waiter.EventErr)
	g.wq.EventRegister(&entry)
	defer g.wq.EventUnregister(&entry)
	g.ep.Close()
	timer := time.NewTimer(l.cfg.linger)
	defer timer.Stop()
	for {
		switch tcp.EndpointState(g.ep.State()) {
		case tcp.StateClose, tcp.StateError, tcp.StateTimeWait: // which has its own end
			return
		}
		select {
		case <-gone:
		case <-timer.C:
			g.ep.Abort()
			return
		case <-l.ctx.Done():
			g.ep.Abort()
			return
		}
	}
}

// reset closes a connection of the host's so that its peer sees a reset.
func reset(host *net.TCPConn) {
	host.SetLinger(0) //nolint:errcheck // if it is gone, so is its peer's
	host.Close()      //nolint:errcheck // nothing that was written is wanted
}

// keepAlive lets a connection end that the guest has forgotten, as after a reset.
func keepAlive(ep tcpip.Endpoint) {
	idle := tcpip.KeepaliveIdleOption(time.Minute)
	interval := tcpip.KeepaliveIntervalOption(15 * time.Second)
	ep.SetSockOpt(&idle)                            //nolint:errcheck // can not fail on TCP
	ep.SetSockOpt(&interval)                        //nolint:errcheck // likewise
	ep.SetSockOptInt(tcpip.KeepaliveCountOption, 4) //nolint:errcheck // likewise
	ep.SocketOptions().SetKeepAlive(true)
	ep.SocketOptions().SetDelayOption(false) // Nagle's, which the guest has had already
}
