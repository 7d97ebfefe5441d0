package virtiotest

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/devices/virtio"
	"github.com/huskvm/husk/devices/virtio/queue"
)

// A Driver drives a whole device, through the registers of its State.
type Driver struct {
	State *virtio.State
	Mem   *Memory
	// Rings are the queues after Start.
	Rings []*Ring
	// Kicks and Interrupts are the queues', ConfigInterrupt is the device's.
	Kicks, Interrupts []*Signal
	ConfigInterrupt   *Signal

	t testing.TB
}

// NewDriver returns a driver for d, with 64 MiB of RAM. The device is reset, and
// is closed when t ends.
func NewDriver(t testing.TB, d virtio.Device, log *slog.Logger) *Driver {
	t.Helper()
	return NewDriverIn(t, NewMemory(1<<32, 64<<20), d, log)
}

// NewDriverIn is NewDriver with RAM of the caller's.
func NewDriverIn(t testing.TB, mem *Memory, d virtio.Device, log *slog.Logger) *Driver {
	t.Helper()
	return NewDriverBy(t, mem, d, log, func(s *Signal) queue.Kick { return s })
}

// NewDriverBy is NewDriverIn where the device hears of the driver's notifications by
// what kick makes of them.
func NewDriverBy(t testing.TB, mem *Memory, d virtio.Device, log *slog.Logger, kick func(*Signal) queue.Kick) *Driver {
	t.Helper()
	r := &Driver{t: t, Mem: mem, ConfigInterrupt: NewSignal()}
	c := virtio.Config{Device: d, Memory: r.Mem, Features: virtio.FeatRingReset, ConfigInterrupt: r.ConfigInterrupt, Log: log}
	for range d.QueueSizes() {
		own, irq := NewSignal(), NewSignal()
		r.Kicks, r.Interrupts = append(r.Kicks, own), append(r.Interrupts, irq)
		c.Kicks, c.Interrupts = append(c.Kicks, kick(own)), append(c.Interrupts, irq)
	}
	s, err := virtio.NewState(c)
	require.NoError(t, err)
	t.Cleanup(s.Close)
	r.State = s
	return r
}

// Context ends when the test has taken unreasonably long.
func (d *Driver) Context() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	d.t.Cleanup(cancel)
	return ctx
}

// Offered are all features that the device offers.
func (d *Driver) Offered() uint64 {
	d.State.SetDeviceFeatureSelect(1)
	upper := uint64(d.State.DeviceFeatures())
	d.State.SetDeviceFeatureSelect(0)
	return upper<<32 | uint64(d.State.DeviceFeatures())
}

// Negotiate resets the device and accepts features, with VERSION_1. It tells
// whether the device took them.
func (d *Driver) Negotiate(features uint64) bool {
	d.Reset()
	features |= virtio.FeatVersion1
	d.State.SetStatus(virtio.StatusAcknowledge)
	d.State.SetStatus(virtio.StatusAcknowledge | virtio.StatusDriver)
	for i := range uint32(2) {
		d.State.SetDriverFeatureSelect(i)
		d.State.SetDriverFeatures(uint32(features >> (32 * i)))
	}
	d.State.SetStatus(virtio.StatusAcknowledge | virtio.StatusDriver | virtio.StatusFeaturesOK)
	return d.State.Status()&virtio.StatusFeaturesOK != 0
}

// Reset resets the device and waits until that is done.
func (d *Driver) Reset() {
	d.State.SetStatus(0)
	require.Eventually(d.t, func() bool { return d.State.Status() == 0 }, time.Minute, time.Millisecond)
}

// Start negotiates features and starts the device with all its queues, at their
// largest sizes.
func (d *Driver) Start(features uint64) {
	d.t.Helper()
	require.True(d.t, d.Negotiate(features), "features refused")
	d.Rings = make([]*Ring, len(d.Kicks))
	for i := range d.Rings {
		d.EnableQueue(i, features)
	}
	d.Go()
}

// EnableQueue sets up queue i with a new ring.
func (d *Driver) EnableQueue(i int, features uint64) {
	d.State.SetQueueSelect(uint32(i))
	r := NewRing(d.Mem, int(d.State.QueueMax()), queue.Features{
		IndirectDesc: features&virtio.FeatIndirectDesc != 0,
		EventIdx:     features&virtio.FeatEventIdx != 0,
	})
	r.Indirect = r.features.IndirectDesc
	r.Kick, r.Interrupt = d.Kicks[i], d.Interrupts[i]
	d.State.SetQueueSize(r.State.Size)
	for a, gpa := range []uint64{r.State.Desc, r.State.Driver, r.State.Device} {
		d.State.SetQueueAddress(virtio.Area(a), false, uint32(gpa))
		d.State.SetQueueAddress(virtio.Area(a), true, uint32(gpa>>32))
	}
	d.State.EnableQueue()
	d.Rings[i] = r
}

// Go sets DRIVER_OK.
func (d *Driver) Go() { d.State.SetStatus(d.State.Status() | virtio.StatusDriverOK) }

// Config is the first n bytes of the device's configuration space.
func (d *Driver) Config(n int) []byte {
	p := make([]byte, n)
	d.State.LoadConfig(0, p)
	return p
}
