package dhcp

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	hw     = net.HardwareAddr{2, 0, 0, 0, 0, 7}
	server = netip.MustParseAddr("192.168.7.1")
	yours  = netip.MustParseAddr("192.168.7.20")
)

// answer is a server's message.
func answer(kind byte, xid uint32, yours netip.Addr, options ...[]byte) []byte {
	p := make([]byte, atOptions)
	p[0], p[1], p[2] = 2, 1, 6
	binary.BigEndian.PutUint32(p[atXID:], xid)
	copy(p[atYours:], yours.AsSlice())
	copy(p[atHW:], hw)
	binary.BigEndian.PutUint32(p[atCookie:], magic)
	p = append(p, optType, 1, kind)
	for _, o := range options {
		p = append(p, o...)
	}
	return append(p, optEnd)
}

func option(code byte, value ...byte) []byte {
	return append([]byte{code, byte(len(value))}, value...)
}

// usual are a server's options.
func usual(more ...[]byte) [][]byte {
	return append([][]byte{
		option(optServer, server.AsSlice()...), option(optMask, 255, 255, 255, 0),
		{optPad},
		option(optRouter, server.AsSlice()...),
		option(optDNS, 192, 168, 7, 2, 0, 0, 0, 0, 9, 9, 9, 9), option(optLease, 0, 0, 0x0e, 0x10), option(optMTU, 5, 120),
	}, more...)
}

func TestParse(t *testing.T) {
	r, err := parse(answer(ack, 5, yours, usual(option(optDomain, []byte("lan.example\x00")...))...), 5, hw)
	require.NoError(t, err)
	require.Equal(t, reply{ack, Lease{
		Address: netip.MustParsePrefix("192.168.7.20/24"), Server: server,
		Routes: []Route{{netip.MustParsePrefix("0.0.0.0/0"), server}},
		DNS:    []netip.Addr{netip.MustParseAddr("192.168.7.2"), netip.MustParseAddr("9.9.9.9")},
		Domain: "lan.example", MTU: 1400, Time: time.Hour, T1: 30 * time.Minute, T2: 52*time.Minute + 30*time.Second,
	}}, r)

	// Classless routes are in place of the router's (RFC 3442).
	routes := option(optRoutes, 24, 10, 1, 2, 192, 168, 7, 9, 0, 192, 168, 7, 8, 32, 169, 254, 169, 254, 0, 0, 0, 0)
	r, err = parse(answer(offer, 5, yours, usual(routes, option(optT1, 0, 0, 0, 100), option(optT2, 0, 0, 1, 0))...), 5, hw)
	require.NoError(t, err)
	require.Equal(t, []Route{
		{netip.MustParsePrefix("10.1.2.0/24"), netip.MustParseAddr("192.168.7.9")},
		{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParseAddr("192.168.7.8")},
		{netip.MustParsePrefix("169.254.169.254/32"), netip.IPv4Unspecified()},
	}, r.lease.Routes)
	require.Equal(t, 100*time.Second, r.lease.T1)
	require.Equal(t, 256*time.Second, r.lease.T2)

	r, err = parse(answer(nak, 5, netip.IPv4Unspecified()), 5, hw)
	require.NoError(t, err)
	require.EqualValues(t, nak, r.kind)

	good := answer(ack, 5, yours, usual()...)
	for name, p := range map[string][]byte{
		"short":      good[:200],
		"cut":        good[:len(good)-3],
		"another's":  answer(ack, 6, yours, usual()...),
		"no server":  answer(ack, 5, yours),
		"no address": answer(ack, 5, netip.IPv4Unspecified(), usual()...),
		"a question": (&question{kind: discover, xid: 5, hw: hw}).bytes(),
		"a request":  answer(request, 5, yours, usual()...),
	} {
		_, err := parse(p, 5, hw)
		require.ErrorIs(t, err, errMessage, name)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(answer(ack, 5, yours, usual(option(optRoutes, 24, 10, 1, 2, 192, 168, 7, 9))...))
	f.Add(answer(nak, 5, netip.IPv4Unspecified()))
	f.Fuzz(func(t *testing.T, p []byte) {
		r, err := parse(p, 5, hw)
		if err != nil || r.kind == nak {
			return
		}
		l := r.lease
		require.True(t, l.Address.IsValid() && l.Server.IsValid())
		require.True(t, 0 < l.T1 && l.T1 <= l.T2 && l.T2 < l.Time, "%v", l)
		for _, route := range l.Routes {
			require.True(t, route.To.IsValid() && route.Via.IsValid())
		}
	})
}

// A network is a server's, as seen by a client; its methods are a net.PacketConn's.
type network struct {
	net.PacketConn
	t     *testing.T
	reply func(kind byte, xid uint32, p []byte, to netip.Addr) []byte // nil for none

	mu       sync.Mutex
	deadline *time.Timer
	expired  chan struct{}
	expire   func() // closes expired
	answers  chan []byte
}

func newNetwork(t *testing.T, reply func(kind byte, xid uint32, p []byte, to netip.Addr) []byte) *network {
	return &network{t: t, reply: reply, answers: make(chan []byte, 9), expire: func() {}}
}

func (n *network) SetReadDeadline(at time.Time) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.deadline != nil {
		n.deadline.Stop()
	}
	if time.Until(at) <= 0 {
		n.expire() // who waits already
	}
	expired := make(chan struct{})
	n.expired, n.expire = expired, sync.OnceFunc(func() { close(expired) })
	n.deadline = time.AfterFunc(time.Until(at), n.expire)
	return nil
}

