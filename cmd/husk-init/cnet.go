package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path"
	"sync"
	"time"

	"github.com/huskvm/husk/internal/guestinit/dhcp"
	"github.com/huskvm/husk/internal/guestinit/etcfiles"
	"github.com/huskvm/husk/internal/guestinit/netconf"
	"github.com/huskvm/husk/internal/guestinit/spec"
)

// How long a card may take to be found by its driver, and a DHCP server to answer.
const (
	cardWait = 5 * time.Second
	dhcpWait = 20 * time.Second
)

// A network is what the cards have been given. The files of /etc follow from it.
type network struct {
	spec *spec.Container
	etc  etcFiles

	mu    sync.Mutex
	cards []cardState // by the order of spec.Interfaces
}

// A cardState is what one card has.
type cardState struct {
	netconf.Card
	address netip.Prefix // zero for none
	lease   dhcp.Lease   // by DHCP
}

// configure brings the loopback and all cards up, and writes the files of /etc.
func (c *container) configure() error {
	n := &network{spec: c.spec, etc: c.etc}
	if err := loopbackUp(); err != nil {
		return fmt.Errorf("loopback: %w", err)
	}
	cards, err := findCards(len(c.spec.Interfaces), time.Now().Add(cardWait))
	if err != nil {
		return err
	}
	for i, want := range c.spec.Interfaces {
		n.cards = append(n.cards, cardState{Card: cards[i]})
		if err := n.set(i, want); err != nil {
			return fmt.Errorf("card %d (%s): %w", i, cards[i].Name, err)
		}
	}
	return n.writeFiles()
}

// findCards waits for that many cards.
func findCards(count int, until time.Time) ([]netconf.Card, error) {
	for {
		cards, err := netconf.Cards("/sys")
		if err != nil || len(cards) >= count {
			return cards, err
		}
		if time.Now().After(until) {
			return nil, fmt.Errorf("the kernel sees %d of %d cards; does it lack virtio_net (CONFIG_VIRTIO_NET), or the driver of its bus?", len(cards), count)
		}
		time.Sleep(time.Millisecond)
	}
}

// set configures a card.
func (n *network) set(i int, want spec.Interface) error {
	conn, err := netconf.Open()
	if err != nil {
		return err
	}
	defer conn.Close()
	card := &n.cards[i]
	if want.DHCP {
		want.MTU = 0
	}
	if err := conn.Up(card.Index, want.MTU); err != nil {
		return err
	}
	if want.DHCP {
		return n.ask(i)
	}
	if want.Address == "" {
		return nil
	}
	if card.address, err = netip.ParsePrefix(want.Address); err != nil {
		return fmt.Errorf("address: %w", err)
	}
	if err := conn.Add(card.Index, card.address); err != nil {
		return err
	}
	if want.Gateway == "" {
		return nil
	}
	gateway, err := netip.ParseAddr(want.Gateway)
	if err != nil {
		return fmt.Errorf("gateway: %w", err)
	}
	return conn.Route(card.Index, defaultRoute(gateway), gateway)
}

// defaultRoute is where everything is, of a gateway's family.
func defaultRoute(gateway netip.Addr) netip.Prefix {
	if gateway.Is4() {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
}

// ask has a DHCP server give a card its configuration, and keeps it.
func (n *network) ask(i int) error {
	card := n.cards[i].Card
	conn, err := dhcp.Listen(card.Name)
	if err != nil {
		return err
	}
	client := &dhcp.Client{Conn: conn, HW: card.HW, Host: n.spec.Hostname}
	ctx, cancel := context.WithTimeoutCause(context.Background(), dhcpWait, fmt.Errorf("after %v of asking", dhcpWait))
	defer cancel()
	lease, err := client.Ask(ctx)
	if err != nil {
		_ = conn.Close()
		return err
	}
	if err := n.apply(i, lease); err != nil {
		_ = conn.Close()
		return err
	}
	// For as long as the machine runs.
	go client.Keep(context.Background(), lease, func(l dhcp.Lease) {
		err := n.apply(i, l)
		if err == nil {
			err = n.writeFiles()
		}
		switch {
		case err != nil:
			say("husk-init: network card %s: %v", card.Name, err)
		case !l.Address.IsValid():
			say("husk-init: network card %s: its DHCP lease has ended, and nobody renews it", card.Name)
		default:
			say("husk-init: network card %s: %v by DHCP", card.Name, l.Address)
		}
	})
	return nil
}

// apply gives a card what a lease says in place of what it had; the zero Lease
// is nothing.
func (n *network) apply(i int, l dhcp.Lease) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	conn, err := netconf.Open()
	if err != nil {
		return err
	}
	defer conn.Close()
	card := &n.cards[i]
	if old := card.address; old.IsValid() && old != l.Address {
		if err := conn.Remove(card.Index, old); err != nil {
			return err
		}
	}
	card.address, card.lease = l.Address, l
	if !l.Address.IsValid() {
		return nil
	}
	if err := conn.Up(card.Index, l.MTU); err != nil {
		return err
	}
	if err := conn.Add(card.Index, l.Address); err != nil {
		return err
	}
	for _, r := range l.Routes {
		if r.To.Bits() == 0 && n.hasDefault(i) {
			continue
		}
		if err := conn.Route(card.Index, r.To, r.Via); err != nil {
			return err
		}
	}
	return nil
}

// hasDefault tells whether a card before that one has the default route.
func (n *network) hasDefault(i int) bool {
	for j, card := range n.cards[:i] {
		if n.spec.Interfaces[j].Gateway != "" {
			return true
		}
		for _, r := range card.lease.Routes {
			if r.To.Bits() == 0 {
				return true
			}
		}
	}
	return false
}

// writeFiles writes the files of /etc.
func (n *network) writeFiles() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.spec
	var own []netip.Addr
	var given []string // by DHCP
	search := s.Search
	for _, card := range n.cards {
		if card.address.IsValid() {
			own = append(own, card.address.Addr())
		}
		for _, a := range card.lease.DNS {
			given = append(given, a.String())
		}
		if d := card.lease.Domain; d != "" && len(s.Search) == 0 {
			search = append(search, d)
		}
	}
	if len(s.DNS) > 0 {
		given = s.DNS
	}
	for name, content := range map[string][]byte{
		"/etc/hosts":       etcfiles.Hosts(s.Hosts, own, s.Hostname, s.Domainname),
		"/etc/hostname":    etcfiles.Hostname(s.Hostname),
		"/etc/resolv.conf": etcfiles.ResolvConf(given, search, s.DNSOptions),
	} {
		if err := n.etc.write(name, content); err != nil {
			return err
		}
	}
	return nil
}

// etcNames are the files that say who the guest is and whom it knows.
var etcNames = []string{"/etc/hosts", "/etc/hostname", "/etc/resolv.conf"}

// etcFiles are those files in a folder of the initramfs, which is mounted over the
// image's: so they are there with a read-only root, and where the image has links.
type etcFiles struct{ dir string }

// makeEtcFiles makes them, empty.
func makeEtcFiles(dir string) (etcFiles, error) {
	e := etcFiles{dir}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return e, err
	}
	for _, name := range etcNames {
		if err := e.write(name, nil); err != nil {
			return e, err
		}
	}
	return e, nil
}

func (e etcFiles) file(name string) string { return path.Join(e.dir, path.Base(name)) }

// write writes one in place: it is mounted.
func (e etcFiles) write(name string, content []byte) error {
	return os.WriteFile(e.file(name), content, 0o644)
}
