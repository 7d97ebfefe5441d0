package virtio

import "github.com/huskvm/husk/devices/virtio/queue"

// An Event is where the driver's notifications of a queue arrive at a transport.
// The kernel may signal it past the transport (eventfd.Event); a notification
// that comes through the transport's registers ends in the same Event.
type Event interface {
	queue.Kick
	Signal()
}

// Kicks are events as a State takes them.
func Kicks(events []Event) []queue.Kick {
	kicks := make([]queue.Kick, len(events))
	for i, e := range events {
		kicks[i] = e
	}
	return kicks
}
