// Package user is a network inside this process, which takes no privilege: the
// guest sees an Ethernet with a gateway, a name server and a DHCP server on it,
// and what it sends further goes out through ordinary sockets of the host's.
//
// In the network 10.0.2.0/24 the gateway is 10.0.2.2, the name server 10.0.2.3 and
// the guest 10.0.2.15, as QEMU's users know it; in another the last numbers are the
// same. IPv4 only: the guest learns of no IPv6 router, so its programs do not try.
package user

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	gvisorethernet "gvisor.dev/gvisor/pkg/tcpip/link/ethernet"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"github.com/huskvm/husk/devices/ethernet"
	"github.com/huskvm/husk/devices/netdev"
)

// ErrUser is why a user network can not be had.
var ErrUser = errors.New("cannot make user network")

// Bounds on what one guest can have open. Beyond them a TCP connection is reset, a
// UDP datagram answered with "port unreachable", and a ping lost.
const (
	maxTCP     = 1024
	maxUDP     = 1024
	maxPings   = 64
	maxQueries = 256 // DNS queries under way

	// tcpBuffer bounds a connection's buffer in each direction: a guest that opens
	// all connections and reads none makes us hold half a GiB. The guest is a
	// fraction of a millisecond away: that is 2 Gb/s at 1 ms.
	tcpBuffer = 256 << 10
)

const nic tcpip.NICID = 1

// Config is what a user network is made from.
type Config struct {
	Net      netip.Prefix // its addresses; the zero value is netdev.DefaultNet
	MTU      int          // in bytes; 0 is netdev.DefaultMTU
	HostName string       // given to the guest by DHCP, if not empty
	// HostLoopback lets the guest reach the host's 127.0.0.1 through the
	// gateway's address.
	HostLoopback bool
	Publish      []netdev.Publish
	// ResolvConf names the host's resolvers (resolv.conf(5)); it is read again
	// when it changes. Empty is /etc/resolv.conf.
	ResolvConf string
	Log        *slog.Logger // nil discards

	dnsPort uint16        // of the host's resolvers; 0 is 53
	idleUDP time.Duration // 0 is a minute
	linger  time.Duration // of a closed connection; 0 is 5 s
}

// A Link is a user network.
type Link struct {
	cfg       Config
	log       *slog.Logger
	addrs     addresses
	stack     *stack.Stack
	end       *endpoint
	queue     queue
	dns       resolvers
	published []netdev.Publish

	ctx                       context.Context // ends with Close
	cancel                    context.CancelFunc
	tasks                     group
	tcpSlots, udpSlots, pings slots
	pingRefused               sync.Once
	pingFlows                 pingTable
	closing                   sync.Once
}

var _ netdev.Link = (*Link)(nil)

// New makes a user network and begins to listen on the ports that are published.
func New(cfg Config) (*Link, error) {
	if cfg.Net == (netip.Prefix{}) {
		cfg.Net = netdev.DefaultNet
	}
	if cfg.MTU == 0 {
		cfg.MTU = netdev.DefaultMTU
	}
	if cfg.ResolvConf == "" {
		cfg.ResolvConf = "/etc/resolv.conf"
	}
	if cfg.dnsPort == 0 {
		cfg.dnsPort = 53
	}
	if cfg.idleUDP == 0 {
		cfg.idleUDP = time.Minute
	}
	if cfg.linger == 0 {
		cfg.linger = 5 * time.Second
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if !cfg.Net.Addr().Is4() || cfg.Net.Bits() > 27 || cfg.Net != cfg.Net.Masked() {
		return nil, fmt.Errorf("%w: %s must be an IPv4 network of /27 or larger", ErrUser, cfg.Net)
	}
	if cfg.MTU < netdev.MinMTU || cfg.MTU > netdev.MaxMTU {
		return nil, fmt.Errorf("%w: MTU %d; it must be from %d to %d", ErrUser, cfg.MTU, netdev.MinMTU, netdev.MaxMTU)
	}
	l := &Link{
		cfg: cfg, log: cfg.Log, addrs: addressesOf(cfg.Net),
		dns:      resolvers{path: cfg.ResolvConf, port: cfg.dnsPort},
		tcpSlots: make(slots, maxTCP), udpSlots: make(slots, maxUDP), pings: make(slots, maxPings),
	}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.end = newEndpoint(cfg.MTU)
	l.queue.init(l)
	if err := l.start(); err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %w", ErrUser, err), l.Close())
	}
	return l, nil
}

