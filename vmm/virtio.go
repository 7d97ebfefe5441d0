package vmm

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/huskvm/husk/devices/pci"
	"github.com/huskvm/husk/devices/virtio"
	"github.com/huskvm/husk/devices/virtio/mmio"
	virtiopci "github.com/huskvm/husk/devices/virtio/pci"
)

// A Transport is how a guest finds and talks to its virtio devices.
type Transport string

// The transports of virtio 1.2 §4.
const (
	TransportPCI  Transport = "pci"  // functions on the PCI bus, with MSI-X
	TransportMMIO Transport = "mmio" // registers that ACPI and the command line announce
)

// A plugged is a virtio device in its slot, whatever the transport.
type plugged interface {
	Pause(context.Context) error
	Resume()
	Close()
}

// plugVirtio makes the virtio devices and puts them into their slots. They do
// not work before Run.
func (vm *VM) plugVirtio() error {
	plug := vm.plugPCI
	if vm.cfg.Transport == TransportMMIO {
		plug = vm.plugMMIO
	}
	for i, p := range vm.cfg.parts() {
		dev, err := p.make(vm)
		if err != nil {
			return fmt.Errorf("%w: %s: %w", ErrConfig, p.name, err)
		}
		vm.queues += len(dev.QueueSizes())
		d, err := plug(i, p.name, dev)
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		vm.onClose(func() error { d.Close(); return nil })
		vm.virtio = append(vm.virtio, d)
	}
	return nil
}

// plugPCI puts a device into the i-th slot behind the host bridge.
func (vm *VM) plugPCI(i int, name string, dev virtio.Device) (plugged, error) {
	events, err := vm.newEvents(len(dev.QueueSizes()))
	if err != nil {
		return nil, err
	}
	v, err := newVectors(vm.interrupts, virtiopci.Vectors(dev))
	if err != nil {
		return nil, err
	}
	vm.onClose(v.close)
	return virtiopci.New(virtiopci.Options{
		Name: name, Root: vm.board.pci, Slot: firstSlot + i, Device: dev, Memory: vm.mem,
		Events: asVirtio(events), Doorbells: doorbells{vm.kvm, events, vm.log}, Vectors: v, Log: vm.log,
	})
}

// plugMMIO puts a device into the i-th block of registers.
func (vm *VM) plugMMIO(i int, name string, dev virtio.Device) (plugged, error) {
	events, err := vm.newEvents(len(dev.QueueSizes()))
	if err != nil {
		return nil, err
	}
	place := virtioMMIO(i)
	d, err := mmio.New(mmio.Options{
		Name: name, Device: dev, Memory: vm.mem, Events: asVirtio(events),
		Line: vm.line(place.GSI), Log: vm.log,
	})
	if err != nil {
		return nil, err
	}
	if err := vm.board.mmio.Map(name, uint64(place.Base), mmio.Size, d); err != nil {
		return nil, errors.Join(err, closing(d))
	}
	if err := bindNotify(vm.kvm, uint64(place.Base)+mmio.QueueNotify, events); err != nil {
		return nil, errors.Join(err, closing(d))
	}
	return d, nil
}

func closing(p plugged) error { p.Close(); return nil }

// drainPatience is how long a device may take to finish what it has begun.
// Requests of a disk whose host hangs never do.
const drainPatience = 10 * time.Second

// pauseVirtio stops all devices, with nothing in flight. Where one does not come to
// rest, those before it do, and those behind it work on.
func (vm *VM) pauseVirtio() error {
	ctx, cancel := context.WithTimeoutCause(context.Background(), drainPatience, errors.New("a request is stuck on the host"))
	defer cancel()
	for i, d := range vm.virtio {
		if err := d.Pause(ctx); err != nil {
			return fmt.Errorf("%s does not come to rest: %w", vm.cfg.parts()[i].name, context.Cause(ctx))
		}
	}
	return nil
}

// resumeVirtio lets the first n devices go on.
func (vm *VM) resumeVirtio(n int) {
	for _, d := range vm.virtio[:n] {
		d.Resume()
	}
}

// firstSlot is the PCI slot of the first virtio device: the bridge is in 0.
const firstSlot = 1

// maxVirtio is how many virtio devices a transport has places for.
func (t Transport) maxVirtio() int {
	if t == TransportMMIO {
		return len(gsisMMIO)
	}
	return pci.Slots - firstSlot
}
