package pci

import (
	"sync/atomic"

	"github.com/huskvm/husk/devices/virtio/queue"
)

// queueInterrupt announces used buffers (§4.1.5.1.3, §4.1.5.3): by the queue's
// vector, or where the guest has not enabled MSI-X, by ISR status and INTx#.
type queueInterrupt struct {
	d      *Device
	vector *atomic.Uint32
	isr    queue.Interrupt
}

// Signal implements queue.Interrupt. A message to noVector is dropped.
func (i queueInterrupt) Signal() {
	if !i.d.function.Trigger(int(i.vector.Load())) {
		i.isr.Signal()
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
