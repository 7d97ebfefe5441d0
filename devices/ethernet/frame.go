// Package ethernet is what passes between a network card and its cable: frames,
// with the header that virtio puts in front of them. A card is written against
// it, and so is each kind of cable (devices/netdev), so that neither knows the
// other.
package ethernet

import (
	"errors"
	"net"
)

var (
	// ErrDropped is what Send returns for a good frame that had no room: the
	// link is slower than the guest, or down. The guest is not told, as on a
	// wire.
	ErrDropped = errors.New("frame dropped")
	// ErrFrame is what Send returns for a frame that can not be one: too short,
	// too long, or with a header that contradicts it.
	ErrFrame = errors.New("malformed frame")
	// ErrTooLong is what Receive returns when it lost a frame that did not fit.
	ErrTooLong = errors.New("frame longer than the buffer")
	// ErrClosed is what every call returns after the link was closed.
	ErrClosed = net.ErrClosed
)

const (
	// MaxFrame is the longest frame that Send takes or Receive gives, with its
	// header, in bytes: a header, 14 of Ethernet, and 65,536 of which the largest
	// IP packet is one less (virtio 1.2 §5.1.6.3.1: 65,550 plus the header).
	MaxFrame = HeaderSize + MinFrame + 1<<16
	// MinFrame is the size in bytes of an Ethernet header, which the shortest
	// frame consists of, behind its own header.
	MinFrame = 14
	// MaxSegments is the most segments a frame may be scattered over: what one
	// system call takes (UIO_MAXIOV), and room for a link's own.
	MaxSegments = 1000
)

// Offloads is work on frames that one side leaves to the other.
type Offloads uint32

const (
	// Checksum says that a frame may come with HeaderNeedsChecksum, its TCP or UDP
	// checksum covering the pseudo header alone. VIRTIO_NET_F_CSUM where the
	// link takes it, VIRTIO_NET_F_GUEST_CSUM where the guest does.
	Checksum Offloads = 1 << iota
	// TSO4 says that a TCP segment over IPv4 may be up to 64 KiB, to be cut by who needs
	// it smaller. VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_GUEST_TSO4. It takes
	// Checksum, as all further ones do.
	TSO4
	// TSO6 is the same over IPv6.
	TSO6
	// ECN says that such a segment may have CWR set. VIRTIO_NET_F_HOST_ECN,
	// VIRTIO_NET_F_GUEST_ECN.
	ECN
)
