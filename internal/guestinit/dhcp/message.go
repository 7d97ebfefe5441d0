// Package dhcp is a client of the Dynamic Host Configuration Protocol (RFC 2131) for a
// network card on Ethernet.
package dhcp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"strings"
	"time"
)

// Ports of RFC 2131 §4.1.
const (
	ServerPort = 67
	ClientPort = 68
)

// Kinds of message: RFC 2132 §9.6.
const (
	discover = 1
	offer    = 2
	request  = 3
	ack      = 5
	nak      = 6
)

// Options: RFC 2132, by their codes; the classless routes are RFC 3442's.
const (
	optPad       = 0
	optMask      = 1
	optRouter    = 3
	optDNS       = 6
	optHostName  = 12
	optDomain    = 15
	optMTU       = 26
	optRequested = 50
	optLease     = 51
	optType      = 53
	optServer    = 54
	optWanted    = 55
	optT1        = 58
	optT2        = 59
	optRoutes    = 121
	optEnd       = 255
)

// Offsets in a message, in bytes: RFC 2131 §2.
const (
	atXID     = 4
	atFlags   = 10
	atClient  = 12 // ciaddr
	atYours   = 16 // yiaddr
	atHW      = 28 // chaddr
	atCookie  = 236
	atOptions = 240
	minimum   = 300 // of BOOTP, RFC 1542 §2.1: some relays want it
)

const (
	magic     = 0x63825363
	broadcast = 0x8000 // flags: answer by broadcast, for there is no address yet
)

// A question is what a client sends.
type question struct {
	kind      byte
	xid       uint32
	hw        net.HardwareAddr // of 6 bytes
	host      string           // "" for none
	client    netip.Addr       // the address that it has; zero for none
	requested netip.Addr       // that it wants; zero for none
	server    netip.Addr       // the one that it has chosen; zero for none
}

// wanted are the options that a server should give.
var wanted = []byte{optMask, optRouter, optDNS, optDomain, optMTU, optLease, optT1, optT2, optRoutes}

// bytes is the message.
func (q *question) bytes() []byte {
	const bootRequest, ethernet = 1, 1
	p := make([]byte, atOptions, minimum)
	p[0], p[1], p[2] = bootRequest, ethernet, 6
	be := binary.BigEndian
	be.PutUint32(p[atXID:], q.xid)
	copy(p[atHW:atHW+6], q.hw)
	be.PutUint32(p[atCookie:], magic)
	if q.client.Is4() {
		copy(p[atClient:], q.client.AsSlice())
	} else {
		be.PutUint16(p[atFlags:], broadcast)
	}
	add := func(code byte, value []byte) {
		p = append(append(p, code, byte(len(value))), value...)
	}
	add(optType, []byte{q.kind})
	if q.requested.Is4() {
		add(optRequested, q.requested.AsSlice())
	}
	if q.server.Is4() {
		add(optServer, q.server.AsSlice())
	}
	if q.host != "" && len(q.host) <= 63 {
		add(optHostName, []byte(q.host))
	}
	add(optWanted, wanted)
	p = append(p, optEnd)
	for len(p) < minimum {
		p = append(p, optPad)
	}
	return p
}

// A Route is one that a server gives.
type Route struct {
	To  netip.Prefix
	Via netip.Addr // unspecified for what is on the card's own network
}

// A Lease is what a server gives a client.
type Lease struct {
	Address netip.Prefix
	Server  netip.Addr
	Routes  []Route // the default route among them
	DNS     []netip.Addr
	Domain  string // "" for none
	MTU     int    // 0 for none
	// Time is how long it holds. After T1 the server is asked to renew it, after T2 any.
	Time, T1, T2 time.Duration
}

// A reply is a server's message.
type reply struct {
	kind  byte
	lease Lease
}

var errMessage = errors.New("not a DHCP message for this client")

