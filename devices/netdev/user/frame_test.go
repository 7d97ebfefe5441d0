package user

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/huskvm/husk/devices/ethernet"
	"github.com/huskvm/husk/devices/netdev"
)

// receiveFrame waits for a frame and returns it without virtio's header.
func receiveFrame(t *testing.T, l *Link) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	p := make([]byte, ethernet.MaxFrame)
	require.NoError(t, l.Queue(0).Wait(ctx))
	n, err := l.Queue(0).Receive([][]byte{p})
	require.NoError(t, err)
	require.NotZero(t, n)
	return p[ethernet.HeaderSize:n]
}

func send(t *testing.T, l *Link, frame []byte) {
	t.Helper()
	require.NoError(t, l.Queue(0).Send([][]byte{make([]byte, ethernet.HeaderSize), frame}))
}

func arpRequest(sender, target netip.Addr) []byte {
	p := make([]byte, 14+header.ARPSize)
	header.Ethernet(p).Encode(&header.EthernetFields{
		SrcAddr: tcpip.LinkAddress(guestMAC), DstAddr: tcpip.LinkAddress(broadcast), Type: header.ARPProtocolNumber,
	})
	a := header.ARP(p[14:])
	a.SetIPv4OverEthernet()
	a.SetOp(header.ARPRequest)
	copy(a.HardwareAddressSender(), guestMAC)
	copy(a.ProtocolAddressSender(), sender.AsSlice())
	copy(a.ProtocolAddressTarget(), target.AsSlice())
	return p
}

// TestARP: the gateway and the name server answer, and nobody else does, or a
// guest that looks whether its address is free would find it taken.
func TestARP(t *testing.T) {
	l := newLink(t, Config{})
	for _, probe := range []string{"10.0.2.15", "10.0.2.77", "10.0.2.1", "192.0.2.1"} {
		send(t, l, arpRequest(netip.IPv4Unspecified(), netip.MustParseAddr(probe)))
	}
	for _, target := range []netip.Addr{l.addrs.gateway, l.addrs.dns} {
		send(t, l, arpRequest(l.addrs.guest, target))
		a := header.ARP(receiveFrame(t, l)[14:])
		require.Equal(t, header.ARPReply, a.Op())
		require.Equal(t, target.AsSlice(), a.ProtocolAddressSender())
		require.Equal(t, []byte(gatewayMAC), a.HardwareAddressSender())
	}
	require.Zero(t, l.end.NumQueued())
}

// echoRequest is a ping of the gateway with virtio's header in front.
func echoRequest(l *Link, from netip.Addr, size int) []byte {
	p := make([]byte, ethernet.HeaderSize+14+20+8+size)
	eth := header.Ethernet(p[ethernet.HeaderSize:])
	eth.Encode(&header.EthernetFields{
		SrcAddr: tcpip.LinkAddress(guestMAC), DstAddr: tcpip.LinkAddress(gatewayMAC), Type: header.IPv4ProtocolNumber,
	})
	ip := header.IPv4(eth[14:])
	ip.Encode(&header.IPv4Fields{
		TotalLength: uint16(len(ip)), TTL: 64, Protocol: 1, SrcAddr: address(from), DstAddr: address(l.addrs.gateway),
	})
	ip.SetChecksum(^ip.CalculateChecksum())
	icmp := header.ICMPv4(ip[20:])
	icmp.SetType(header.ICMPv4Echo)
	icmp.SetChecksum(^checksum.Checksum(icmp, 0))
	return p
}

// alive checks that the gateway still answers.
func alive(t *testing.T, l *Link) {
	t.Helper()
	require.NoError(t, l.Queue(0).Send([][]byte{echoRequest(l, l.addrs.guest, 10)}))
	for {
		f := receiveFrame(t, l)
		switch binary.BigEndian.Uint16(f[12:]) {
		case 0x806: // it looks for the guest
			require.EqualValues(t, header.ARPRequest, header.ARP(f[14:]).Op())
			a := arpRequest(l.addrs.guest, l.addrs.gateway)
			header.ARP(a[14:]).SetOp(header.ARPReply)
			copy(a, gatewayMAC)
			send(t, l, a)
		case 0x800:
			if f[14+9] == 1 && header.ICMPv4(f[14+20:]).Type() == header.ICMPv4EchoReply {
				return
			}
		}
	}
}

