package user

import "net/netip"

// private are addresses that no guest reaches through the host: those that mean
// the host itself or its link. 169.254.0.0/16 is also where clouds keep a
// machine's credentials. (RFC 6890)
var private = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("127.0.0.0/8"),
	netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("224.0.0.0/4"),
	netip.MustParsePrefix("240.0.0.0/4"),
}

// target tells where on the host's side an address leads that the guest sends to.
// The network's own addresses lead nowhere, but for the gateway's where the host's
// loopback was asked for. Other addresses of the host's are as reachable as
// those of any machine.
func (l *Link) target(to netip.Addr) (netip.Addr, bool) {
	if to == l.addrs.gateway && l.cfg.HostLoopback {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1}), true
	}
	if !to.Is4() || l.cfg.Net.Contains(to) {
		return netip.Addr{}, false
	}
	for _, p := range private {
		if p.Contains(to) {
			return netip.Addr{}, false
		}
	}
	return to, true
}