// parse reads an answer to questions of that xid and hardware address.
func parse(p []byte, xid uint32, hw net.HardwareAddr) (reply, error) {
	const bootReply = 2
	var r reply
	be := binary.BigEndian
	if len(p) < atOptions || p[0] != bootReply || be.Uint32(p[atXID:]) != xid ||
		!bytes.Equal(p[atHW:atHW+6], hw) || be.Uint32(p[atCookie:]) != magic {
		return r, errMessage
	}
	l := &r.lease
	bits := 0
	var routers, routes []byte
	for o := p[atOptions:]; len(o) > 0 && o[0] != optEnd; {
		if o[0] == optPad {
			o = o[1:]
			continue
		}
		if len(o) < 2 || len(o)-2 < int(o[1]) {
			return r, errMessage
		}
		value := o[2 : 2+int(o[1])]
		switch code := o[0]; {
		case code == optType && len(value) == 1:
			r.kind = value[0]
		case code == optMask && len(value) == 4:
			bits, _ = net.IPMask(value).Size()
		case code == optServer && len(value) == 4:
			l.Server = netip.AddrFrom4([4]byte(value))
		case code == optRouter:
			routers = value
		case code == optRoutes:
			routes = value
		case code == optDNS:
			l.DNS = addresses(value)
		case code == optDomain:
			l.Domain = domain(value)
		case code == optMTU && len(value) == 2:
			l.MTU = int(be.Uint16(value))
		case code == optLease && len(value) == 4:
			l.Time = seconds(value)
		case code == optT1 && len(value) == 4:
			l.T1 = seconds(value)
		case code == optT2 && len(value) == 4:
			l.T2 = seconds(value)
		}
		o = o[2+len(value):]
	}
	yours := netip.AddrFrom4([4]byte(p[atYours:]))
	switch r.kind {
	case nak:
		return r, nil
	case offer, ack:
	default:
		return r, errMessage
	}
	if !yours.IsGlobalUnicast() || !l.Server.IsValid() {
		return r, errMessage
	}
	if bits == 0 {
		bits = 32
	}
	l.Address = netip.PrefixFrom(yours, bits)
	// RFC 3442: who gives classless routes means only those.
	if l.Routes = classless(routes); l.Routes == nil {
		for _, a := range addresses(routers) {
			l.Routes = []Route{{netip.PrefixFrom(netip.IPv4Unspecified(), 0), a}}
			break
		}
	}
	if l.MTU < 576 { // RFC 791: everybody takes that
		l.MTU = 0
	}
	l.settleTimes()
	return r, nil
}

// The times of a lease.
const (
	shortest = time.Minute
	longest  = 1 << 32 * time.Second // RFC 2131 §3.3: all ones are for ever
)

// settleTimes puts times into an order: RFC 2131 §4.4.5.
func (l *Lease) settleTimes() {
	if l.Time == 0 {
		l.Time = longest
	}
	l.Time = max(l.Time, shortest)
	if l.T2 <= 0 || l.T2 >= l.Time {
		l.T2 = l.Time / 8 * 7
	}
	if l.T1 <= 0 || l.T1 >= l.T2 {
		l.T1 = min(l.Time/2, l.T2)
	}
}

func seconds(value []byte) time.Duration {
	return time.Duration(binary.BigEndian.Uint32(value)) * time.Second
}

// addresses are those in an option, without what is none of a host's.
func addresses(value []byte) []netip.Addr {
	var list []netip.Addr
	for ; len(value) >= 4; value = value[4:] {
		if a := netip.AddrFrom4([4]byte(value)); a.IsGlobalUnicast() || a.IsLoopback() {
			list = append(list, a)
		}
	}
	return list
}

// domain is a name that may stand in /etc/resolv.conf, or "".
func domain(value []byte) string {
	name := strings.TrimRight(string(value), "\x00")
	for _, c := range []byte(name) {
		if c <= ' ' || c >= 0x7f {
			return ""
		}
	}
	return name
}

// classless reads the routes of RFC 3442: nil if they are none.
func classless(value []byte) []Route {
	var list []Route
	for len(value) > 0 {
		bits := int(value[0])
		n := (bits + 7) / 8
		if bits > 32 || len(value) < 1+n+4 {
			return nil
		}
		var to [4]byte
		copy(to[:], value[1:1+n])
		prefix := netip.PrefixFrom(netip.AddrFrom4(to), bits).Masked()
		list = append(list, Route{prefix, netip.AddrFrom4([4]byte(value[1+n:]))})
		value = value[1+n+4:]
	}
	return list
}
