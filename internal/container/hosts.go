package container

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// hostGateway is the address that --add-host has for this host.
const hostGateway = "host-gateway"

// errGateway is a host-gateway where there is no way to this host.
var errGateway = errors.New("host-gateway: the guest reaches this host only by a user network with hostloopback=on, which opens what listens at 127.0.0.1 to it; add --network user,hostloopback=on, or give an address")

// parseHost reads an --add-host, NAME:ADDRESS or NAME=ADDRESS, and gives a line of
// /etc/hosts. gateway is the address by which the guest reaches this host; invalid if it does not.
func parseHost(text string, gateway netip.Addr) (string, error) {
	name, address, ok := strings.Cut(text, "=")
	if !ok {
		name, address, ok = strings.Cut(text, ":")
	}
	bad := func(format string, args ...any) (string, error) {
		return "", fmt.Errorf("--add-host %q: %w", text, fmt.Errorf(format, args...))
	}
	if !ok || name == "" || strings.ContainsAny(name, " \t\r\n\x00#") {
		return bad("write it as NAME:ADDRESS")
	}
	if address == hostGateway {
		if !gateway.IsValid() {
			return bad("%w", errGateway)
		}
		return gateway.String() + " " + name, nil
	}
	inner := address
	if strings.HasPrefix(address, "[") && strings.HasSuffix(address, "]") {
		inner = address[1 : len(address)-1]
	}
	addr, err := netip.ParseAddr(inner)
	if err != nil || addr.Zone() != "" {
		return bad("%q is not an IP address", address)
	}
	return addr.String() + " " + name, nil
}

// checkServers looks at --dns.
func checkServers(list []string) error {
	for _, text := range list {
		if addr, err := netip.ParseAddr(text); err != nil || addr.Zone() != "" {
			return fmt.Errorf("--dns %q: not an IP address; name servers are given by address, and listen at port 53", text)
		}
	}
	return nil
}

// searchDomains are --dns-search; a dot alone is none at all, not even the network's.
func searchDomains(list []string) ([]string, error) {
	for _, domain := range list {
		if domain == "." {
			continue
		}
		if !isDomain(domain) {
			return nil, fmt.Errorf("--dns-search %q: not a domain; they are as example.org, and a dot for none", domain)
		}
	}
	return list, nil
}

// isDomain tells whether a text is made of labels as hosts have them (RFC 1123 §2.1; an
// underscore is common).
func isDomain(text string) bool {
	if len(text) > 253 {
		return false
	}
	for label := range strings.SplitSeq(strings.TrimSuffix(text, "."), ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' || strings.Trim(label, letters) != "" {
			return false
		}
	}
	return true
}

const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"

// checkResolverOptions looks at --dns-option, which are words of a line in resolv.conf(5).
func checkResolverOptions(list []string) error {
	for _, text := range list {
		if text == "" || strings.ContainsAny(text, " \t\r\n\x00#;") {
			return fmt.Errorf("--dns-option %q: one option, as ndots:2", text)
		}
	}
	return nil
}

// maxHostname is the longest that Linux has (sethostname(2), __NEW_UTS_LEN).
const maxHostname = 64

// checkHostname looks at a name for the guest's kernel.
func checkHostname(flag, name string) error {
	if len(name) > maxHostname {
		return fmt.Errorf("%s %q: it has %d characters, and Linux has %d at most", flag, name, len(name), maxHostname)
	}
	if strings.ContainsAny(name, " \t\r\n\x00#/") {
		return fmt.Errorf("%s %q: a blank, a # or a / cannot be in it", flag, name)
	}
	return nil
}
