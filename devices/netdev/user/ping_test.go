package user

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// pinger is a ping socket of the guest's.
func (g *guest) pinger(t *testing.T, to netip.Addr) socket {
	t.Helper()
	s := socket{wq: new(waiter.Queue)}
	var err tcpip.Error
	s.ep, err = g.stack.NewEndpoint(icmp.ProtocolNumber4, ipv4.ProtocolNumber, s.wq)
	require.Nil(t, err)
	t.Cleanup(s.ep.Close)
	require.Nil(t, s.ep.Connect(g.at(to, 0)))
	return s
}

func (s socket) ping(t *testing.T, seq byte, data string) {
	t.Helper()
	p := make([]byte, 8, 8+len(data))
	p[0], p[7] = byte(header.ICMPv4Echo), seq
	require.NoError(t, s.sendTo(append(p, data...)))
}

var errGot = errors.New("got it")

func (s socket) pong(t *testing.T) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	var got []byte
	err := s.receive(ctx.Done(), func(p []byte, _ tcpip.FullAddress) error {
		got = append(got, p...)
		return errGot
	})
	require.ErrorIs(t, err, errGot)
	return got
}

func TestPingGateway(t *testing.T) {
	l := newLink(t, Config{})
	g := plug(t, l, 0)
	for _, to := range []netip.Addr{l.addrs.gateway, l.addrs.dns} {
		s := g.pinger(t, to)
		s.ping(t, 3, strings.Repeat("x", 3000)) // in fragments
		require.Len(t, s.pong(t), 3008)
	}
	require.Empty(t, l.pings)
}

// TestPingOutward pings this machine's loopback through a ping socket, where the
// host allows them. The network has no address that leads there by itself, so the
// test puts the socket in.
func TestPingOutward(t *testing.T) {
	f, err := pingSocket(netip.MustParseAddr("127.0.0.1"))
	if errors.Is(err, unix.EACCES) {
		t.Skip("the host does not allow ping sockets")
	}
	require.NoError(t, err)
	require.NoError(t, f.Close())
	l := newLink(t, Config{})
	g := plug(t, l, 0)
	outside := netip.MustParseAddr("192.0.2.9")
	s := g.pinger(t, outside)
	// The guest's identifier is known once it has sent: to the gateway's silence.
	a, terr := s.ep.GetLocalAddress()
	require.Nil(t, terr)
	_, err = l.ping(pingKey{outside, a.Port}, netip.MustParseAddr("127.0.0.1"), l.addrs.guest)
	require.NoError(t, err)
	for seq := range byte(3) {
		s.ping(t, seq, "hello")
		p := s.pong(t)
		require.Equal(t, header.ICMPv4EchoReply, header.ICMPv4(p).Type())
		require.Equal(t, seq, p[7])
		require.Equal(t, "hello", string(p[8:]))
	}
	require.Len(t, l.pings, 1)
}

// TestPingRefused: one line in the log for a host that does not allow ping sockets.
func TestPingRefused(t *testing.T) {
	if f, err := pingSocket(netip.MustParseAddr("127.0.0.1")); err == nil {
		require.NoError(t, f.Close())
		t.Skip("the host allows ping sockets")
	}
	var log bytes.Buffer
	l := newLink(t, Config{Log: slog.New(slog.NewTextHandler(&log, nil))})
	g := plug(t, l, 0)
	s := g.pinger(t, netip.MustParseAddr("192.0.2.9"))
	for seq := range byte(3) {
		s.ping(t, seq, "hello")
	}
	g.pinger(t, netip.MustParseAddr("169.254.169.254")).ping(t, 0, "no")
	gw := g.pinger(t, l.addrs.gateway)
	gw.ping(t, 0, "yes")
	gw.pong(t)
	g.stop()
	require.NoError(t, l.Close())
	require.Equal(t, 1, strings.Count(log.String(), "ping_group_range"))
	require.Empty(t, l.pings)
}
