// Package netdev is what a network card is plugged into: the cable, as seen from
// the card. Its sub-packages are the two things at the other end, user (a network
// in this process, without root) and tap (an interface of the host). They know
// Ethernet frames and the header that virtio puts in front of them, and nothing
// else of virtio.
package netdev

import (
	"context"
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
	// ErrClosed is what every call returns after Close.
	ErrClosed = net.ErrClosed
)

// MaxFrame is the longest frame that Send takes or Receive gives, with its
// header, in bytes: a header, 14 of Ethernet, and 65,536 of which the largest IP
// packet is one less (virtio 1.2 §5.1.6.3.1: 65,550 plus the header).
const MaxFrame = HeaderSize + 14 + 1<<16

// Offloads is work on frames that one side leaves to the other.
type Offloads uint32

const (
	// Checksum: a frame may come with HeaderNeedsChecksum, its TCP or UDP
	// checksum covering the pseudo header alone. VIRTIO_NET_F_CSUM where the
	// link takes it, VIRTIO_NET_F_GUEST_CSUM where the guest does.
	Checksum Offloads = 1 << iota
	// TSO4: a TCP segment over IPv4 may be up to 64 KiB, to be cut by who needs
	// it smaller. VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_GUEST_TSO4. It takes
	// Checksum, as all further ones do.
	TSO4
	// TSO6 is the same over IPv6.
	TSO6
	// ECN: such a segment may have CWR set. VIRTIO_NET_F_HOST_ECN,
	// VIRTIO_NET_F_GUEST_ECN.
	ECN
)

// Info is what a link can do. It does not change.
type Info struct {
	// MTU is the size of the largest packet without its Ethernet header, in
	// bytes. Where a network card can tell the guest (VIRTIO_NET_F_MTU), it
	// should.
	MTU int
	// Queues is how many queues there are, at least 1.
	Queues int
	// Takes is what the guest may leave to the link, without asking first.
	Takes Offloads
	// Gives is what the link can leave to the guest, after SetOffloads.
	Gives Offloads
}

// A Link is a network behind a network card.
type Link interface {
	Info() Info
	// Queue returns queue i, from 0 to Info().Queues-1.
	Queue(i int) Queue
	// SetOffloads says which of Info().Gives the guest takes. None, before the
	// first call. Frames that wait already may still be as before, so it is
	// called before the guest's driver says that it is ready, and with 0 when
	// the driver is gone.
	SetOffloads(Offloads) error
	// SetQueues says that the guest listens to the first n queues only, so
	// that no frame goes to another. One, before the first call.
	SetQueues(n int) error
	// Close ends the link and whatever waits on it, and frees all it has. No
	// call may begin after it; those under way return ErrClosed.
	Close() error
}

// A Queue is one of a link's lanes. Send may be called by one goroutine while
// another calls Receive and Wait; more than one for each is an error of the
// caller's.
//
// A frame has a Header in front, HeaderSize bytes, always. It may be scattered
// over any number of segments in any way up to 1,024; they may be guest RAM,
// and are read once.
type Queue interface {
	// Send gives a frame to the link. It does not wait for room.
	Send(frame [][]byte) error
	// Receive fills the segments with the next frame and returns its length
	// with the header. It does not wait: 0 says that there is none. The
	// segments should have room for MaxFrame bytes where Gives holds TSO, else
	// for HeaderSize+18+MTU. It does not set the header's number of buffers,
	// at HeaderBuffers, which only the card knows.
	Receive(frame [][]byte) (int, error)
	// Wait returns nil when Receive may have a frame, and the error of ctx
	// when that ends first. It leaves nothing running behind.
	Wait(ctx context.Context) error
}
