package user

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"

	"github.com/huskvm/husk/devices/ethernet"
	"github.com/huskvm/husk/devices/netdev"
)

func echo(c *net.TCPConn) {
	if _, err := io.Copy(c, c); err == nil {
		c.CloseWrite() //nolint:errcheck // a test
	}
}

// conn is what both a guest's connection and a host's can do.
type conn interface {
	net.Conn
	CloseWrite() error
}

// exchange sends bytes through an echo server, ends its direction, and must get
// all of them back and then the end of the other.
func exchange(t testing.TB, c conn, n int) {
	t.Helper()
	deadline(t, c)
	want := make([]byte, n)
	rand.Read(want) //nolint:errcheck // does not fail
	sent := make(chan error, 1)
	go func() {
		_, err := c.Write(want)
		sent <- errors.Join(err, c.CloseWrite())
	}()
	got, err := io.ReadAll(c)
	require.NoError(t, err)
	require.NoError(t, <-sent)
	require.True(t, bytes.Equal(want, got), "%d of %d bytes", len(got), len(want))
}

var offloads = map[string]ethernet.Offloads{"plain": 0, "checksum": ethernet.Checksum, "tso": ethernet.Checksum | ethernet.TSO4}

func TestTCPOutward(t *testing.T) {
	port := listen(t, echo)
	for name, o := range offloads {
		for _, mtu := range []int{1280, 1500, 65520} {
			t.Run(fmt.Sprint(name, mtu), func(t *testing.T) {
				g := plug(t, newLink(t, Config{HostLoopback: true, MTU: mtu}), o)
				for range 2 {
					c, err := g.dial(t, port)
					require.NoError(t, err)
					exchange(t, c, 1<<20)
					require.NoError(t, c.Close())
				}
			})
		}
	}
}

// TestPublishedAddresses: 0.0.0.0 is those of version 4 alone, and [::] all.
func TestPublishedAddresses(t *testing.T) {
	l := newLink(t, Config{Publish: []netdev.Publish{
		{Proto: "tcp", Host: netip.MustParseAddrPort("0.0.0.0:0"), Guest: 80},
		{Proto: "udp", Host: netip.MustParseAddrPort("0.0.0.0:0"), Guest: 80},
	}})
	p := l.Published()
	tcp, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.IPv6Loopback(), p[0].Host.Port())))
	require.NoError(t, err)
	require.NoError(t, tcp.Close())
	udp, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.IPv6Loopback(), p[1].Host.Port())))
	require.NoError(t, err)
	require.NoError(t, udp.Close())

	l = newLink(t, Config{Publish: []netdev.Publish{{Proto: "tcp", Host: netip.MustParseAddrPort("[::]:0"), Guest: 80}}})
	for _, host := range []string{"127.0.0.1", "::1"} {
		c, err := net.Dial("tcp", net.JoinHostPort(host, fmt.Sprint(l.Published()[0].Host.Port())))
		require.NoError(t, err)
		require.NoError(t, c.Close())
	}
}

func TestTCPPublished(t *testing.T) {
	l := newLink(t, Config{Publish: []netdev.Publish{
		{Proto: "tcp", Host: netip.MustParseAddrPort("127.0.0.1:0"), Guest: 80},
		{Proto: "tcp", Host: netip.MustParseAddrPort("[::1]:0"), Guest: 80},
		{Proto: "tcp", Host: netip.MustParseAddrPort("127.0.0.1:0"), Guest: 81},
	}})
	require.Len(t, l.Published(), 3)
	g := plug(t, l, offloads["tso"])
	ln, err := gonet.ListenTCP(g.stack, g.at(l.addrs.guest, 80), ipv4.ProtocolNumber)
	require.NoError(t, err)
	defer ln.Close() //nolint:errcheck // a test
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close() //nolint:errcheck // a test
				io.Copy(c, c)   //nolint:errcheck // a test
			}()
		}
	}()
	for _, p := range l.Published()[:2] {
		require.NotZero(t, p.Host.Port())
		c, err := net.Dial("tcp", p.Host.String())
		require.NoError(t, err)
		exchange(t, c.(*net.TCPConn), 1<<20)
		require.NoError(t, c.Close())
	}
	// Nobody listens in the guest.
	c, err := net.Dial("tcp", l.Published()[2].Host.String())
	if err == nil { // or the reset was faster
		deadline(t, c)
		_, err = c.Read(make([]byte, 1))
		c.Close() //nolint:errcheck // a test
	}
	require.ErrorIs(t, err, syscall.ECONNRESET)

	// A port that is taken.
	_, err = New(Config{Publish: []netdev.Publish{l.Published()[0]}})
	require.ErrorIs(t, err, ErrUser)
	require.ErrorIs(t, err, syscall.EADDRINUSE)
	_, err = New(Config{Publish: []netdev.Publish{{Proto: "sctp"}}})
	require.ErrorIs(t, err, ErrUser)
}

