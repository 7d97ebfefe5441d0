package mmio

import (
	"encoding/binary"

	"github.com/huskvm/husk/devices/virtio"
)

// A register of §4.2.2. It has 32 bits, and is accessed as a whole and in no other
// way (§4.2.2.2).
type register struct {
	load  func() uint32 // nil for one that is write-only
	store func(uint32)  // nil for one that is read-only
}

// configAt is where the device's configuration space begins.
const configAt = 0x100

const (
	magic   = 0x74726976 // "virt"
	version = 2          // 1 was before virtio 1.0
	vendor  = 0x1af4     // what the same device has on PCI
)

func constant(v uint32) func() uint32 { return func() uint32 { return v } }

// newRegisters are all of §4.2.2, by offset. Those of shared memory, 0xb0 to 0xbc,
// are left out: no device has any, and so they read as all ones.
func (d *Device) newRegisters() map[uint64]register {
	s := d.state
	registers := map[uint64]register{
		0x000: {constant(magic), nil},
		0x004: {constant(version), nil},
		0x008: {func() uint32 { return uint32(s.Type()) }, nil},
		0x00c: {constant(vendor), nil},
		0x010: {s.DeviceFeatures, nil},
		0x014: {nil, s.SetDeviceFeatureSelect},
		0x020: {nil, s.SetDriverFeatures},
		0x024: {nil, s.SetDriverFeatureSelect},
		0x030: {nil, s.SetQueueSelect},
		0x034: {func() uint32 { return uint32(s.QueueMax()) }, nil},
		0x038: {nil, d.setQueueSize},
		0x044: {func() uint32 { return bit(s.QueueState().Enabled) }, d.setQueueReady},

		QueueNotify: {nil, d.notify},

		0x060: {d.isr.Bits, nil},
		0x064: {nil, d.isr.Clear},
		0x070: {func() uint32 { return uint32(s.Status()) }, d.setStatus},
		0x0c0: {func() uint32 { return bit(s.QueueResetting()) }, d.setQueueReset},
		0x0fc: {s.ConfigGeneration, nil},
	}
	for off, area := range map[uint64]virtio.Area{
		0x080: virtio.DescriptorArea,
		0x090: virtio.DriverArea,
		0x0a0: virtio.DeviceArea,
	} {
		registers[off] = register{nil, func(v uint32) { s.SetQueueAddress(area, false, v) }}
		registers[off+4] = register{nil, func(v uint32) { s.SetQueueAddress(area, true, v) }}
	}
	return registers
}

func bit(b bool) uint32 {
	if b {
		return 1
	}
	return 0
}

// setQueueSize is QueueNum. A size that 16 bits do not hold must not turn into
// one that can be.
func (d *Device) setQueueSize(v uint32) {
	if v > 0xffff {
		v = 0
	}
	d.state.SetQueueSize(uint16(v))
}

func (d *Device) setQueueReady(v uint32) {
	switch v {
	case 0:
		d.state.DisableQueue()
	case 1:
		d.state.EnableQueue()
	}
}

func (d *Device) setQueueReset(v uint32) {
	if v == 1 {
		d.state.ResetQueue()
	}
}

// notify is QueueNotify, where nobody has taken the store before.
func (d *Device) notify(v uint32) {
	if v < uint32(len(d.events)) {
		d.events[v].Signal()
	}
}

// setStatus is Status. Only 0 as a whole is a reset.
func (d *Device) setStatus(v uint32) {
	if v == 0 || uint8(v) != 0 {
		d.state.SetStatus(uint8(v))
	}
}

// Load implements devices.Device. Where nothing is, or not in that width, there
// are ones.
func (d *Device) Load(off uint64, p []byte) {
	if off >= configAt {
		d.state.LoadConfig(off-configAt, p)
		return
	}
	for i := range p {
		p[i] = 0xff
	}
	if r := d.registers[off]; r.load != nil && len(p) == 4 {
		binary.LittleEndian.PutUint32(p, r.load())
	}
}

// Store implements devices.Device.
func (d *Device) Store(off uint64, p []byte) {
	if off >= configAt {
		d.state.StoreConfig(off-configAt, p)
		return
	}
	if r := d.registers[off]; r.store != nil && len(p) == 4 {
		r.store(binary.LittleEndian.Uint32(p))
	}
}
