package mmio

import (
	"encoding/binary"
	"io"
	"log/slog"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/devices"
	"github.com/huskvm/husk/devices/virtio"
	"github.com/huskvm/husk/devices/virtio/virtiotest"
)

// base is where a rig's device is.
const base = 0xd000_0000

// A rig is a device on a bus, with a driver. It does as Linux does
// (drivers/virtio/virtio_mmio.c).
type rig struct {
	*Device
	bus    *devices.Bus
	line   *virtiotest.Line
	events []*virtiotest.Signal
	// trace, if not nil, sees each store of the driver.
	trace func(off uint64, p []byte)

	mu      sync.Mutex
	signals map[int]*virtiotest.Signal // by queue; -1 is the configuration's
}

func newRig(t testing.TB, d virtio.Device, mem *virtiotest.Memory) *rig {
	t.Helper()
	r := &rig{bus: devices.NewBus("mmio"), signals: map[int]*virtiotest.Signal{}}
	o := Options{Name: "echo", Device: d, Memory: mem, Log: slog.New(slog.NewTextHandler(io.Discard, nil))}
	for range d.QueueSizes() {
		s := virtiotest.NewSignal()
		r.events = append(r.events, s)
		o.Events = append(o.Events, s)
	}
	r.line = virtiotest.NewLine(t, r.interrupt)
	o.Line = r.line
	var err error
	r.Device, err = New(o)
	require.NoError(t, err)
	t.Cleanup(r.Close)
	require.NoError(t, r.bus.Map("echo", base, Size, r.Device))
	return r
}

func (r *rig) load32(off uint64) uint32 {
	p := make([]byte, 4)
	r.bus.Load(base+off, p)
	return binary.LittleEndian.Uint32(p)
}

func (r *rig) store(off uint64, p []byte) {
	if r.trace != nil {
		r.trace(off, p)
	}
	r.bus.Store(base+off, p)
}

func (r *rig) store32(off uint64, v uint32) {
	r.store(off, binary.LittleEndian.AppendUint32(nil, v))
}

// interrupt is vm_interrupt.
func (r *rig) interrupt() {
	status := r.load32(0x60)
	r.bus.Store(base+0x64, binary.LittleEndian.AppendUint32(nil, status))
	r.mu.Lock()
	defer r.mu.Unlock()
	for queue, s := range r.signals {
		if queue < 0 && status&2 != 0 || queue >= 0 && status&1 != 0 {
			s.Signal()
		}
	}
}

// offsets are the registers' (§4.2.2).
var offsets = map[virtiotest.Register]uint64{
	virtiotest.DeviceFeatures: 0x10, virtiotest.DeviceFeatureSelect: 0x14,
	virtiotest.DriverFeatures: 0x20, virtiotest.DriverFeatureSelect: 0x24,
	virtiotest.QueueSelect: 0x30, virtiotest.QueueMax: 0x34, virtiotest.QueueSize: 0x38,
	virtiotest.QueueEnable: 0x44, virtiotest.Status: 0x70,
	virtiotest.QueueDesc: 0x80, virtiotest.QueueDescHigh: 0x84,
	virtiotest.QueueDriver: 0x90, virtiotest.QueueDriverHigh: 0x94,
	virtiotest.QueueDevice: 0xa0, virtiotest.QueueDeviceHigh: 0xa4,
	virtiotest.QueueReset: 0xc0, virtiotest.Generation: 0xfc,
}

// driver is the rig as a virtiotest.Transport.
type driver struct{ *rig }

func (d driver) Load(r virtiotest.Register) uint32     { return d.load32(offsets[r]) }
func (d driver) Store(r virtiotest.Register, v uint32) { d.store32(offsets[r], v) }
func (d driver) LoadConfig(off int, p []byte)          { d.bus.Load(base+0x100+uint64(off), p) }
func (d driver) StoreConfig(off int, p []byte)         { d.store(0x100+uint64(off), p) }
func (d driver) Notify(queue int)                      { d.store32(0x50, uint32(queue)) }

func (d driver) Connect(queue int, s *virtiotest.Signal) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.signals[queue] = s
}