// closedPort is one of the loopback's where nobody listens.
func closedPort(t testing.TB) uint16 {
	t.Helper()
	ln, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	require.NoError(t, ln.Close())
	return uint16(ln.Addr().(*net.TCPAddr).Port)
}

func TestTCPRefused(t *testing.T) {
	g := plug(t, newLink(t, Config{HostLoopback: true}), 0)
	_, err := g.dial(t, closedPort(t))
	require.ErrorContains(t, err, "refused")
}

// TestTCPIsolated: what means the host itself, or nobody, is refused.
func TestTCPIsolated(t *testing.T) {
	port := listen(t, func(*net.TCPConn) { t.Error("the guest has reached the host's loopback") })
	l := newLink(t, Config{})
	g := plug(t, l, 0)
	for _, to := range []string{
		"10.0.2.2", "10.0.2.3", "10.0.2.77", "127.0.0.1", "127.1.2.3", "0.0.0.0", "0.0.0.1",
		"169.254.169.254", "224.0.0.1", "240.0.0.1", "255.255.255.255",
	} {
		_, ok := l.target(netip.MustParseAddr(to))
		require.False(t, ok, to)
	}
	for _, to := range []string{"10.0.2.2", "10.0.2.3", "169.254.169.254", "240.0.0.1"} {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		_, err := gonet.DialContextTCP(ctx, g.stack, g.at(netip.MustParseAddr(to), port), ipv4.ProtocolNumber)
		cancel()
		require.Error(t, err, to)
		require.NotErrorIs(t, err, context.DeadlineExceeded, to)
	}
	at, ok := newLink(t, Config{HostLoopback: true}).target(netip.MustParseAddr("10.0.2.2"))
	require.True(t, ok)
	require.Equal(t, "127.0.0.1", at.String())
	at, ok = l.target(netip.MustParseAddr("192.0.2.1"))
	require.True(t, ok)
	require.Equal(t, "192.0.2.1", at.String())
}

// TestTCPHalfClose: the host ends first and still hears the guest.
func TestTCPHalfClose(t *testing.T) {
	heard := make(chan string, 1)
	port := listen(t, func(c *net.TCPConn) {
		c.Write([]byte("first")) //nolint:errcheck // a test
		c.CloseWrite()           //nolint:errcheck // a test
		p, _ := io.ReadAll(c)
		heard <- string(p)
	})
	g := plug(t, newLink(t, Config{HostLoopback: true}), 0)
	c, err := g.dial(t, port)
	require.NoError(t, err)
	deadline(t, c)
	p, err := io.ReadAll(c)
	require.NoError(t, err)
	require.Equal(t, "first", string(p))
	_, err = c.Write([]byte("second"))
	require.NoError(t, err)
	require.NoError(t, c.CloseWrite())
	require.Equal(t, "second", <-heard)
	require.NoError(t, c.Close())
}

func TestTCPReset(t *testing.T) {
	t.Run("by the host", func(t *testing.T) {
		port := listen(t, func(c *net.TCPConn) {
			io.ReadFull(c, make([]byte, 1)) //nolint:errcheck // a test
			reset(c)
		})
		g := plug(t, newLink(t, Config{HostLoopback: true}), 0)
		c, err := g.dial(t, port)
		require.NoError(t, err)
		deadline(t, c)
		_, err = c.Write([]byte{1})
		require.NoError(t, err)
		_, err = c.Read(make([]byte, 1))
		require.ErrorContains(t, err, "reset")
	})
	t.Run("by the guest", func(t *testing.T) {
		got := make(chan error, 1)
		port := listen(t, func(c *net.TCPConn) {
			c.Write([]byte{1}) //nolint:errcheck // a test
			_, err := io.ReadFull(c, make([]byte, 1))
			got <- err
		})
		g := plug(t, newLink(t, Config{HostLoopback: true}), 0)
		c, err := g.dial(t, port)
		require.NoError(t, err)
		deadline(t, c)
		_, err = c.Read(make([]byte, 1))
		require.NoError(t, err)
		g.stack.Close() // aborts what is open
		require.ErrorIs(t, <-got, syscall.ECONNRESET)
	})
}

