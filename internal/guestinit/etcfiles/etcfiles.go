// Package etcfiles writes the files of /etc that say who a guest is and who it knows, as
// Docker's containers have them.
package etcfiles

import (
	"fmt"
	"net/netip"
	"strings"
)

// localHosts are the lines that each guest has (RFC 4291 §2.5.3, §2.7.1).
const localHosts = `127.0.0.1	localhost
::1	localhost ip6-localhost ip6-loopback
fe00::	ip6-localnet
ff00::	ip6-mcastprefix
ff02::1	ip6-allnodes
ff02::2	ip6-allrouters
`

// Hosts is /etc/hosts: what is local, more lines "ADDRESS NAME...", and the guest's own
// names for its addresses.
func Hosts(more []string, own []netip.Addr, host, domain string) []byte {
	var b strings.Builder
	b.WriteString(localHosts)
	for _, line := range more {
		address, names, _ := strings.Cut(line, " ")
		fmt.Fprintf(&b, "%s\t%s\n", address, names)
	}
	if host != "" {
		if domain != "" {
			host = host + "." + domain + " " + host
		} else if short, _, whole := strings.Cut(host, "."); whole {
			host += " " + short
		}
		for _, a := range own {
			fmt.Fprintf(&b, "%s\t%s\n", a, host)
		}
	}
	return []byte(b.String())
}

// Hostname is /etc/hostname.
func Hostname(host string) []byte { return []byte(host + "\n") }

// ResolvConf is /etc/resolv.conf (resolv.conf(5)). Search "." is none.
func ResolvConf(servers, search, options []string) []byte {
	var b strings.Builder
	for _, s := range servers {
		fmt.Fprintf(&b, "nameserver %s\n", s)
	}
	if len(search) > 0 && (len(search) > 1 || search[0] != ".") {
		fmt.Fprintf(&b, "search %s\n", strings.Join(search, " "))
	}
	if len(options) > 0 {
		fmt.Fprintf(&b, "options %s\n", strings.Join(options, " "))
	}
	return []byte(b.String())
}
