package container

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/huskvm/husk/devices/netdev"
	"github.com/huskvm/husk/vmm"
)

// networks are the guest's network cards, with the ports that are published: by default
// one, on a user network.
func (r *Request) networks(image v1.Config, host Host) ([]vmm.Network, error) {
	texts := r.Networks
	if len(texts) == 0 {
		texts = []string{string(netdev.KindUser)}
	}
	var list []vmm.Network
	for _, text := range texts {
		o, err := parseNetwork(text)
		if err != nil {
			return nil, err
		}
		if o.Kind == netdev.KindNone {
			if len(texts) > 1 {
				return nil, fmt.Errorf("--network none: it stands for no network at all; give no other")
			}
			break
		}
		list = append(list, vmm.Network{Options: o})
	}
	if r.MAC != "" {
		if len(list) == 0 {
			return nil, fmt.Errorf("--mac-address %s: with --network none there is no card to have it", r.MAC)
		}
		mac, err := net.ParseMAC(r.MAC)
		if err != nil || len(mac) != 6 || mac[0]&1 != 0 {
			return nil, fmt.Errorf("--mac-address %q: not the address of a network card, as 02:42:ac:11:00:02", r.MAC)
		}
		list[0].MAC = mac
	}
	return list, r.publish(list, image, host)
}

// parseNetwork reads a --network, and says what becomes of Docker's other networks.
func parseNetwork(text string) (netdev.Options, error) {
	const own = "a machine has a kernel, and so a network stack, of its own"
	name, _, _ := strings.Cut(text, ",")
	switch {
	case name == "bridge" || name == "default":
		return netdev.Options{}, fmt.Errorf("--network %s: husk makes no bridges; the default, --network user, needs none and no root, and --network tap=NAME puts the guest on a bridge of yours", name)
	case name == "host":
		return netdev.Options{}, fmt.Errorf("--network host: %s; publish ports with -p, and let the guest reach what listens at this host's 127.0.0.1 with --network user,hostloopback=on", own)
	case strings.HasPrefix(name, "container:") || strings.HasPrefix(name, "ns:"):
		return netdev.Options{}, fmt.Errorf("--network %s: %s, which cannot be another's; put both on a bridge with --network tap=NAME", name, own)
	}
	o, err := netdev.ParseOptions(text)
	if err != nil {
		return o, fmt.Errorf("--network %w", err)
	}
	return o, nil
}

// publish has the first user network publish ports.
func (r *Request) publish(list []vmm.Network, image v1.Config, host Host) error {
	var ports []Port
	for _, text := range r.Publish {
		parsed, err := ParsePorts(text)
		if err != nil {
			return err
		}
		ports = append(ports, parsed...)
	}
	exposed, err := exposedPorts(image, r.Expose)
	if err != nil {
		return err
	}
	if r.PublishAll {
		for _, e := range exposed {
			if !slices.ContainsFunc(ports, func(p Port) bool { return p.Guest == e.Guest && p.Proto == e.Proto }) {
				ports = append(ports, e)
			}
		}
	}
	if len(ports) == 0 {
		return nil
	}
	first := slices.IndexFunc(list, func(n vmm.Network) bool { return n.Kind == netdev.KindUser })
	if first < 0 && len(list) == 0 {
		return fmt.Errorf("ports cannot be published with --network none; leave one of them out")
	}
	if first < 0 {
		return fmt.Errorf("ports are published by a user network; on a tap the guest has an address of its own: leave -p out, or add --network user")
	}
	for _, p := range ports {
		published, err := p.choose(list[first].Publish, host)
		if err != nil {
			return err
		}
		list[first].Publish = append(list[first].Publish, published)
	}
	return nil
}

// choose takes the first of the host's ports that nobody has, those that are published already
// included.
func (p Port) choose(others []netdev.Publish, host Host) (netdev.Publish, error) {
	published := netdev.Publish{Proto: p.Proto, Guest: p.Guest}
	if p.Last == 0 {
		published.Host = netip.AddrPortFrom(p.Host, 0)
		return published, nil // one that is free
	}
	var taken error
	for n := int(p.First); n <= int(p.Last); n++ {
		published.Host = netip.AddrPortFrom(p.Host, uint16(n))
		if i := slices.IndexFunc(others, func(o netdev.Publish) bool { return collide(o, published) }); i >= 0 {
			taken = fmt.Errorf("--publish: %v/%s of this host is published already, at %v; leave one of them out", published.Host, p.Proto, others[i].Host)
			continue
		}
		if p.First != p.Last && !host.Free(p.Proto, published.Host) {
			continue
		}
		return published, nil
	}
	if p.First == p.Last {
		return published, taken
	}
	return published, fmt.Errorf("--publish: none of the ports %d to %d/%s of this host is free", p.First, p.Last, p.Proto)
}

// collide tells whether nobody can listen for both: [::] is each address of a host, and
// 0.0.0.0 each of version 4.
func collide(a, b netdev.Publish) bool {
	if a.Proto != b.Proto || a.Host.Port() != b.Host.Port() {
		return false
	}
	covers := func(all, one netip.Addr) bool {
		return all == one || all == netip.IPv6Unspecified() || all == netip.IPv4Unspecified() && one.Is4()
	}
	return covers(a.Host.Addr(), b.Host.Addr()) || covers(b.Host.Addr(), a.Host.Addr())
}

// exposedPorts are the image's, in order, and those of --expose. What an image says and is no
// port is passed over: it was not the user who wrote it.
func exposedPorts(image v1.Config, flags []string) ([]Port, error) {
	var list []Port
	for text := range image.ExposedPorts {
		ports, err := parseExposed(text)
		if err != nil {
			continue
		}
		list = append(list, ports...)
	}
	slices.SortFunc(list, func(a, b Port) int {
		if a.Guest != b.Guest {
			return int(a.Guest) - int(b.Guest)
		}
		return strings.Compare(a.Proto, b.Proto)
	})
	for _, text := range flags {
		ports, err := parseExposed(text)
		if err != nil {
			return nil, fmt.Errorf("--expose %q: %w", text, err)
		}
		list = append(list, ports...)
	}
	return slices.DeleteFunc(slices.Compact(list), func(p Port) bool { return p.Guest == 0 }), nil
}

// gateway is the address by which the guest reaches this host, by the first user network
// that leads there; invalid if none does.
func gateway(list []vmm.Network) netip.Addr {
	for _, n := range list {
		if n.Kind == netdev.KindUser && n.HostLoopback {
			return n.Net.Addr().Next().Next() // see netdev/user: the network's second address
		}
	}
	return netip.Addr{}
}