func TestTCPMany(t *testing.T) {
	const n = 500
	port := listen(t, echo)
	l := newLink(t, Config{HostLoopback: true})
	g := plug(t, l, offloads["tso"])
	conns := make([]*gonet.TCPConn, n)
	var wg sync.WaitGroup
	for i := range conns {
		wg.Go(func() {
			c, err := g.dial(t, port)
			if err == nil {
				conns[i] = c
			}
		})
	}
	wg.Wait()
	for i, c := range conns {
		require.NotNil(t, c, i)
	}
	require.Len(t, l.tcpSlots, n)
	for _, c := range conns { // all are open now
		wg.Go(func() {
			p := make([]byte, 10000)
			deadline(t, c)
			c.Write(p) //nolint:errcheck // the read tells
			_, err := io.ReadFull(c, p)
			if err != nil {
				t.Error(err)
			}
			c.Close() //nolint:errcheck // a test
		})
	}
	wg.Wait()
	require.Eventually(t, func() bool { return len(l.tcpSlots) == 0 }, 20*time.Second, 10*time.Millisecond)
}

// TestTCPTooMany: beyond the bound, the guest is refused, and goes on afterwards.
func TestTCPTooMany(t *testing.T) {
	port := listen(t, echo)
	l := newLink(t, Config{HostLoopback: true})
	l.tcpSlots = make(slots, 1)
	g := plug(t, l, 0)
	first, err := g.dial(t, port)
	require.NoError(t, err)
	_, err = g.dial(t, port)
	require.ErrorContains(t, err, "refused")
	exchange(t, first, 1000)
	require.NoError(t, first.Close())
	require.Eventually(t, func() bool { return len(l.tcpSlots) == 0 }, 20*time.Second, 10*time.Millisecond)
	c, err := g.dial(t, port)
	require.NoError(t, err)
	require.NoError(t, c.Close())
}

func descriptors(t testing.TB) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	return len(all)
}

// TestClose: with everything open at once, Close leaves nothing behind. TestMain
// looks for goroutines.
func TestClose(t *testing.T) {
	port := listen(t, func(c *net.TCPConn) { io.Copy(io.Discard, c) }) //nolint:errcheck // a test
	before := descriptors(t)
	l, err := New(Config{HostLoopback: true, Publish: []netdev.Publish{
		{Proto: "tcp", Host: netip.MustParseAddrPort("127.0.0.1:0"), Guest: 80},
		{Proto: "udp", Host: netip.MustParseAddrPort("127.0.0.1:0"), Guest: 80},
	}})
	require.NoError(t, err)
	g := plug(t, l, offloads["tso"])
	for range 20 {
		c, err := g.dial(t, port)
		require.NoError(t, err)
		_, err = c.Write([]byte("x"))
		require.NoError(t, err)
	}
	u, err := gonet.DialUDP(g.stack, nil, new(g.at(l.addrs.gateway, port)), ipv4.ProtocolNumber)
	require.NoError(t, err)
	_, err = u.Write([]byte("x"))
	require.NoError(t, err)
	ln, err := gonet.ListenTCP(g.stack, g.at(l.addrs.guest, 80), ipv4.ProtocolNumber)
	require.NoError(t, err)
	defer ln.Close()                                           //nolint:errcheck // a test
	in, err := net.Dial("tcp", l.Published()[0].Host.String()) // the guest does not accept
	require.NoError(t, err)
	defer in.Close() //nolint:errcheck // a test
	in2, err := net.Dial("udp", l.Published()[1].Host.String())
	require.NoError(t, err)
	defer in2.Close() //nolint:errcheck // a test
	_, err = in2.Write([]byte("x"))
	require.NoError(t, err)

	waiting := make(chan error, 1)
	go func() { waiting <- l.Queue(0).Wait(context.Background()) }()
	done := make(chan error, 1)
	go func() { done <- l.Close() }()
	select {
	case err := <-done:
		require.NoError(t, err)
	case <-time.After(20 * time.Second):
		t.Fatal("Close hangs")
	}
	for err = <-waiting; err == nil; { // a frame may have been there
		err = l.Queue(0).Wait(context.Background())
	}
	require.ErrorIs(t, err, ethernet.ErrClosed)
	require.ErrorIs(t, l.Queue(0).Send([][]byte{make([]byte, 100)}), ethernet.ErrClosed)
	_, err = l.Queue(0).Receive([][]byte{make([]byte, 100)})
	require.ErrorIs(t, err, ethernet.ErrClosed)
	require.NoError(t, l.Close())
	g.stop()
	in.Close()  //nolint:errcheck // a test
	in2.Close() //nolint:errcheck // a test
	// The server's side of the connections closes when it has read the reset.
	require.Eventually(t, func() bool { return descriptors(t) <= before }, 10*time.Second, 10*time.Millisecond)
}