func (l *Link) start() error {
	l.stack = stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, arp.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4},
	})
	for _, err := range []tcpip.Error{
		l.stack.CreateNIC(nic, gvisorethernet.New(l.end)),
		l.stack.AddProtocolAddress(nic, l.protocolAddress(l.addrs.gateway), stack.AddressProperties{}),
		l.stack.AddProtocolAddress(nic, l.protocolAddress(l.addrs.dns), stack.AddressProperties{PEB: stack.NeverPrimaryEndpoint}),
		// The stack stands for every address there is.
		l.stack.SetPromiscuousMode(nic, true),
		l.stack.SetSpoofing(nic, true),
	} {
		if err != nil {
			return errors.New(err.String())
		}
	}
	l.stack.SetRouteTable([]tcpip.Route{{Destination: header.IPv4EmptySubnet, NIC: nic}})
	if err := l.tuneTCP(); err != nil {
		return err
	}
	l.stack.SetTransportProtocolHandler(tcp.ProtocolNumber, tcp.NewForwarder(l.stack, 0, maxTCP, l.acceptTCP).HandlePacket)
	l.stack.SetTransportProtocolHandler(udp.ProtocolNumber, udp.NewForwarder(l.stack, l.acceptUDP).HandlePacket)
	l.stack.SetTransportProtocolHandler(icmp.ProtocolNumber4, l.acceptPing)
	if err := l.serveDHCP(); err != nil {
		return fmt.Errorf("DHCP: %w", err)
	}
	if err := l.serveDNS(); err != nil {
		return fmt.Errorf("DNS: %w", err)
	}
	for _, p := range l.cfg.Publish {
		if err := l.publish(p); err != nil {
			return fmt.Errorf("publish %s: %w", p, err)
		}
	}
	return nil
}

func (l *Link) protocolAddress(a netip.Addr) tcpip.ProtocolAddress {
	return tcpip.ProtocolAddress{
		Protocol:          ipv4.ProtocolNumber,
		AddressWithPrefix: tcpip.AddressWithPrefix{Address: address(a), PrefixLen: l.cfg.Net.Bits()},
	}
}

func (l *Link) tuneTCP() error {
	sack := tcpip.TCPSACKEnabled(true)
	moderate := tcpip.TCPModerateReceiveBufferOption(true)
	send := tcpip.TCPSendBufferSizeRangeOption{Min: tcp.MinBufferSize, Default: tcpBuffer, Max: tcpBuffer}
	receive := tcpip.TCPReceiveBufferSizeRangeOption{Min: tcp.MinBufferSize, Default: tcpBuffer / 2, Max: tcpBuffer}
	// Nothing arrives late here: both sides of the wire are in one machine.
	wait := tcpip.TCPTimeWaitTimeoutOption(time.Second)
	// With RACK (RFC 8985) the stack takes what a busy host delays for lost, and
	// slows down. Little is lost between it and the guest.
	recovery := tcpip.TCPRecovery(0)
	for _, o := range []tcpip.SettableTransportProtocolOption{&sack, &moderate, &send, &receive, &wait, &recovery} {
		if err := l.stack.SetTransportProtocolOption(tcp.ProtocolNumber, o); err != nil {
			return fmt.Errorf("TCP: %s", err)
		}
	}
	return nil
}

// Info implements netdev.Link.
func (l *Link) Info() ethernet.Info {
	all := ethernet.Checksum | ethernet.TSO4 | ethernet.ECN
	return ethernet.Info{MTU: l.cfg.MTU, Queues: 1, Takes: all, Gives: all &^ ethernet.ECN}
}

// Queue implements netdev.Link.
func (l *Link) Queue(int) ethernet.Queue { return &l.queue }

// SetOffloads implements netdev.Link.
func (l *Link) SetOffloads(o ethernet.Offloads) error {
	l.end.offloads.Store(uint32(o))
	return nil
}

// SetQueues implements netdev.Link.
func (l *Link) SetQueues(n int) error {
	if n != 1 {
		return fmt.Errorf("user network: %d queues; it has 1", n)
	}
	return nil
}

// Published tells where the ports are published, those that were 0 with what was
// found.
func (l *Link) Published() []netdev.Publish { return l.published }

// Close implements netdev.Link. Connections that are open are reset on both sides.
func (l *Link) Close() error {
	l.closing.Do(func() {
		l.cancel()
		l.tasks.close()
		l.abort()
		l.stack.Destroy()
		l.end.Close()
	})
	return nil
}

// abort resets what is open until no task is left. Once is not enough: a handshake
// with the guest can not be called off, and may be about to begin.
func (l *Link) abort() {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		l.tasks.wait()
	}()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		for _, e := range l.stack.RegisteredEndpoints() {
			e.Abort()
		}
		select {
		case <-ended:
			return
		case <-tick.C:
		}
	}
}

// addresses are the network's own.
type addresses struct{ gateway, dns, guest netip.Addr }

func addressesOf(p netip.Prefix) addresses {
	at := func(n byte) netip.Addr {
		a := p.Addr().As4()
		a[3] += n // the network's last five bits are 0
		return netip.AddrFrom4(a)
	}
	return addresses{gateway: at(2), dns: at(3), guest: at(15)}
}

// address and addr convert between the stack's addresses and Go's.
func address(a netip.Addr) tcpip.Address { return tcpip.AddrFrom4(a.As4()) }

func addr(a tcpip.Address) netip.Addr {
	if a.Len() != 4 {
		return netip.Addr{}
	}
	return netip.AddrFrom4(a.As4())
}

// gatewayMAC is the gateway's, with the default network's address in it, as
// QEMU has it.
var gatewayMAC = net.HardwareAddr{0x52, 0x55, 10, 0, 2, 2}