func TestMalformedFrames(t *testing.T) {
	l := newLink(t, Config{})
	q := l.Queue(0)
	alive(t, l)
	good := echoRequest(l, l.addrs.guest, 10)
	changed := func(f func(p []byte)) []byte {
		p := append([]byte(nil), good...)
		f(p)
		return p
	}
	put := func(h ethernet.Header) []byte { return changed(func(p []byte) { h.Put(p) }) }
	for name, p := range map[string][]byte{
		"empty":                    {},
		"runt":                     good[:ethernet.HeaderSize+13],
		"header alone":             good[:ethernet.HeaderSize],
		"giant":                    append(append([]byte(nil), good...), make([]byte, 1500)...),
		"huge":                     make([]byte, ethernet.MaxFrame+1),
		"checksum behind the end":  put(ethernet.Header{Flags: 1, ChecksumStart: 40, ChecksumOffset: 60}),
		"checksum far behind":      put(ethernet.Header{Flags: 1, ChecksumStart: 0xffff, ChecksumOffset: 0xffff}),
		"segments of 0":            put(ethernet.Header{Flags: 1, Segment: 1, ChecksumStart: 34, ChecksumOffset: 6}),
		"segment without checksum": put(ethernet.Header{Segment: 1, SegmentSize: 1000}),
		"segment of UDP":           put(ethernet.Header{Flags: 1, Segment: 3, SegmentSize: 1000}),
		"segment of IPv6":          put(ethernet.Header{Flags: 1, Segment: 4, SegmentSize: 1000}),
		"segment of nothing":       put(ethernet.Header{Segment: 0x7f}),
	} {
		require.ErrorIs(t, q.Send([][]byte{p}), ethernet.ErrFrame, name)
	}
	const eth, ip, icmp = ethernet.HeaderSize, ethernet.HeaderSize + 14, ethernet.HeaderSize + 34
	fix := func(p []byte) {
		h := header.IPv4(p[ip:])
		h.SetChecksum(0)
		h.SetChecksum(^h.CalculateChecksum())
	}
	for name, p := range map[string][]byte{ // what is lost without a word
		"IPv4 checksum":     changed(func(p []byte) { p[ip+10]++ }),
		"ICMP checksum":     changed(func(p []byte) { p[icmp+2]++ }),
		"IPv4 version":      changed(func(p []byte) { p[ip] = 0x65; fix(p) }),
		"IPv4 length":       changed(func(p []byte) { p[ip+2] = 0xff; fix(p) }),
		"IPv4 no length":    changed(func(p []byte) { p[ip+2], p[ip+3] = 0, 0; fix(p) }),
		"for another":       changed(func(p []byte) { p[eth+5]++ }),
		"from the gateway":  echoRequest(l, l.addrs.gateway, 10),
		"from elsewhere":    echoRequest(l, netip.MustParseAddr("192.0.2.1"), 10),
		"from nobody":       echoRequest(l, netip.IPv4Unspecified(), 10),
		"from the loopback": echoRequest(l, netip.MustParseAddr("127.0.0.1"), 10),
		"unknown type":      changed(func(p []byte) { p[eth+12] = 0x99 }),
		"IPv6":              changed(func(p []byte) { p[eth+12], p[eth+13] = 0x86, 0xdd }),
		"short IPv4":        good[:ip+19],
		"short ARP":         append(append([]byte(nil), good[:eth+12]...), 8, 6, 0, 1),
	} {
		require.NoError(t, q.Send([][]byte{p}), name)
		time.Sleep(0)
		require.Zero(t, l.end.NumQueued(), name)
	}
	alive(t, l)
}

// TestScattered: any way of cutting a frame is the same frame.
func TestScattered(t *testing.T) {
	l := newLink(t, Config{})
	alive(t, l)
	p := echoRequest(l, l.addrs.guest, 500)
	var bytes [][]byte
	for i := range p {
		bytes = append(bytes, p[i:i+1], nil)
	}
	require.NoError(t, l.Queue(0).Send(bytes))
	room := make([]byte, len(p))
	var in [][]byte
	for i := range room {
		in = append(in, nil, room[i:i+1])
	}
	_, err := l.Queue(0).Receive(in[:len(in)-2])
	require.ErrorIs(t, err, ethernet.ErrTooLong)
	n, err := l.Queue(0).Receive(in)
	require.NoError(t, err)
	require.Zero(t, n, "a frame that did not fit is gone")
	require.NoError(t, l.Queue(0).Send(bytes))
	n, err = l.Queue(0).Receive(in)
	require.NoError(t, err)
	require.Equal(t, len(p), n)
	require.Equal(t, p[ethernet.HeaderSize+42:], room[ethernet.HeaderSize+42:])
}

