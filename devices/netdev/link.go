// Package netdev is what a network card is plugged into: the cable, as seen from
// the card. Its sub-packages are the two things at the other end, user (a network
// in this process, without root) and tap (an interface of the host). They know
// Ethernet frames and the header that virtio puts in front of them, and nothing
// else of virtio.
package netdev

import "github.com/huskvm/husk/devices/ethernet"

// A Link is a network behind a network card.
type Link interface {
	Info() ethernet.Info
	// Queue returns queue i, from 0 to Info().Queues-1.
	Queue(i int) ethernet.Queue
	// SetOffloads says which of Info().Gives the guest takes. None, before the
	// first call. Frames that wait already may still be as before, so it is
	// called before the guest's driver says that it is ready, and with 0 when
	// the driver is gone.
	SetOffloads(ethernet.Offloads) error
	// SetQueues says that the guest listens to the first n queues only, so
	// that no frame goes to another. One, before the first call.
	SetQueues(n int) error
	// Close ends the link and whatever waits on it, and frees all it has. No
	// call may begin after it; those under way return ethernet.ErrClosed.
	Close() error
}
