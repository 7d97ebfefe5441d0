// Package mmio shows a virtio device as a block of registers in memory space
// (virtio 1.2 §4.2, version 2), with one interrupt line. It is registers, and a
// virtio.State behind them.
//
// A guest cannot find it by looking: the DSDT announces it, or the kernel's
// command line does.
package mmio

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/huskvm/husk/devices"
	"github.com/huskvm/husk/devices/virtio"
	"github.com/huskvm/husk/devices/virtio/queue"
)

const (
	// Size is how much memory space the registers take, in bytes.
	Size = configAt + virtio.MaxConfig
	// QueueNotify is the offset of the register to which a driver stores the
	// number of a queue, 4 bytes, to notify the device. Who has such stores signal
	// the queue's event takes a way past us.
	QueueNotify = 0x50
)

// Options are what a device is made of.
type Options struct {
	Name   string // in the log and in errors
	Device virtio.Device
	Memory queue.Memory
	// Events are the queues', by index.
	Events []virtio.Event
	// Line is the interrupt: a level, up until the driver acknowledges.
	Line devices.Line
	Log  *slog.Logger
}

// A Device is a virtio device's registers. It is a devices.Device, to be mapped
// for Size bytes.
type Device struct {
	state     *virtio.State
	isr       *virtio.ISR
	events    []virtio.Event
	registers map[uint64]register
}

// New returns a device after its reset. Close ends it.
func New(o Options) (*Device, error) {
	d := &Device{isr: virtio.NewISR(o.Line), events: o.Events}
	c := virtio.Config{
		Device: o.Device, Memory: o.Memory, Features: virtio.FeatRingReset,
		Kicks:           virtio.Kicks(o.Events),
		ConfigInterrupt: d.isr.Interrupt(virtio.ISRConfig),
		OnReset:         func() { d.isr.Clear(virtio.ISRQueue | virtio.ISRConfig) },
		Log:             o.Log.With("device", o.Name),
	}
	for range o.Device.QueueSizes() {
		c.Interrupts = append(c.Interrupts, d.isr.Interrupt(virtio.ISRQueue))
	}
	var err error
	if d.state, err = virtio.NewState(c); err != nil {
		return nil, fmt.Errorf("%s: %w", o.Name, err)
	}
	d.registers = d.newRegisters()
	return d, nil
}

// Pause stops the device, and returns when nothing is in flight: see
// virtio.State.Pause.
func (d *Device) Pause(ctx context.Context) error { return d.state.Pause(ctx) }

// Resume undoes Pause.
func (d *Device) Resume() { d.state.Resume() }

// Close stops the device for good, and returns when nothing is in flight.
func (d *Device) Close() { d.state.Close() }

// CommandLine is the word of the Linux command line that announces a device at
// the guest-physical address base with an interrupt (Linux
// drivers/virtio/virtio_mmio.c; a kernel has it with
// CONFIG_VIRTIO_MMIO_CMDLINE_DEVICES).
func CommandLine(base uint64, irq uint32) string {
	return fmt.Sprintf("virtio_mmio.device=%#x@%#x:%d", Size, base, irq)
}
