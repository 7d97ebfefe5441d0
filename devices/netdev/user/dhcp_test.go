package user

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"github.com/huskvm/husk/devices/ethernet"
	"github.com/huskvm/husk/devices/netdev"
)

// request is a DHCP message as a client sends it.
func request(kind byte, client netip.Addr, options ...[]byte) []byte {
	p := make([]byte, dhcpOptions)
	p[0], p[1], p[2] = 1, 1, 6
	copy(p[dhcpXID:], "xid!")
	copy(p[dhcpCIAddr:], client.AsSlice())
	copy(p[dhcpCHAddr:], guestMAC)
	binary.BigEndian.PutUint32(p[dhcpCookie:], dhcpMagic)
	p = append(p, optType, 1, kind)
	for _, o := range options {
		p = append(p, o...)
	}
	return append(p, optEnd)
}

func option(code byte, value []byte) []byte {
	return append([]byte{code, byte(len(value))}, value...)
}

// options takes an answer apart.
func options(t *testing.T, p []byte) map[byte][]byte {
	t.Helper()
	require.GreaterOrEqual(t, len(p), dhcpMinimum)
	require.EqualValues(t, 2, p[0])
	require.Equal(t, "xid!", string(p[dhcpXID:dhcpXID+4]))
	require.Equal(t, []byte(guestMAC), p[dhcpCHAddr:dhcpCHAddr+6])
	require.EqualValues(t, dhcpMagic, binary.BigEndian.Uint32(p[dhcpCookie:]))
	all := map[byte][]byte{}
	for o := p[dhcpOptions:]; o[0] != optEnd; o = o[2+int(o[1]):] {
		all[o[0]] = o[2 : 2+int(o[1])]
	}
	return all
}

// frame makes an Ethernet frame with a header of virtio's from an IPv4 packet with a
// UDP datagram, all checksums right.
func udpFrame(dst net.HardwareAddr, from, to netip.AddrPort, data []byte) []byte {
	p := make([]byte, ethernet.HeaderSize+14+20+8, ethernet.HeaderSize+14+20+8+len(data))
	ethernet.Header{}.Put(p)
	p = append(p, data...)
	eth := header.Ethernet(p[ethernet.HeaderSize:])
	eth.Encode(&header.EthernetFields{SrcAddr: tcpip.LinkAddress(guestMAC), DstAddr: tcpip.LinkAddress(dst), Type: header.IPv4ProtocolNumber})
	ip := header.IPv4(eth[14:])
	ip.Encode(&header.IPv4Fields{
		TotalLength: uint16(len(ip)), TTL: 64, Protocol: 17,
		SrcAddr: address(from.Addr()), DstAddr: address(to.Addr()),
	})
	ip.SetChecksum(^ip.CalculateChecksum())
	u := header.UDP(ip[20:])
	u.Encode(&header.UDPFields{SrcPort: from.Port(), DstPort: to.Port(), Length: uint16(len(u))})
	u.SetChecksum(^checksum.Checksum(u, header.PseudoHeaderChecksum(17, ip.SourceAddress(), ip.DestinationAddress(), uint16(len(u)))))
	return p
}

