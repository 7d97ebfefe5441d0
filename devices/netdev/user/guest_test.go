package user

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	gvisorethernet "gvisor.dev/gvisor/pkg/tcpip/link/ethernet"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"github.com/huskvm/husk/devices/ethernet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var guestMAC = net.HardwareAddr{2, 0, 0, 0, 0, 15}

// A guest is a second stack at the other end of a link, with a driver between.
type guest struct {
	link  *Link
	stack *stack.Stack
	end   *endpoint
	stop  func()
}

// newLink makes a user network that only reaches this machine's loopback.
func newLink(t testing.TB, cfg Config) *Link {
	t.Helper()
	l, err := New(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	return l
}

// plug connects a guest that takes and leaves the offloads given.
func plug(t testing.TB, l *Link, offloads ethernet.Offloads) *guest {
	t.Helper()
	g := &guest{link: l, end: newEndpoint(l.Info().MTU)}
	g.end.SetLinkAddress(tcpip.LinkAddress(guestMAC))
	g.end.offloads.Store(uint32(offloads))
	require.NoError(t, l.SetOffloads(offloads))
	g.stack = stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, arp.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4},
	})
	require.Nil(t, g.stack.CreateNIC(nic, gvisorethernet.New(g.end)))
	require.Nil(t, g.stack.AddProtocolAddress(nic, tcpip.ProtocolAddress{
		Protocol:          ipv4.ProtocolNumber,
		AddressWithPrefix: tcpip.AddressWithPrefix{Address: address(l.addrs.guest), PrefixLen: l.cfg.Net.Bits()},
	}, stack.AddressProperties{}))
	g.stack.SetRouteTable([]tcpip.Route{
		{Destination: header.IPv4EmptySubnet, Gateway: address(l.addrs.gateway), NIC: nic},
	})
	sack := tcpip.TCPSACKEnabled(true)
	require.Nil(t, g.stack.SetTransportProtocolOption(tcp.ProtocolNumber, &sack))
	recovery := tcpip.TCPRecovery(0)
	require.Nil(t, g.stack.SetTransportProtocolOption(tcp.ProtocolNumber, &recovery))

	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { g.transmit(ctx) })
	wg.Go(func() { g.receive(ctx, offloads) })
	g.stop = sync.OnceFunc(func() {
		g.stack.Close()
		cancel()
		wg.Wait()
		g.stack.Wait()
		g.end.Close()
	})
	t.Cleanup(g.stop)
	return g
}

func (g *guest) transmit(ctx context.Context) {
	q := g.link.Queue(0)
	head := make([]byte, ethernet.HeaderSize)
	for {
		pkt := g.end.ReadContext(ctx)
		if pkt == nil {
			return
		}
		h, whole := g.end.header(pkt)
		if !whole {
			panic("the guest's stack made what it can not send")
		}
		h.Put(head)
		q.Send(append([][]byte{head}, pkt.AsSlices()...)) //nolint:errcheck // as a driver does
		pkt.DecRef()
	}
}

func (g *guest) receive(ctx context.Context, offloads ethernet.Offloads) {
	q := g.link.Queue(0)
	size := ethernet.HeaderSize + 18 + g.link.Info().MTU
	if offloads != 0 {
		size = ethernet.MaxFrame
	}
	p := make([]byte, size)
	for q.Wait(ctx) == nil {
		for {
			n, err := q.Receive([][]byte{p[:ethernet.HeaderSize], p[ethernet.HeaderSize : size/2], p[size/2:]})
			if err != nil {
				panic(err)
			}
			if n == 0 {
				break
			}
			h := ethernet.ParseHeader(p)
			if offloads == 0 && h != (ethernet.Header{}) {
				panic(fmt.Sprintf("the guest has no offloads: %+v", h))
			}
			pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{
				Payload: buffer.MakeWithData(append([]byte(nil), p[ethernet.HeaderSize:n]...)),
			})
			g.end.trusted.Store(h.Flags&ethernet.HeaderNeedsChecksum != 0)
			g.end.InjectInbound(0, pkt)
			pkt.DecRef()
		}
	}
}

func (g *guest) at(a netip.Addr, port uint16) tcpip.FullAddress {
	return tcpip.FullAddress{NIC: nic, Addr: address(a), Port: port}
}

// dial connects from the guest to a port of the host's loopback, by the gateway.
func (g *guest) dial(t testing.TB, port uint16) (*gonet.TCPConn, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return gonet.DialContextTCP(ctx, g.stack, g.at(g.link.addrs.gateway, port), ipv4.ProtocolNumber)
}

// listen is a TCP server on the host's loopback that handles each connection.
func listen(t testing.TB, handle func(*net.TCPConn)) uint16 {
	t.Helper()
	ln, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.AcceptTCP()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close() //nolint:errcheck // a test
				handle(c)
			})
		}
	})
	t.Cleanup(func() {
		ln.Close() //nolint:errcheck // a test
		wg.Wait()
	})
	return uint16(ln.Addr().(*net.TCPAddr).Port)
}

// deadline keeps a test that has gone wrong from hanging.
func deadline(t testing.TB, c interface{ SetDeadline(time.Time) error }) {
	t.Helper()
	require.NoError(t, c.SetDeadline(time.Now().Add(20*time.Second)))
}
