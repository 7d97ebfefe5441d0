package ethernet

import "context"

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
	// Gives is what the link can leave to the guest, if it is told that the guest
	// takes it.
	Gives Offloads
	// Threads says that the link works in system calls alone: Wait blocks the
	// thread, and no goroutine works for the link. So who serves a queue should have
	// a thread to itself.
	Threads bool
}

// A Queue is one of a link's lanes. Send may be called by one goroutine while
// another calls Receive and Wait; more than one for each is an error of the
// caller's.
//
// A frame has a Header in front, HeaderSize bytes, always. It may be scattered
// over up to MaxSegments segments in any way; they may be guest RAM, and are read
// once.
type Queue interface {
	// Send gives a frame to the link. It does not wait for room.
	Send(frame [][]byte) error
	// Receive fills the segments with the next frame and returns its length
	// with the header. It does not wait: 0 says that there is none. The
	// segments should have room for MaxFrame bytes where the guest takes TSO,
	// else for HeaderSize+18+MTU. It does not set the header's number of buffers,
	// at HeaderBuffers, which only the card knows.
	Receive(frame [][]byte) (int, error)
	// Wait returns nil when Receive may have a frame, and the error of ctx
	// when that ends first. It leaves nothing running behind.
	Wait(ctx context.Context) error
}
