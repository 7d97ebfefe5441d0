package user

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/huskvm/husk/devices/netdev"
)

// listenUDP is a UDP server on the host's loopback that answers with what answer
// makes of a datagram, if anything.
func listenUDP(t testing.TB, answer func([]byte) []byte) uint16 {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		p := make([]byte, 1<<16)
		for {
			n, from, err := c.ReadFromUDPAddrPort(p)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if a := answer(p[:n]); err == nil && a != nil {
				c.WriteToUDPAddrPort(a, from) //nolint:errcheck // a test
			}
		}
	}()
	t.Cleanup(func() {
		c.Close() //nolint:errcheck // a test
		<-done
	})
	return uint16(c.LocalAddr().(*net.UDPAddr).Port)
}

func same(p []byte) []byte { return p }

func (g *guest) dialUDP(t testing.TB, to netip.Addr, port uint16) *gonet.UDPConn {
	t.Helper()
	c, err := gonet.DialUDP(g.stack, nil, new(g.at(to, port)), ipv4.ProtocolNumber)
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() }) //nolint:errcheck // a test
	deadline(t, c)
	return c
}

// refused sends a datagram from the guest, and must hear that nobody takes it.
func (g *guest) refused(t *testing.T, to netip.Addr, port uint16) {
	t.Helper()
	s := socket{wq: new(waiter.Queue)}
	var terr tcpip.Error
	s.ep, terr = g.stack.NewEndpoint(udp.ProtocolNumber, ipv4.ProtocolNumber, s.wq)
	require.Nil(t, terr)
	defer s.ep.Close()
	require.Nil(t, s.ep.Connect(g.at(to, port)))
	require.NoError(t, s.sendTo([]byte("x")))
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	err := s.receive(ctx.Done(), func([]byte, tcpip.FullAddress) error { return nil })
	require.ErrorContains(t, err, "refused", to)
}

func TestUDPOutward(t *testing.T) {
	port := listenUDP(t, same)
	l := newLink(t, Config{HostLoopback: true, idleUDP: 300 * time.Millisecond})
	g := plug(t, l, offloads["tso"])
	got := make([]byte, 1<<16)
	var all []*gonet.UDPConn
	for i := range 50 {
		c := g.dialUDP(t, l.addrs.gateway, port)
		all = append(all, c)
		for _, n := range []int{0, 1, 1400, 5000, 30000} { // the large ones in fragments
			want := make([]byte, n)
			for j := range want {
				want[j] = byte(i + j)
			}
			_, err := c.Write(want)
			require.NoError(t, err)
			n, err := c.Read(got)
			require.NoError(t, err)
			require.Equal(t, want, got[:n])
		}
	}
	require.Eventually(t, func() bool { return len(l.udpSlots) == 0 }, 20*time.Second, 10*time.Millisecond, "idle flows must end")
	_, err := all[0].Write([]byte("again")) // a flow that has ended begins anew
	require.NoError(t, err)
	n, err := all[0].Read(got)
	require.NoError(t, err)
	require.Equal(t, "again", string(got[:n]))
}

func TestUDPRefused(t *testing.T) {
	l := newLink(t, Config{HostLoopback: true})
	g := plug(t, l, 0)
	// Nobody listens: the flow ends at once, not when it has been idle.
	_, err := g.dialUDP(t, l.addrs.gateway, closedPort(t)).Write([]byte("x"))
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		return l.stack.Stats().UDP.PacketsReceived.Value() == 1 && len(l.udpSlots) == 0
	}, 10*time.Second, 10*time.Millisecond)
	// Where the guest may not go, it hears so.
	for _, to := range []netip.Addr{l.addrs.dns, netip.MustParseAddr("169.254.169.254")} {
		g.refused(t, to, 9)
	}
	require.Empty(t, l.udpSlots)
}

func TestUDPTooMany(t *testing.T) {
	port := listenUDP(t, same)
	l := newLink(t, Config{HostLoopback: true})
	l.udpSlots = make(slots, 3)
	g := plug(t, l, 0)
	for range 10 {
		_, err := g.dialUDP(t, l.addrs.gateway, port).Write([]byte("x"))
		require.NoError(t, err)
	}
	g.refused(t, l.addrs.gateway, port)
	require.Len(t, l.udpSlots, 3)
}

func TestUDPPublished(t *testing.T) {
	l := newLink(t, Config{idleUDP: 300 * time.Millisecond, Publish: []netdev.Publish{
		{Proto: "udp", Host: netip.MustParseAddrPort("127.0.0.1:0"), Guest: 53},
	}})
	g := plug(t, l, 0)
	server, err := gonet.DialUDP(g.stack, new(g.at(l.addrs.guest, 53)), nil, ipv4.ProtocolNumber)
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		p := make([]byte, 1<<16)
		for {
			n, from, err := server.ReadFrom(p)
			if err != nil {
				return
			}
			server.WriteTo(append([]byte(from.(*net.UDPAddr).IP.String()+" "), p[:n]...), from) //nolint:errcheck // a test
		}
	}()
	t.Cleanup(func() {
		server.Close() //nolint:errcheck // a test
		<-done
	})
	deadline(t, server)
	for _, text := range []string{"a", "b"} {
		c, err := net.Dial("udp", l.Published()[0].Host.String())
		require.NoError(t, err)
		deadline(t, c)
		for range 3 {
			_, err = c.Write([]byte(text))
			require.NoError(t, err)
			p := make([]byte, 100)
			n, err := c.Read(p)
			require.NoError(t, err)
			require.Equal(t, "10.0.2.2 "+text, string(p[:n]))
		}
		require.NoError(t, c.Close())
	}
	require.Eventually(t, func() bool { return len(l.udpSlots) == 0 }, 20*time.Second, 10*time.Millisecond)
	server.Close() //nolint:errcheck // a test
}