var broadcast = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// TestDHCPHandshake speaks to the server as a client without an address does, in
// frames.
func TestDHCPHandshake(t *testing.T) {
	l := newLink(t, Config{Net: netip.MustParsePrefix("192.168.7.32/27"), MTU: 9000, HostName: "web"})
	at := netip.MustParseAddr
	ask := func(p []byte) ([]byte, header.IPv4) {
		f := udpFrame(broadcast, netip.MustParseAddrPort("0.0.0.0:68"), netip.MustParseAddrPort("255.255.255.255:67"), p)
		require.NoError(t, l.Queue(0).Send([][]byte{f}))
		got := receiveFrame(t, l)
		ip := header.IPv4(got[14:])
		require.EqualValues(t, 17, ip.Protocol())
		require.EqualValues(t, 68, header.UDP(ip[20:]).DestinationPort())
		return got[14+20+8:], ip
	}
	offer, ip := ask(request(dhcpDiscover, netip.IPv4Unspecified(), option(optClientID, []byte("me"))))
	require.Equal(t, at("255.255.255.255"), addr(ip.DestinationAddress()))
	require.Equal(t, at("192.168.7.34"), addr(ip.SourceAddress()))
	require.Equal(t, at("192.168.7.47").AsSlice(), offer[dhcpYIAddr:dhcpYIAddr+4])
	want := map[byte][]byte{
		optType: {dhcpOffer}, optServer: at("192.168.7.34").AsSlice(), optRouter: at("192.168.7.34").AsSlice(),
		optDNS: at("192.168.7.35").AsSlice(), optMask: {255, 255, 255, 224}, optMTU: {9000 >> 8, 9000 & 0xff},
		optLease: {0, 1, 0x51, 0x80}, optHostName: []byte("web"), optClientID: []byte("me"),
	}
	require.Equal(t, want, options(t, offer))

	server := option(optServer, at("192.168.7.34").AsSlice())
	ack, _ := ask(request(dhcpRequest, netip.IPv4Unspecified(), server, option(optRequested, at("192.168.7.47").AsSlice())))
	want[optType] = []byte{dhcpAck}
	delete(want, optClientID)
	require.Equal(t, want, options(t, ack))
	require.Equal(t, at("192.168.7.47").AsSlice(), ack[dhcpYIAddr:dhcpYIAddr+4])

	nak, _ := ask(request(dhcpRequest, netip.IPv4Unspecified(), server, option(optRequested, at("192.168.7.40").AsSlice())))
	require.Equal(t, map[byte][]byte{optType: {dhcpNak}, optServer: at("192.168.7.34").AsSlice()}, options(t, nak))
	require.Equal(t, make([]byte, 4), nak[dhcpYIAddr:dhcpYIAddr+4])
}

func TestDHCPAnswers(t *testing.T) {
	l := newLink(t, Config{})
	at, none := netip.MustParseAddr, netip.IPv4Unspecified()
	for name, c := range map[string]struct {
		p    []byte
		kind byte // 0 for none
		to   string
	}{
		"renewing":         {request(dhcpRequest, at("10.0.2.15")), dhcpAck, "10.0.2.15"},
		"rebooting":        {request(dhcpRequest, none, option(optRequested, at("10.0.2.15").AsSlice())), dhcpAck, "255.255.255.255"},
		"of another net":   {request(dhcpRequest, none, option(optRequested, at("192.168.1.5").AsSlice())), dhcpNak, "255.255.255.255"},
		"of nothing":       {request(dhcpRequest, none), dhcpNak, "255.255.255.255"},
		"another server's": {request(dhcpRequest, none, option(optServer, at("10.0.2.9").AsSlice())), 0, ""},
		"inform":           {request(dhcpInform, at("10.0.2.77")), dhcpAck, "10.0.2.77"},
		"inform elsewhere": {request(dhcpInform, at("192.0.2.1")), 0, ""},
		"release":          {request(7, at("10.0.2.15")), 0, ""},
		"decline":          {request(4, none), 0, ""},
	} {
		m, err := parseDHCP(c.p)
		require.NoError(t, err, name)
		answer, to := l.answerDHCP(&m)
		if c.kind == 0 {
			require.Nil(t, answer, name)
			continue
		}
		o := options(t, answer)
		require.Equal(t, []byte{c.kind}, o[optType], name)
		require.Equal(t, at(c.to), addr(to), name)
		require.Equal(t, c.kind == dhcpAck && name != "inform", o[optLease] != nil, name)
	}
}

func FuzzDHCP(f *testing.F) {
	none := netip.IPv4Unspecified()
	f.Add(request(dhcpDiscover, none, option(optClientID, []byte("client"))))
	f.Add(request(dhcpRequest, none, option(optRequested, []byte{10, 0, 2, 15}), option(optServer, []byte{10, 0, 2, 2})))
	f.Add(request(dhcpInform, netip.MustParseAddr("10.0.2.77"), []byte{0, 0}, option(12, []byte("name"))))
	l := &Link{cfg: Config{Net: netdev.DefaultNet, MTU: 1500, HostName: "web"}, addrs: addressesOf(netdev.DefaultNet)}
	f.Fuzz(func(t *testing.T, p []byte) {
		m, err := parseDHCP(p)
		if err != nil {
			return
		}
		answer, _ := l.answerDHCP(&m)
		if answer == nil {
			return
		}
		require.LessOrEqual(t, len(answer), 1500)
		require.EqualValues(t, 2, answer[0])
		require.Equal(t, p[dhcpXID:dhcpXID+4], answer[dhcpXID:dhcpXID+4])
		require.Equal(t, byte(optType), answer[dhcpOptions])
	})
}
