package vmm

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/devices"
	"github.com/huskvm/husk/devices/eventfd"
	"github.com/huskvm/husk/devices/pci"
	"github.com/huskvm/husk/devices/virtio"
	"github.com/huskvm/husk/kvm"
)

// A gsiLine is an input of KVM's interrupt controllers.
type gsiLine struct {
	vm  *kvm.VM
	gsi uint32
	log *slog.Logger
}

// Set implements devices.Line.
func (l gsiLine) Set(high bool) {
	if err := l.vm.SetIRQLine(l.gsi, high); err != nil {
		l.log.Error("interrupt not delivered", "gsi", l.gsi, "err", err)
	}
}

func (vm *VM) line(gsi uint32) devices.Line { return gsiLine{vm.kvm, gsi, vm.log} }

// An interruptTable is where each GSI leads: the first to the IOAPIC's pin of that
// number, and nowhere else, the others to a message. KVM's own choice leads the
// first 16 to the PIC too, which a kernel on a hardware-reduced machine never
// silences.
type interruptTable struct {
	vm *kvm.VM

	mu       sync.Mutex
	messages []*kvm.MSI // of the GSIs from ioapicPins on; nil for those that lead nowhere
}

// reserve gives n GSIs for messages, and returns the first.
func (t *interruptTable) reserve(n int) uint32 {
	t.mu.Lock()
	defer t.mu.Unlock()
	first := len(t.messages)
	t.messages = append(t.messages, make([]*kvm.MSI, n)...)
	return uint32(ioapicPins + first)
}

// route leads a reserved GSI to a message.
func (t *interruptTable) route(gsi uint32, m kvm.MSI) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	at := &t.messages[gsi-ioapicPins]
	before := *at
	*at = &m
	err := t.store()
	if err != nil {
		*at = before
	}
	return err
}

// store tells KVM, which takes the table as a whole.
func (t *interruptTable) store() error {
	routes := make([]kvm.Route, ioapicPins, ioapicPins+len(t.messages))
	for gsi := range routes {
		routes[gsi] = kvm.Route{GSI: uint32(gsi), Chip: &kvm.ChipPin{Chip: kvm.ChipIOAPIC, Pin: uint32(gsi)}}
	}
	for i, m := range t.messages {
		if m != nil {
			routes = append(routes, kvm.Route{GSI: uint32(ioapicPins + i), MSI: m})
		}
	}
	return t.vm.SetGSIRouting(routes)
}

// vectors are the MSI-X vectors of one function: an eventfd each, which KVM turns
// into the message of a GSI (irqfd). It implements pci.Descriptors.
type vectors struct {
	table *interruptTable
	first uint32 // GSI
	fds   []int
	bound []bool // by Route, which runs once at a time
}

func newVectors(t *interruptTable, n int) (*vectors, error) {
	v := &vectors{table: t, first: t.reserve(n), bound: make([]bool, n)}
	for range n {
		// Not an eventfd.Event: nobody in this process waits for it.
		fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("eventfd: %w", err), v.close())
		}
		v.fds = append(v.fds, fd)
	}
	return v, nil
}

func (v *vectors) close() error {
	var errs []error
	for _, fd := range v.fds {
		errs = append(errs, unix.Close(fd))
	}
	return errors.Join(errs...)
}

// Where a message is an interrupt of a local APIC (Intel SDM vol. 3 §11.11.1).
const (
	messageBase = 0xfee0_0000
	messageSize = 1 << 20
)

// Route implements pci.Vectors.
func (v *vectors) Route(vector int, m pci.Message) error {
	if m.Address-messageBase >= messageSize {
		return fmt.Errorf("%#x is not an address of a local APIC", m.Address)
	}
	gsi := v.first + uint32(vector)
	if err := v.table.route(gsi, kvm.MSI{Address: m.Address, Data: m.Data}); err != nil {
		return err
	}
	if v.bound[vector] {
		return nil
	}
	if err := v.table.vm.AssignIRQFD(kvm.IRQFD{FD: v.fds[vector], GSI: gsi}); err != nil {
		return err
	}
	v.bound[vector] = true
	return nil
}

// FD implements pci.Descriptors.
func (v *vectors) FD(vector int) int { return v.fds[vector] }

// Signal implements pci.Vectors.
func (v *vectors) Signal(vector int) { eventfd.Signal(v.fds[vector]) }

// newEvents makes the events at which the notifications of n queues arrive.
func (vm *VM) newEvents(n int) ([]*eventfd.Event, error) {
	events := make([]*eventfd.Event, n)
	for i := range events {
		e, err := eventfd.New()
		if err != nil {
			return nil, err
		}
		vm.onClose(e.Close)
		events[i] = e
	}
	return events, nil
}

func asVirtio(events []*eventfd.Event) []virtio.Event {
	list := make([]virtio.Event, len(events))
	for i, e := range events {
		list[i] = e
	}
	return list
}

// doorbells have KVM signal a queue's event when the guest stores to the queue's
// doorbell (ioeventfd). It implements the interface of virtio/pci.
type doorbells struct {
	vm     *kvm.VM
	events []*eventfd.Event
	log    *slog.Logger
}

// event is for stores of any width: for those KVM has a faster way.
func (d doorbells) event(queue int, gpa uint64) kvm.IOEvent {
	return kvm.IOEvent{FD: d.events[queue].FD(), Addr: gpa}
}

// Bind implements virtio/pci.Doorbells.
func (d doorbells) Bind(queue int, gpa uint64) error { return d.vm.AssignIOEvent(d.event(queue, gpa)) }

// Unbind implements virtio/pci.Doorbells.
func (d doorbells) Unbind(queue int, gpa uint64) {
	if err := d.vm.DeassignIOEvent(d.event(queue, gpa)); err != nil {
		d.log.Error("a doorbell was not where it had been bound", "queue", queue, "gpa", gpa, "err", err)
	}
}

// bindNotify does the same for virtio-mmio, where all queues have one register, to
// which the driver stores the queue's number.
func bindNotify(vm *kvm.VM, gpa uint64, events []*eventfd.Event) error {
	for i, e := range events {
		err := vm.AssignIOEvent(kvm.IOEvent{FD: e.FD(), Addr: gpa, Len: 4, Match: true, Data: uint64(i)})
		if err != nil {
			return fmt.Errorf("%w: %w", ErrKVM, err)
		}
	}
	return nil
}
