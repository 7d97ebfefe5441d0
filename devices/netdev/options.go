package netdev

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// ErrOptions is why ParseOptions or ParsePublish refused its text.
var ErrOptions = errors.New("bad network option")

// A Kind is what a network card is plugged into.
type Kind string

// The kinds.
const (
	KindUser Kind = "user" // a network in this process
	KindTap  Kind = "tap"  // an interface of the host
	KindNone Kind = "none" // no card
)

// A Vhost says whether the host's kernel serves the queues of a tap's card by itself
// (vhost-net).
type Vhost string

// The choices.
const (
	VhostAuto Vhost = "auto" // where it can
	VhostOn   Vhost = "on"   // or fail
	VhostOff  Vhost = "off"
)

// What an MTU can be, in bytes.
const (
	// MinMTU is what IPv6 takes (RFC 8200 §5). With much smaller packets the user
	// network's stack, which counts what each costs, loses some.
	MinMTU = 1280
	// MaxMTU leaves room for headers in 64 KiB.
	MaxMTU     = 65520
	DefaultMTU = 1500
)

const (
	maxQueues = 64 // processors a guest may have
	maxIfName = 15 // IFNAMSIZ-1
)

// DefaultNet is the user network's default address range: 10.0.2.0/24.
var DefaultNet = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 2, 0}), 24)

// Options is what a network option says.
type Options struct {
	Kind Kind
	// MTU in bytes; 0 leaves it to the link: DefaultMTU for user, the
	// interface's own for tap.
	MTU int
	// MAC is the card's address; nil lets the caller choose (see StableMAC).
	MAC net.HardwareAddr

	// For tap.
	Name   string // of the interface; may hold one %d for the kernel to number
	Queues int    // at least 1
	Vhost  Vhost  // "" is VhostAuto

	// For user.
	Net          netip.Prefix // see DefaultNet
	HostLoopback bool         // the gateway's address leads to the host's 127.0.0.1
}

// ParseOptions reads
//
//	user[,hostloopback=on|off][,mtu=N][,net=A.B.C.D/N][,mac=AA:BB:CC:DD:EE:FF]
//	tap=NAME[,queues=N][,vhost=auto|on|off][,mtu=N][,mac=…]
//	none
//
// Errors wrap ErrOptions.
func ParseOptions(text string) (Options, error) {
	o, err := parseOptions(text)
	if err != nil {
		return Options{}, fmt.Errorf("%w %q: %w", ErrOptions, text, err)
	}
	return o, nil
}

func parseOptions(text string) (Options, error) {
	words := strings.Split(text, ",")
	kind, name, named := strings.Cut(words[0], "=")
	o := Options{Kind: Kind(kind), Queues: 1}
	switch {
	case o.Kind == KindUser && !named:
		o.Net = DefaultNet
	case o.Kind == KindTap:
		if err := checkInterface(name); err != nil {
			return o, err
		}
		o.Name, o.Vhost = name, VhostAuto
	case o.Kind == KindNone && !named:
	default:
		return o, fmt.Errorf("%q is not a network; say user, tap=NAME or none", words[0])
	}
	seen := map[string]bool{}
	for _, word := range words[1:] {
		key, value, ok := strings.Cut(word, "=")
		if !ok {
			return o, fmt.Errorf("%q is not of the form KEY=VALUE", word)
		}
		if seen[key] {
			return o, fmt.Errorf("%s is given twice", key)
		}
		seen[key] = true
		if err := o.set(key, value); err != nil {
			return o, err
		}
	}
	return o, nil
}

func (o *Options) set(key, value string) (err error) {
	user, tap := o.Kind == KindUser, o.Kind == KindTap
	switch {
	case key == "mtu" && (user || tap):
		o.MTU, err = number(key, value, MinMTU, MaxMTU)
	case key == "mac" && (user || tap):
		o.MAC, err = parseMAC(value)
	case key == "queues" && tap:
		o.Queues, err = number(key, value, 1, maxQueues)
	case key == "vhost" && tap:
		switch o.Vhost = Vhost(value); o.Vhost {
		case VhostAuto, VhostOn, VhostOff:
		default:
			err = fmt.Errorf("vhost=%q: say on, off or auto", value)
		}
	case key == "vhost" && user:
		err = errors.New("vhost is not an option of user: only a tap's queues can be served by the host's kernel; leave it out, or use tap=NAME")
	case key == "net" && user:
		o.Net, err = parseNet(value)
	case key == "hostloopback" && user:
		switch value {
		case "on", "off":
			o.HostLoopback = value == "on"
		default:
			err = fmt.Errorf("hostloopback=%q: say on or off", value)
		}
	default:
		err = fmt.Errorf("%s is not an option of %s", key, o.Kind)
	}
	return err
}

func number(key, value string, low, high int) (int, error) {
	n, err := strconv.Atoi(value)
	if err != nil || n < low || n > high {
		return 0, fmt.Errorf("%s=%q: give a number from %d to %d", key, value, low, high)
	}
	return n, nil
}

// checkInterface checks a name as the kernel does (dev_valid_name in
// net/core/dev.c), so that the error can say what is wrong.
func checkInterface(name string) error {
	switch {
	case name == "":
		return errors.New("tap needs the name of an interface, as in tap=vm0")
	case len(name) > maxIfName:
		return fmt.Errorf("interface name %q is longer than %d bytes", name, maxIfName)
	case name == "." || name == "..":
		return fmt.Errorf("%q is not an interface name", name)
	}
	numbered := strings.Replace(name, "%d", "", 1)
	for _, c := range []byte(numbered) {
		if c <= ' ' || c >= 0x7f || c == '/' || c == ':' || c == '%' {
			return fmt.Errorf("interface name %q has %q in it", name, c)
		}
	}
	return nil
}

func parseMAC(value string) (net.HardwareAddr, error) {
	mac, err := net.ParseMAC(value)
	if err != nil || len(mac) != 6 {
		return nil, fmt.Errorf("mac=%q is not an Ethernet address, as in 52:54:00:12:34:56", value)
	}
	if mac[0]&1 != 0 {
		return nil, fmt.Errorf("mac=%q is a multicast address; the first byte must be even", value)
	}
	if [6]byte(mac) == [6]byte{} {
		return nil, fmt.Errorf("mac=%q is no address", value)
	}
	return mac, nil
}

func parseNet(value string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(value)
	if err != nil || !p.Addr().Is4() {
		return netip.Prefix{}, fmt.Errorf("net=%q is not an IPv4 network, as in 10.0.2.0/24", value)
	}
	// The guest has address 15, which is the broadcast address of a /28.
	if p.Bits() < 8 || p.Bits() > 27 {
		return netip.Prefix{}, fmt.Errorf("net=%q: the network must be from /8 to /27", value)
	}
	if p != p.Masked() {
		return netip.Prefix{}, fmt.Errorf("net=%q has host bits set; did you mean %s?", value, p.Masked())
	}
	if a := p.Addr(); !a.IsGlobalUnicast() || a.As4()[0] == 0 || a.As4()[0] >= 224 {
		return netip.Prefix{}, fmt.Errorf("net=%q is not a network for hosts; take one of 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16", value)
	}
	return p, nil
}
