package user

import (
	"encoding/binary"
	"errors"
	"net/netip"
)

// Ports of RFC 2131 §4.1.
const (
	dhcpServerPort = 67
	dhcpClientPort = 68
)

// Kinds of message: RFC 2132 §9.6.
const (
	dhcpDiscover = 1
	dhcpOffer    = 2
	dhcpRequest  = 3
	dhcpAck      = 5
	dhcpNak      = 6
	dhcpInform   = 8
)

// Options: RFC 2132, by their codes.
const (
	optPad       = 0
	optMask      = 1
	optRouter    = 3
	optDNS       = 6
	optHostName  = 12
	optMTU       = 26
	optRequested = 50
	optLease     = 51
	optType      = 53
	optServer    = 54
	optClientID  = 61
	optEnd       = 255
)

// Offsets in a message, in bytes: RFC 2131 §2.
const (
	dhcpXID     = 4
	dhcpFlags   = 10
	dhcpCIAddr  = 12
	dhcpYIAddr  = 16
	dhcpSIAddr  = 20
	dhcpGIAddr  = 24
	dhcpCHAddr  = 28
	dhcpCookie  = 236
	dhcpOptions = 240
	dhcpMinimum = 300 // of BOOTP, RFC 1542 §2.1: some clients want it
)

const dhcpMagic = 0x63825363

var errDHCP = errors.New("not a DHCP request")

// A dhcpMessage is what the server wants to know of a request.
type dhcpMessage struct {
	fixed     [dhcpCookie]byte // the header, as it came
	kind      byte
	client    netip.Addr // ciaddr: the address that the client has
	requested netip.Addr // the address it asks for; invalid if none
	server    netip.Addr // the server it has chosen; invalid if none
	clientID  []byte
}

// parseDHCP reads a request of a client's on Ethernet.
func parseDHCP(p []byte) (dhcpMessage, error) {
	var m dhcpMessage
	const bootRequest, ethernet = 1, 1
	if len(p) < dhcpOptions || p[0] != bootRequest || p[1] != ethernet || p[2] != 6 ||
		binary.BigEndian.Uint32(p[dhcpCookie:]) != dhcpMagic {
		return m, errDHCP
	}
	copy(m.fixed[:], p)
	m.client = netip.AddrFrom4([4]byte(p[dhcpCIAddr:]))
	for o := p[dhcpOptions:]; len(o) > 0 && o[0] != optEnd; {
		if o[0] == optPad {
			o = o[1:]
			continue
		}
		if len(o) < 2 || len(o)-2 < int(o[1]) {
			return m, errDHCP
		}
		value := o[2 : 2+int(o[1])]
		switch {
		case o[0] == optType && len(value) == 1:
			m.kind = value[0]
		case o[0] == optRequested && len(value) == 4:
			m.requested = netip.AddrFrom4([4]byte(value))
		case o[0] == optServer && len(value) == 4:
			m.server = netip.AddrFrom4([4]byte(value))
		case o[0] == optClientID && len(value) > 0:
			m.clientID = append([]byte(nil), value...)
		}
		o = o[2+len(value):]
	}
	if m.kind == 0 {
		return m, errDHCP
	}
	return m, nil
}

// A dhcpReply is a message that is being written.
type dhcpReply struct{ p []byte }

// reply begins the answer to m, in which the client's address is yours.
func (m *dhcpMessage) reply(kind byte, yours netip.Addr) *dhcpReply {
	const bootReply = 2
	r := &dhcpReply{p: make([]byte, dhcpOptions, dhcpMinimum)}
	copy(r.p[:dhcpXID+4], m.fixed[:])
	r.p[0], r.p[3] = bootReply, 0
	copy(r.p[dhcpFlags:dhcpFlags+2], m.fixed[dhcpFlags:])
	if kind == dhcpAck {
		copy(r.p[dhcpCIAddr:dhcpYIAddr], m.fixed[dhcpCIAddr:])
	}
	if yours.Is4() {
		copy(r.p[dhcpYIAddr:dhcpSIAddr], yours.AsSlice())
	}
	copy(r.p[dhcpGIAddr:dhcpCHAddr+16], m.fixed[dhcpGIAddr:])
	binary.BigEndian.PutUint32(r.p[dhcpCookie:], dhcpMagic)
	r.option(optType, []byte{kind})
	if len(m.clientID) > 0 { // RFC 6842
		r.option(optClientID, m.clientID)
	}
	return r
}

// option adds one, of at most 255 bytes.
func (r *dhcpReply) option(code byte, value []byte) {
	r.p = append(append(r.p, code, byte(len(value))), value...)
}

func (r *dhcpReply) bytes() []byte {
	p := append(r.p, optEnd)
	for len(p) < dhcpMinimum {
		p = append(p, optPad)
	}
	return p
}
