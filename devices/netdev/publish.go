package netdev

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// A Publish makes a port of the guest's reachable through one of the host's.
type Publish struct {
	Proto string // "tcp" or "udp"
	// Host is where to listen. Port 0 takes one that is free.
	Host netip.AddrPort
	// Guest is the port in the guest.
	Guest uint16
}

func (p Publish) String() string { return fmt.Sprintf("%s:%d/%s", p.Host, p.Guest, p.Proto) }

// ParsePublish reads [ADDR:]HOST:GUEST[/tcp|/udp]. ADDR is an IPv4 address, or an
// IPv6 address in brackets. Without ADDR it is 127.0.0.1: a guest under test
// often has no password, so who wants to show it to the network says so, with
// 0.0.0.0. HOST 0 takes a port that is free. Errors wrap ErrOptions.
func ParsePublish(text string) (Publish, error) {
	p, err := parsePublish(text)
	if err != nil {
		return Publish{}, fmt.Errorf("%w %q: %w", ErrOptions, text, err)
	}
	return p, nil
}

func parsePublish(text string) (Publish, error) {
	ports, proto, given := strings.Cut(text, "/")
	if !given {
		proto = "tcp"
	}
	if proto != "tcp" && proto != "udp" {
		return Publish{}, fmt.Errorf("%q is not a protocol; say tcp or udp", proto)
	}
	i := strings.LastIndexByte(ports, ':')
	if i < 0 {
		return Publish{}, errors.New("say which port of the host and which of the guest, as in 2222:22")
	}
	guest, err := port(ports[i+1:])
	if err != nil {
		return Publish{}, err
	}
	if guest == 0 {
		return Publish{}, errors.New("the guest's port can not be 0")
	}
	addr, hostText := netip.AddrFrom4([4]byte{127, 0, 0, 1}), ports[:i]
	if strings.Contains(hostText, ":") {
		var addrText string
		if addrText, hostText, err = net.SplitHostPort(hostText); err != nil {
			return Publish{}, fmt.Errorf("%q is not ADDR:PORT; IPv6 addresses go in brackets", ports[:i])
		}
		if addr, err = netip.ParseAddr(addrText); err != nil {
			return Publish{}, fmt.Errorf("%q is not an IP address", addrText)
		}
	}
	host, err := port(hostText)
	if err != nil {
		return Publish{}, err
	}
	return Publish{Proto: proto, Host: netip.AddrPortFrom(addr.Unmap(), host), Guest: guest}, nil
}

func port(text string) (uint16, error) {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return 0, fmt.Errorf("%q is not a port, which is a number from 0 to 65535", text)
	}
	return uint16(n), nil
}
