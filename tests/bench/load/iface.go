package load

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// The addresses of the network between host and guest. Nobody else sees it.
var (
	HostNet  = netip.MustParsePrefix("10.99.0.1/24")
	GuestNet = netip.MustParsePrefix("10.99.0.2/24")
)

// Server is where the host's server listens.
const Server = "10.99.0.1:9900"

// GuestInterface is the guest's only card.
const GuestInterface = "eth0"

// SetUp gives an interface an address and switches it on.
func SetUp(name string, address netip.Prefix) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd) //nolint:errcheck // a socket without data
	ip := address.Addr().As4()
	mask := netip.PrefixFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), address.Bits()).Masked().Addr().As4()
	for _, set := range []struct {
		name    string
		request uint
		put     func(*unix.Ifreq) error
	}{
		{"address", unix.SIOCSIFADDR, func(r *unix.Ifreq) error { return r.SetInet4Addr(ip[:]) }},
		{"netmask", unix.SIOCSIFNETMASK, func(r *unix.Ifreq) error { return r.SetInet4Addr(mask[:]) }},
		{"flags", unix.SIOCSIFFLAGS, func(r *unix.Ifreq) error { r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING); return nil }},
	} {
		r, err := unix.NewIfreq(name)
		if err != nil {
			return fmt.Errorf("interface %s: %w", name, err)
		}
		if err := set.put(r); err != nil {
			return fmt.Errorf("interface %s: %s: %w", name, set.name, err)
		}
		if err := unix.IoctlIfreq(fd, set.request, r); err != nil {
			return fmt.Errorf("interface %s: %s: %w", name, set.name, err)
		}
	}
	return nil
}
