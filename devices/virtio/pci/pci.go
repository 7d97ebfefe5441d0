// Package pci shows a virtio device as a PCI function (virtio 1.2 §4.1; modern
// only, so its identity is 0x1040 and the device type). It is registers and
// interrupts, and a virtio.State behind them.
package pci

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"

	"github.com/huskvm/husk/devices/pci"
	"github.com/huskvm/husk/devices/virtio"
	"github.com/huskvm/husk/devices/virtio/queue"
)

// Options are what a function is made of.
type Options struct {
	Name string // in the log, in errors and on the bus
	Root *pci.Root
	Slot int // it is function 0 there

	Device virtio.Device
	Memory queue.Memory
	// Events are the queues', by index.
	Events []virtio.Event
	// Doorbells, if not nil, hears where the queues' doorbells are.
	Doorbells Doorbells
	// Vectors delivers the messages of as many vectors as Vectors says.
	Vectors pci.Vectors
	Log     *slog.Logger
}

// Doorbells has notifications go past us: a store to a doorbell that is bound
// signals the queue's event. What is not bound is a store to a register of ours,
// with the same end, so an error costs speed and nothing else.
//
// A doorbell is what a driver stores 2 bytes to, at the guest-physical address
// gpa. What it stores does not matter: each queue has an address of its own.
// The methods are called as pci.Config.Mapped and Unmapped are: one at a time,
// on the thread of the vCPU that moves the BAR. Unbind is called for what Bind
// has not failed for.
type Doorbells interface {
	Bind(queue int, gpa uint64) error
	Unbind(queue int, gpa uint64)
}

// Vectors is how many MSI-X vectors d has: one for each queue, and one for changes
// of the configuration.
func Vectors(d virtio.Device) int { return len(d.QueueSizes()) + 1 }

// noVector is VIRTIO_MSI_NO_VECTOR (§4.1.5.1.2): it is more than a function can
// have.
const noVector = 0xffff

// A Device is a virtio device on a PCI bus.
type Device struct {
	name      string
	state     *virtio.State
	function  *pci.Function
	events    []virtio.Event
	doorbells Doorbells
	log       *slog.Logger

	isr         *virtio.ISR
	common      map[uint64]field
	layout      layout
	vectorCount int

	// What the driver has assigned to the queues and to the configuration.
	queueVectors []atomic.Uint32
	configVector atomic.Uint32
	followers    followers

	// Which doorbells are bound, by queue. The root's lock guards it.
	bound []bool
}

// New plugs a device into the root. That is before the guest runs. Close ends the
// device. Errors wrap pci.ErrConfig where the root has no place for it.
func New(o Options) (*Device, error) {
	n := len(o.Device.QueueSizes())
	d := &Device{
		name: o.Name, events: o.Events, doorbells: o.Doorbells, log: o.Log,
		layout: newLayout(n), vectorCount: Vectors(o.Device),
		queueVectors: make([]atomic.Uint32, n), bound: make([]bool, n),
	}
	d.isr = virtio.NewISR(intx{d})
	c := virtio.Config{
		Device: o.Device, Memory: o.Memory, Features: virtio.FeatRingReset,
		Kicks:           virtio.Kicks(o.Events),
		ConfigInterrupt: configInterrupt{d, d.isr.Interrupt(virtio.ISRConfig)},
		OnReset:         d.reset,
		Log:             o.Log.With("device", o.Name),
	}
	used := d.isr.Interrupt(virtio.ISRQueue)
	for i := range d.queueVectors {
		c.Interrupts = append(c.Interrupts, queueInterrupt{d, i, used})
	}
	d.clearVectors()
	var err error
	if d.state, err = virtio.NewState(c); err != nil {
		return nil, fmt.Errorf("%s: %w", o.Name, err)
	}
	d.common = d.commonFields()
	if d.function, err = o.Root.Add(o.Slot, 0, d.config(o)); err != nil {
		return nil, err
	}
	return d, nil
}

// Pause stops the device, and returns when nothing is in flight: see
// virtio.State.Pause.
func (d *Device) Pause(ctx context.Context) error { return d.state.Pause(ctx) }

// Resume undoes Pause.
func (d *Device) Resume() { d.state.Resume() }

// Close stops the device for good, and returns when nothing is in flight. Its
// registers stay where they are, and its doorbells bound.
func (d *Device) Close() { d.state.Close() }

// reset is virtio.Config.OnReset. What PCI itself has stays, MSI-X's table and
// its enabling among it.
func (d *Device) reset() {
	d.clearVectors()
	d.isr.Clear(virtio.ISRQueue | virtio.ISRConfig)
}

func (d *Device) clearVectors() {
	d.configVector.Store(noVector)
	for i := range d.queueVectors {
		d.queueVectors[i].Store(noVector)
	}
	d.vectorsChanged()
}

// mapped is pci.Config.Mapped.
func (d *Device) mapped(bar int, base uint64) {
	if bar != registersBAR || d.doorbells == nil {
		return
	}
	for i := range d.bound {
		if err := d.doorbells.Bind(i, base+doorbell(i)); err != nil {
			d.log.Warn("virtio: a doorbell cannot be bound; its notifications are slow", "device", d.name, "queue", i, "err", err)
			continue
		}
		d.bound[i] = true
	}
}

// unmapped is pci.Config.Unmapped.
func (d *Device) unmapped(bar int, base uint64) {
	if bar != registersBAR {
		return
	}
	for i := range d.bound {
		if d.bound[i] {
			d.bound[i] = false
			d.doorbells.Unbind(i, base+doorbell(i))
		}
	}
}