// TestCut: a large segment becomes frames that the guest takes, with nothing lost.
func TestCut(t *testing.T) {
	const mss = 1000
	for _, payload := range []int{0, 1, mss, mss + 1, 3*mss - 1, 60000} {
		e := newEndpoint(1500)
		data := make([]byte, payload)
		for i := range data {
			data[i] = byte(i * 7)
		}
		pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{ReserveHeaderBytes: 14 + 20 + 32, Payload: buffer.MakeWithData(data)})
		tcp := header.TCP(pkt.TransportHeader().Push(32))
		tcp.Encode(&header.TCPFields{
			SrcPort: 1, DstPort: 2, SeqNum: 0xffffff00, DataOffset: 32,
			Flags: header.TCPFlagAck | header.TCPFlagPsh | header.TCPFlagFin,
		})
		ip := header.IPv4(pkt.NetworkHeader().Push(20))
		ip.Encode(&header.IPv4Fields{
			TotalLength: uint16(20 + 32 + payload), TTL: 64, Protocol: 6, ID: 9,
			SrcAddr: tcpip.AddrFrom4([4]byte{10, 0, 2, 2}), DstAddr: tcpip.AddrFrom4([4]byte{10, 0, 2, 15}),
		})
		header.Ethernet(pkt.LinkHeader().Push(14)).Encode(&header.EthernetFields{Type: header.IPv4ProtocolNumber})
		pkt.GSOOptions = stack.GSO{Type: stack.GSOTCPv4, NeedsCsum: true, CsumOffset: 16, MSS: mss, L3HdrLen: 20}
		_, whole := e.header(pkt)
		require.False(t, whole)
		var got []byte
		frames := cut(pkt)
		require.Len(t, frames, max(1, (payload+mss-1)/mss))
		for i, f := range frames {
			require.Equal(t, ethernet.Header{}, ethernet.ParseHeader(f))
			ip := header.IPv4(f[ethernet.HeaderSize+14:])
			require.True(t, ip.IsValid(len(ip)))
			require.EqualValues(t, len(ip), ip.TotalLength())
			require.True(t, ip.IsChecksumValid())
			require.EqualValues(t, 9+i, ip.ID())
			tcp := header.TCP(ip[20:])
			part := tcp[32:]
			require.LessOrEqual(t, len(part), mss)
			require.True(t, tcp.IsChecksumValid(ip.SourceAddress(), ip.DestinationAddress(), checksum.Checksum(part, 0), uint16(len(part))))
			require.EqualValues(t, uint32(0xffffff00+uint64(len(got))), tcp.SequenceNumber())
			require.Equal(t, i == len(frames)-1, tcp.Flags().Contains(header.TCPFlagFin))
			got = append(got, part...)
		}
		require.Equal(t, len(data), len(got))
		require.Equal(t, data, append([]byte{}, got...))
		e.offloads.Store(uint32(ethernet.Checksum | ethernet.TSO4))
		h, whole := e.header(pkt)
		require.True(t, whole)
		want := ethernet.Header{Flags: 1, ChecksumStart: 34, ChecksumOffset: 16}
		if payload > mss {
			want.Segment, want.SegmentSize, want.HeaderBytes = ethernet.SegmentTCP4, mss, 66
		}
		require.Equal(t, want, h)
		pkt.DecRef()
		e.Close()
	}
}

func TestInfo(t *testing.T) {
	l := newLink(t, Config{})
	i := l.Info()
	require.Equal(t, 1500, i.MTU)
	require.Equal(t, 1, i.Queues)
	require.NotZero(t, i.Takes&ethernet.TSO4)
	require.NoError(t, l.SetQueues(1))
	require.Error(t, l.SetQueues(2))
	for _, c := range []Config{
		{MTU: 100},
		{MTU: 1 << 16},
		{Net: netip.MustParsePrefix("10.0.0.0/28")},
		{Net: netip.MustParsePrefix("10.0.0.1/24")},
		{Net: netip.MustParsePrefix("fd00::/64")},
	} {
		_, err := New(c)
		require.ErrorIs(t, err, ErrUser)
	}
}