func (n *network) WriteTo(p []byte, to net.Addr) (int, error) {
	require.GreaterOrEqual(n.t, len(p), minimum)
	require.Equal(n.t, []byte{1, 1, 6, 0}, p[:4])
	require.Equal(n.t, []byte(hw), p[atHW:atHW+6])
	require.Equal(n.t, []byte{optType, 1}, p[atOptions:atOptions+2])
	at := to.(*net.UDPAddr).AddrPort()
	require.EqualValues(n.t, ServerPort, at.Port())
	if a := n.reply(p[atOptions+2], binary.BigEndian.Uint32(p[atXID:]), p, at.Addr().Unmap()); a != nil {
		n.answers <- a
	}
	return len(p), nil
}

func (n *network) ReadFrom(p []byte) (int, net.Addr, error) {
	n.mu.Lock()
	expired := n.expired
	n.mu.Unlock()
	select {
	case a := <-n.answers:
		return copy(p, a), nil, nil
	case <-expired:
		return 0, nil, os.ErrDeadlineExceeded
	}
}

// TestAsk: a server that is deaf at first, offers, refuses once, and then gives.
func TestAsk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var kinds []byte
		refusals := 1
		n := newNetwork(t, func(kind byte, xid uint32, p []byte, to netip.Addr) []byte {
			require.Equal(t, everyone, to)
			kinds = append(kinds, kind)
			switch {
			case len(kinds) < 3:
				return nil
			case kind == discover:
				return answer(offer, xid, yours, usual()...)
			case refusals > 0:
				refusals--
				return answer(nak, xid, netip.IPv4Unspecified())
			}
			require.Contains(t, string(p), string(option(optRequested, yours.AsSlice()...)))
			require.Contains(t, string(p), string(option(optServer, server.AsSlice()...)))
			require.Contains(t, string(p), string(option(optHostName, []byte("web")...)))
			return answer(ack, xid, yours, usual()...)
		})
		began := time.Now()
		l, err := (&Client{Conn: n, HW: hw, Host: "web"}).Ask(t.Context())
		require.NoError(t, err)
		require.Equal(t, yours, l.Address.Addr())
		require.Equal(t, []byte{discover, discover, discover, request, discover, request}, kinds)
		require.Equal(t, (1+2+4)*time.Second, time.Since(began))
	})
}

func TestNobodyAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, func(byte, uint32, []byte, netip.Addr) []byte { return nil })
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, err := (&Client{Conn: n, HW: hw}).Ask(ctx)
		require.ErrorIs(t, err, ErrNoAnswer)
		require.ErrorIs(t, err, context.DeadlineExceeded)
	})
}

// TestKeep follows a lease for days: renewed by its server, by another when that is
// silent, with another address when none is there for a while.
func TestKeep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		hours := func() float64 { return time.Since(began).Hours() }
		other := netip.MustParseAddr("192.168.7.30")
		var unicasts, broadcasts int
		n := newNetwork(t, func(kind byte, xid uint32, p []byte, to netip.Addr) []byte {
			if kind == request && hours() < 13 {
				require.Equal(t, yours.AsSlice(), p[atClient:atClient+4])
			}
			switch {
			case hours() < 10: // the server is there
				require.Equal(t, server, to)
				unicasts++
				return answer(ack, xid, yours, usual()...)
			case hours() < 12: // only another is, and has another router
				if to != everyone {
					return nil
				}
				broadcasts++
				return answer(ack, xid, yours, usual(option(optRouter, 192, 168, 7, 3))...)
			case hours() < 15: // nobody is
				return nil
			case kind == discover:
				return answer(offer, xid, other, usual()...)
			}
			return answer(ack, xid, other, usual()...)
		})
		r, err := parse(answer(ack, 1, yours, usual()...), 1, hw)
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 48*time.Hour)
		defer cancel()
		var got []Lease
		(&Client{Conn: n, HW: hw}).Keep(ctx, r.lease, func(l Lease) { got = append(got, l) })
		require.Len(t, got, 3)
		require.Equal(t, netip.MustParseAddr("192.168.7.3"), got[0].Routes[0].Via)
		require.Equal(t, Lease{}, got[1])
		require.Equal(t, other, got[2].Address.Addr())
		require.Greater(t, unicasts, 10)
		require.Positive(t, broadcasts)
	})
}
