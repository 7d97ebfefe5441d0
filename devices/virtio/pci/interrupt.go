package pci

import (
	"slices"
	"sync"

	"github.com/huskvm/husk/devices/virtio/queue"
)

// queueInterrupt announces used buffers (§4.1.5.1.3, §4.1.5.3): by the queue's
// vector, or where the guest has not enabled MSI-X, by ISR status and INTx#.
type queueInterrupt struct {
	d     *Device
	queue int
	isr   queue.Interrupt
}

// Signal implements queue.Interrupt. A message to noVector is dropped.
func (i queueInterrupt) Signal() {
	if !i.d.function.Trigger(int(i.d.queueVectors[i.queue].Load())) {
		i.isr.Signal()
	}
}

// Follow implements queue.Direct.
func (i queueInterrupt) Follow(set func(fd int)) (stop func()) {
	f := &i.d.followers
	f.mu.Lock()
	defer f.mu.Unlock()
	own := &follower{queue: i.queue, set: set, fd: i.d.direct(i.queue)}
	set(own.fd)
	f.all = append(f.all, own)
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.all = slices.DeleteFunc(f.all, func(o *follower) bool { return o == own })
	}
}

// followers are those who raise queues' interrupts by themselves.
type followers struct {
	mu  sync.Mutex // held while they are told, so that the last they hear is the latest
	all []*follower
}

type follower struct {
	queue int
	set   func(fd int)
	fd    int // what set was told
}

// direct is the eventfd of queue i's interrupt, or -1.
func (d *Device) direct(i int) int { return d.function.Direct(int(d.queueVectors[i].Load())) }

// vectorsChanged tells those who follow an interrupt where it goes now.
func (d *Device) vectorsChanged() {
	f := &d.followers
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, o := range f.all {
		if fd := d.direct(o.queue); fd != o.fd {
			o.fd = fd
			o.set(fd)
		}
	}
}

// configInterrupt announces a change of the configuration. It shows in ISR status
// whatever else announces it (§4.1.4.5.1).
type configInterrupt struct {
	d   *Device
	isr queue.Interrupt
}

// Signal implements queue.Interrupt.
func (i configInterrupt) Signal() {
	i.isr.Signal()
	i.d.function.Trigger(int(i.d.configVector.Load()))
}

// intx is the function's interrupt pin as a devices.Line.
type intx struct{ d *Device }

// Set implements devices.Line.
func (l intx) Set(high bool) { l.d.function.SetINTx(high) }