// synFrame opens a connection to a port of the gateway's.
func synFrame(l *Link, port uint16) []byte {
	p := udpFrame(gatewayMAC, netip.AddrPortFrom(l.addrs.guest, 1000), netip.AddrPortFrom(l.addrs.gateway, port), make([]byte, 12))
	ip := header.IPv4(p[ethernet.HeaderSize+14:])
	ip[9] = 6
	ip.SetChecksum(0)
	ip.SetChecksum(^ip.CalculateChecksum())
	header.TCP(ip[20:]).Encode(&header.TCPFields{SrcPort: 1000, DstPort: port, SeqNum: 1, DataOffset: 20, Flags: header.TCPFlagSyn, WindowSize: 1000})
	ethernet.Header{Flags: ethernet.HeaderNeedsChecksum, ChecksumStart: 34, ChecksumOffset: 16}.Put(p)
	return p
}

// TestCloseInHandshake: a guest that begins connections and never goes on, and one
// that is not there for those from outside, do not hold Close up.
func TestCloseInHandshake(t *testing.T) {
	port := listen(t, func(c *net.TCPConn) { io.Copy(io.Discard, c) }) //nolint:errcheck // a test
	l := newLink(t, Config{HostLoopback: true, Publish: []netdev.Publish{
		{Proto: "tcp", Host: netip.MustParseAddrPort("127.0.0.1:0"), Guest: 80},
	}})
	alive(t, l)
	require.NoError(t, l.Queue(0).Send([][]byte{synFrame(l, port)}))
	for {
		f := receiveFrame(t, l)
		if f[14+9] == 6 {
			require.Equal(t, header.TCPFlagSyn|header.TCPFlagAck, header.TCP(f[34:]).Flags())
			break
		}
	}
	c, err := net.Dial("tcp", l.Published()[0].Host.String())
	require.NoError(t, err)
	defer c.Close() //nolint:errcheck // a test
	require.Eventually(t, func() bool { return len(l.tcpSlots) == 2 }, 10*time.Second, time.Millisecond)
	done := make(chan error, 1)
	go func() { done <- l.Close() }()
	select {
	case err := <-done:
		require.NoError(t, err)
	case <-time.After(20 * time.Second):
		t.Fatal("Close hangs")
	}
	require.Empty(t, l.tcpSlots)
}

// FuzzFrames gives frames of the guest's to a network, cut into pieces as the first
// byte says. It must go on answering.
func FuzzFrames(f *testing.F) {
	l, err := New(Config{ResolvConf: "/nonexistent", dnsPort: 9})
	require.NoError(f, err)
	f.Cleanup(func() { l.Close() }) //nolint:errcheck // returns nil
	at := netip.MustParseAddrPort
	add := func(p []byte) { f.Add(append([]byte{3}, p...)) }
	add(echoRequest(l, l.addrs.guest, 20))
	add(append(make([]byte, ethernet.HeaderSize), arpRequest(l.addrs.guest, l.addrs.gateway)...))
	add(udpFrame(broadcast, at("0.0.0.0:68"), at("255.255.255.255:67"), request(dhcpDiscover, netip.IPv4Unspecified())))
	add(udpFrame(gatewayMAC, at("10.0.2.15:1000"), at("10.0.2.3:53"), []byte("\x12\x34 a short query")))
	add(udpFrame(gatewayMAC, at("10.0.2.15:1000"), at("10.0.2.2:9"), []byte("data")))
	add(synFrame(l, 80))
	room := make([]byte, ethernet.MaxFrame)
	f.Fuzz(func(t *testing.T, p []byte) {
		if len(p) < 1 {
			return
		}
		// Only the network's own addresses: a fuzzer must not send anything out.
		if len(p) > 1+ethernet.HeaderSize+34 {
			copy(p[1+ethernet.HeaderSize+14+16:], []byte{10, 0, 2})
		}
		step := max(int(p[0]), 1)
		var pieces [][]byte
		for p = p[1:]; len(p) > 0; p = p[min(step, len(p)):] {
			pieces = append(pieces, p[:min(step, len(p))])
		}
		l.Queue(0).Send(pieces) //nolint:errcheck // it may be refused
		for {
			n, err := l.Queue(0).Receive([][]byte{room})
			require.NoError(t, err)
			if n == 0 {
				break
			}
			require.GreaterOrEqual(t, n, ethernet.HeaderSize+14)
		}
	})
}
