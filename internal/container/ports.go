package container

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// A Port is one of the guest's that is published.
type Port struct {
	Proto string     // "tcp" or "udp"
	Host  netip.Addr // to listen at
	// First and Last are the host's ports to choose from, and one that is free if both
	// are 0.
	First, Last uint16
	Guest       uint16
}

// maxPorts bounds a range: each takes a descriptor and a thread of husk's patience.
const maxPorts = 1024

// ParsePorts reads a -p, which is a range at times: [[ADDR:][HOST[-HOST]]:]GUEST[-GUEST]
// and /tcp or /udp. Without ADDR it is every address of the host, without HOST a port that
// is free. The ranges must be equally long, or that of the guest one port, for which one of
// the host's range is taken. An IPv6 address may be in brackets. Docker's other form,
// target=80,published=8080,protocol=tcp, is understood, too.
func ParsePorts(text string) ([]Port, error) {
	ports, err := parsePorts(text)
	if err != nil {
		return nil, fmt.Errorf("--publish %q: %w", text, err)
	}
	return ports, nil
}

func parsePorts(text string) ([]Port, error) {
	if strings.Contains(text, "=") {
		var err error
		if text, err = shortPort(text); err != nil {
			return nil, err
		}
	}
	numbers, proto, err := cutProto(text)
	if err != nil {
		return nil, err
	}
	host, guest := "", numbers
	if i := strings.LastIndexByte(numbers, ':'); i >= 0 {
		host, guest = numbers[:i], numbers[i+1:]
	}
	addr := netip.IPv4Unspecified()
	if i := strings.LastIndexByte(host, ':'); i >= 0 {
		if addr, err = parseAddress(host[:i]); err != nil {
			return nil, err
		}
		host = host[i+1:]
	}
	firstGuest, lastGuest, err := parseRange(guest, "guest")
	if err != nil {
		return nil, err
	}
	if firstGuest == 0 {
		return nil, fmt.Errorf("the guest's port cannot be 0")
	}
	var first, last uint16
	if host != "" {
		if first, last, err = parseRange(host, "host"); err != nil {
			return nil, err
		}
		if first == 0 && strings.Contains(host, "-") {
			return nil, fmt.Errorf("a range of the host's ports cannot begin with 0; leave the range out for ports that are free")
		}
	}
	count := int(lastGuest) - int(firstGuest) + 1
	one := Port{Proto: proto, Host: addr, First: first, Last: last, Guest: firstGuest}
	switch {
	case count == 1:
		return []Port{one}, nil
	case host != "" && int(last)-int(first)+1 != count:
		return nil, fmt.Errorf("%s are %d ports of the guest, and %s of the host are %d; give as many", guest, count, host, int(last)-int(first)+1)
	}
	list := make([]Port, count)
	for i := range list {
		list[i] = one
		list[i].Guest += uint16(i)
		if last != 0 {
			list[i].First += uint16(i)
			list[i].Last = list[i].First
		}
	}
	return list, nil
}

// shortPort makes Docker's long form of a port a short one.
func shortPort(text string) (string, error) {
	values := map[string]string{"protocol": "tcp"}
	for _, word := range strings.Split(text, ",") {
		key, value, ok := strings.Cut(word, "=")
		key = strings.ToLower(key)
		switch key {
		case "target", "published", "protocol":
		case "mode":
			return "", fmt.Errorf("%q: a mode is for services of a swarm; leave it out", word)
		default:
			ok = false
		}
		if !ok {
			return "", fmt.Errorf("%q is not target=PORT, published=PORT or protocol=tcp", word)
		}
		values[key] = value
	}
	if values["target"] == "" {
		return "", fmt.Errorf("no port of the guest; add target=PORT")
	}
	return values["published"] + ":" + values["target"] + "/" + values["protocol"], nil
}

// cutProto cuts a protocol off the end of ports.
func cutProto(text string) (ports, proto string, err error) {
	ports, proto, _ = strings.Cut(text, "/")
	switch proto = strings.ToLower(proto); proto {
	case "", "tcp":
		return ports, "tcp", nil
	case "udp":
		return ports, "udp", nil
	case "sctp":
		return "", "", fmt.Errorf("the user network has no SCTP; --network tap=NAME carries all protocols")
	}
	return "", "", fmt.Errorf("%q is not a protocol; say tcp or udp", proto)
}

// parseAddress reads an address of the host; "" is each of them.
func parseAddress(text string) (netip.Addr, error) {
	if text == "" {
		return netip.IPv4Unspecified(), nil
	}
	inner := text
	if strings.HasPrefix(text, "[") && strings.HasSuffix(text, "]") {
		inner = text[1 : len(text)-1]
	}
	addr, err := netip.ParseAddr(inner)
	if err != nil || addr.Zone() != "" {
		return addr, fmt.Errorf("%q is not an IP address of this host; give one, as 127.0.0.1 or [::1]", text)
	}
	return addr.Unmap(), nil
}

// parseRange reads PORT or PORT-PORT.
func parseRange(text, whose string) (first, last uint16, err error) {
	from, to, isRange := strings.Cut(text, "-")
	a, okA := parsePort(from)
	b, okB := a, true
	if isRange {
		b, okB = parsePort(to)
	}
	switch {
	case text == "":
		return 0, 0, fmt.Errorf("no port of the %s; say which, as in 8080:80", whose)
	case !okA || !okB || a > b:
		return 0, 0, fmt.Errorf("%q is not a port of the %s, or a range of them; ports are numbers from 0 to 65535", text, whose)
	case int(b)-int(a) >= maxPorts:
		return 0, 0, fmt.Errorf("%q are %d ports, more than the %d that husk publishes at once", text, int(b)-int(a)+1, maxPorts)
	}
	return a, b, nil
}

func parsePort(text string) (uint16, bool) {
	n, err := strconv.ParseUint(text, 10, 16)
	return uint16(n), err == nil
}

// parseExposed reads a port that an image exposes, or an --expose: PORT[-PORT][/PROTO].
func parseExposed(text string) ([]Port, error) {
	numbers, proto, err := cutProto(text)
	if err != nil {
		return nil, err
	}
	first, last, err := parseRange(numbers, "guest")
	if err != nil {
		return nil, err
	}
	var list []Port
	for n := int(first); n <= int(last); n++ {
		list = append(list, Port{Proto: proto, Host: netip.IPv4Unspecified(), Guest: uint16(n)})
	}
	return list, nil
}
