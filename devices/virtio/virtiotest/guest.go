package virtiotest

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/devices/virtio"
	"github.com/huskvm/husk/devices/virtio/queue"
)

// A Register is one that every transport has.
type Register int

// The registers. Those from QueueSize on are of the selected queue. Where the
// address of an area has a register for its upper half, that is the next one.
const (
	DeviceFeatureSelect Register = iota
	DeviceFeatures
	DriverFeatureSelect
	DriverFeatures
	Status
	Generation
	QueueSelect
	QueueMax // read-only: the largest size, after a reset
	QueueSize
	QueueDesc
	QueueDescHigh
	QueueDriver
	QueueDriverHigh
	QueueDevice
	QueueDeviceHigh
	QueueEnable
	QueueReset
)

// A Transport is the driver's side of a transport: what Linux has in a struct
// virtio_config_ops.
type Transport interface {
	Load(r Register) uint32
	Store(r Register, v uint32)
	LoadConfig(off int, p []byte)
	StoreConfig(off int, p []byte)
	// Notify tells the device to look at a queue.
	Notify(queue int)
	// Connect has the interrupts of a queue, or of the configuration if queue is
	// negative, arrive at s. The queue is the selected one, and not enabled.
	Connect(queue int, s *Signal)
}

// A Guest drives a device through the registers of a transport.
type Guest struct {
	Transport
	Mem *Memory
	// Rings are the queues after Start.
	Rings []*Ring
	// ConfigInterrupt is the device's, after Start.
	ConfigInterrupt *Signal

	t testing.TB
}

// NewGuest returns a guest with mem as its RAM.
func NewGuest(t testing.TB, tr Transport, mem *Memory) *Guest {
	return &Guest{Transport: tr, Mem: mem, t: t}
}

// Reset resets the device and waits until that is done.
func (g *Guest) Reset() {
	g.t.Helper()
	g.Store(Status, 0)
	require.Eventually(g.t, func() bool { return g.Load(Status) == 0 }, time.Minute, time.Millisecond)
}

// Offered are all features that the device offers.
func (g *Guest) Offered() uint64 {
	g.Store(DeviceFeatureSelect, 0)
	lower := uint64(g.Load(DeviceFeatures))
	g.Store(DeviceFeatureSelect, 1)
	return lower | uint64(g.Load(DeviceFeatures))<<32
}

// Negotiate resets the device and accepts features, with VERSION_1. It tells
// whether the device took them.
func (g *Guest) Negotiate(features uint64) bool {
	g.t.Helper()
	g.Reset()
	features |= virtio.FeatVersion1
	g.add(virtio.StatusAcknowledge)
	g.add(virtio.StatusDriver)
	for i := range uint32(2) {
		g.Store(DriverFeatureSelect, i)
		g.Store(DriverFeatures, uint32(features>>(32*i)))
	}
	g.add(virtio.StatusFeaturesOK)
	return g.Load(Status)&virtio.StatusFeaturesOK != 0
}

func (g *Guest) add(status uint32) { g.Store(Status, g.Load(Status)|status) }

// Start negotiates features and starts the device with all its queues, at their
// largest sizes.
func (g *Guest) Start(features uint64) {
	g.t.Helper()
	require.True(g.t, g.Negotiate(features), "features refused")
	g.ConfigInterrupt = NewSignal()
	g.Connect(-1, g.ConfigInterrupt)
	g.Rings = nil
	for {
		g.Store(QueueSelect, uint32(len(g.Rings)))
		if g.Load(QueueMax) == 0 {
			break
		}
		g.Rings = append(g.Rings, nil)
		g.Enable(len(g.Rings)-1, features)
	}
	g.add(virtio.StatusDriverOK)
}

// Enable sets up queue i with a new ring.
func (g *Guest) Enable(i int, features uint64) {
	g.t.Helper()
	g.Store(QueueSelect, uint32(i))
	require.Zero(g.t, g.Load(QueueEnable), "enabled already")
	r := NewRing(g.Mem, int(g.Load(QueueMax)), queue.Features{
		IndirectDesc: features&virtio.FeatIndirectDesc != 0,
		EventIdx:     features&virtio.FeatEventIdx != 0,
	})
	r.Indirect = r.features.IndirectDesc
	g.Store(QueueSize, uint32(r.State.Size))
	for area, gpa := range map[Register]uint64{QueueDesc: r.State.Desc, QueueDriver: r.State.Driver, QueueDevice: r.State.Device} {
		g.Store(area, uint32(gpa))
		g.Store(area+1, uint32(gpa>>32))
	}
	g.Connect(i, r.Interrupt)
	g.Store(QueueEnable, 1)
	require.EqualValues(g.t, 1, g.Load(QueueEnable))
	g.Rings[i] = r
}

// ResetQueue resets queue i and waits until that is done (§2.6.1).
func (g *Guest) ResetQueue(i int) {
	g.t.Helper()
	g.Store(QueueSelect, uint32(i))
	g.Store(QueueReset, 1)
	require.Eventually(g.t, func() bool { return g.Load(QueueReset) == 0 }, time.Minute, time.Millisecond)
	require.Zero(g.t, g.Load(QueueEnable))
}

// Publish shows the device what was added to queue i, and notifies it if it
// wants that.
func (g *Guest) Publish(i int) {
	r := g.Rings[i]
	r.Publish()
	select {
	case <-r.Kick.C():
		g.Notify(i)
	default:
	}
}

// Context ends when the test has taken unreasonably long.
func (g *Guest) Context() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	g.t.Cleanup(cancel)
	return ctx
}

// Say has an Echo's queue i repeat text.
func (g *Guest) Say(i int, text string) {
	g.t.Helper()
	r := g.Rings[i]
	r.Add(Out([]byte(text)), In(len(text)+1))
	g.Publish(i)
	q, err := r.Await(g.Context())
	require.NoError(g.t, err)
	require.Equal(g.t, text, string(r.In(q)[:q.Written]))
	r.Free(q)
}
