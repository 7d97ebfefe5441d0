// Package netconf configures network cards by rtnetlink (rtnetlink(7)).
package netconf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// A Conn speaks with the kernel. It is for one goroutine.
type Conn struct {
	fd  int
	seq uint32
}

// Open opens a connection.
func Open() (*Conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		_ = unix.Close(fd)
		return nil, os.NewSyscallError("bind", err)
	}
	return &Conn{fd: fd}, nil
}

// Close closes it.
func (c *Conn) Close() error { return unix.Close(c.fd) }

// Up brings a card up; mtu is in bytes, 0 leaves it.
func (c *Conn) Up(index, mtu int) error {
	m := newMessage(unix.RTM_NEWLINK, 0)
	m.u8(unix.AF_UNSPEC, 0)
	m.u16(0)
	m.u32(uint32(index))
	m.u32(unix.IFF_UP)
	m.u32(unix.IFF_UP) // which flags change
	if mtu > 0 {
		m.attribute(unix.IFLA_MTU, binary.NativeEndian.AppendUint32(nil, uint32(mtu)))
	}
	return c.do("bring up", m)
}

// Add gives a card an address, with the route to the network that it is in. One
// that it has stays.
func (c *Conn) Add(index int, p netip.Prefix) error {
	return c.do("address "+p.String(), address(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, index, p))
}

// Remove takes an address from a card, and with it the routes that need it.
func (c *Conn) Remove(index int, p netip.Prefix) error {
	return c.do("address "+p.String(), address(unix.RTM_DELADDR, 0, index, p))
}

func address(kind, flags uint16, index int, p netip.Prefix) *message {
	m := newMessage(kind, flags)
	m.u8(family(p.Addr()), byte(p.Bits()), 0, unix.RT_SCOPE_UNIVERSE)
	if p.Addr().Is6() {
		// Nobody else has the machine's addresses, and to find that out takes a second
		// in which it cannot be used.
		m.b[len(m.b)-2] = unix.IFA_F_NODAD
	}
	m.u32(uint32(index))
	m.attribute(unix.IFA_LOCAL, p.Addr().AsSlice())
	m.attribute(unix.IFA_ADDRESS, p.Addr().AsSlice())
	return m
}

// Route leads what is for a network to a card; via is the gateway, the zero Addr or an
// unspecified one for none. One that is there is replaced.
func (c *Conn) Route(index int, to netip.Prefix, via netip.Addr) error {
	m := newMessage(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_REPLACE)
	direct := !via.IsValid() || via.IsUnspecified()
	scope, flags := byte(unix.RT_SCOPE_UNIVERSE), uint32(0)
	if direct {
		scope = unix.RT_SCOPE_LINK
	} else {
		flags = unix.RTNH_F_ONLINK // a gateway may be in no network of the card's, as with /32
	}
	m.u8(family(to.Addr()), byte(to.Bits()), 0, 0, unix.RT_TABLE_MAIN, unix.RTPROT_BOOT, scope, unix.RTN_UNICAST)
	m.u32(flags)
	if to.Bits() > 0 {
		m.attribute(unix.RTA_DST, to.Masked().Addr().AsSlice())
	}
	if !direct {
		m.attribute(unix.RTA_GATEWAY, via.AsSlice())
	}
	m.attribute(unix.RTA_OIF, binary.NativeEndian.AppendUint32(nil, uint32(index)))
	return c.do("route to "+to.String(), m)
}

func family(a netip.Addr) byte {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// A message is a request, as the kernel takes it: struct nlmsghdr (netlink(7)) and
// what follows it, aligned to 4 bytes, in the machine's byte order.
type message struct{ b []byte }

func newMessage(kind, flags uint16) *message {
	m := new(message)
	m.u32(0) // the length, when it is known
	m.u16(kind)
	m.u16(unix.NLM_F_REQUEST | unix.NLM_F_ACK | flags)
	m.u32(0) // the sequence number
	m.u32(0) // from anybody
	return m
}

func (m *message) u8(v ...byte)         { m.b = append(m.b, v...) }
func (m *message) u16(v uint16)         { m.b = binary.NativeEndian.AppendUint16(m.b, v) }
func (m *message) u32(v uint32)         { m.b = binary.NativeEndian.AppendUint32(m.b, v) }
func (m *message) put(at int, v uint32) { binary.NativeEndian.PutUint32(m.b[at:], v) }

// attribute adds one: struct rtattr.
func (m *message) attribute(kind uint16, value []byte) {
	m.u16(uint16(unix.SizeofRtAttr + len(value)))
	m.u16(kind)
	m.b = append(m.b, value...)
	for len(m.b)%unix.RTA_ALIGNTO != 0 {
		m.b = append(m.b, 0)
	}
}

// do sends a request, and waits for the kernel's answer to it.
func (c *Conn) do(what string, m *message) error {
	c.seq++
	m.put(0, uint32(len(m.b)))
	m.put(8, c.seq)
	if err := unix.Sendto(c.fd, m.b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	b := make([]byte, 1<<16)
	for {
		n, _, err := unix.Recvfrom(c.fd, b, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		if answered, err := acknowledged(b[:n], c.seq); answered {
			if err != nil {
				return fmt.Errorf("%s: %w", what, err)
			}
			return nil
		}
	}
}

// acknowledged looks for the answer to a request: struct nlmsgerr.
func acknowledged(b []byte, seq uint32) (bool, error) {
	ne := binary.NativeEndian
	for len(b) >= unix.NLMSG_HDRLEN {
		size := int(ne.Uint32(b))
		if size < unix.NLMSG_HDRLEN || size > len(b) {
			break
		}
		if ne.Uint16(b[4:]) == unix.NLMSG_ERROR && ne.Uint32(b[8:]) == seq && size >= unix.NLMSG_HDRLEN+4 {
			if errno := -int32(ne.Uint32(b[unix.NLMSG_HDRLEN:])); errno != 0 {
				return true, unix.Errno(errno)
			}
			return true, nil
		}
		b = b[min(len(b), (size+3)&^3):]
	}
	return false, nil
}
