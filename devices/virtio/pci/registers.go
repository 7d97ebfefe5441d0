package pci

import (
	"encoding/binary"
	"sync/atomic"

	"github.com/huskvm/husk/devices/virtio"
)

// registers is what is behind registersBAR.
type registers struct{ d *Device }

// Load implements devices.Device. Where nothing is, or not in that width, there
// are ones.
func (r registers) Load(off uint64, p []byte) {
	d := r.d
	if off >= configAt && off < notifyAt {
		d.state.LoadConfig(off-configAt, p)
		return
	}
	for i := range p {
		p[i] = 0xff
	}
	switch {
	case off < isrAt:
		d.loadCommon(off-commonAt, p)
	case off == isrAt && len(p) == 1:
		p[0] = byte(d.isr.Take())
	}
}

// Store implements devices.Device.
func (r registers) Store(off uint64, p []byte) {
	d := r.d
	switch {
	case off < isrAt:
		d.storeCommon(off-commonAt, p)
	case off >= configAt && off < notifyAt:
		d.state.StoreConfig(off-configAt, p)
	case off >= notifyAt:
		if i := (off - notifyAt) / notifyMultiplier; off%notifyMultiplier == 0 && i < uint64(len(d.events)) {
			d.events[i].Signal()
		}
	}
}

// A field is one of the common configuration, or half of one with 64 bits. It is
// accessed as a whole and in no other way (§4.1.3.1).
type field struct {
	width int
	load  func() uint32
	store func(uint32) // nil for one that is read-only
}

// commonSize is the size of struct virtio_pci_common_cfg.
const commonSize = 0x3c

// Fields with 64 bits (§4.1.4.3).
const (
	queueDesc   = 0x20
	queueDriver = 0x28
	queueDevice = 0x30
)

// commonFields are those of struct virtio_pci_common_cfg (§4.1.4.3), by offset.
func (d *Device) commonFields() map[uint64]field {
	s := d.state
	fields := map[uint64]field{
		0x00: {4, s.DeviceFeatureSelect, s.SetDeviceFeatureSelect},
		0x04: {4, s.DeviceFeatures, nil},
		0x08: {4, s.DriverFeatureSelect, s.SetDriverFeatureSelect},
		0x0c: {4, s.DriverFeatures, s.SetDriverFeatures},
		0x10: {2, d.configVector.Load, func(v uint32) { d.assign(&d.configVector, v) }}, // config_msix_vector
		0x12: {2, func() uint32 { return uint32(s.NumQueues()) }, nil},
		0x14: {1, func() uint32 { return uint32(s.Status()) }, func(v uint32) { s.SetStatus(uint8(v)) }},
		0x15: {1, s.ConfigGeneration, nil},
		0x16: {2, s.QueueSelect, s.SetQueueSelect},
		0x18: {2, func() uint32 { return uint32(s.QueueState().Size) }, func(v uint32) { s.SetQueueSize(uint16(v)) }},
		0x1a: {2, func() uint32 { return d.selected().Load() }, func(v uint32) { d.assign(d.selected(), v) }}, // queue_msix_vector
		0x1c: {2, func() uint32 { return bit(s.QueueState().Enabled) }, func(v uint32) {
			if v == 1 { // a queue is not disabled by a 0
				s.EnableQueue()
			}
		}},
		0x1e: {2, d.notifyOff, nil},
		// 0x38 is queue_notify_data, which comes with VIRTIO_F_NOTIF_CONFIG_DATA.
		0x3a: {2, func() uint32 { return bit(s.QueueResetting()) }, d.resetQueue},
	}
	areas := []struct {
		off  uint64
		area virtio.Area
		at   func() uint64
	}{
		{queueDesc, virtio.DescriptorArea, func() uint64 { return s.QueueState().Desc }},
		{queueDriver, virtio.DriverArea, func() uint64 { return s.QueueState().Driver }},
		{queueDevice, virtio.DeviceArea, func() uint64 { return s.QueueState().Device }},
	}
	for _, a := range areas {
		fields[a.off] = field{4, func() uint32 { return uint32(a.at()) }, func(v uint32) { s.SetQueueAddress(a.area, false, v) }}
		fields[a.off+4] = field{4, func() uint32 { return uint32(a.at() >> 32) }, func(v uint32) { s.SetQueueAddress(a.area, true, v) }}
	}
	return fields
}

func bit(b bool) uint32 {
	if b {
		return 1
	}
	return 0
}

// selected is the vector of the selected queue. That of one that does not exist
// cannot be kept.
func (d *Device) selected() *atomic.Uint32 {
	if i := d.state.QueueSelect(); i < uint32(len(d.queueVectors)) {
		return &d.queueVectors[i]
	}
	none := new(atomic.Uint32)
	none.Store(noVector)
	return none
}

// assign sets a vector. The driver reads noVector where there is no such one
// (§4.1.5.1.2.1).
func (d *Device) assign(vector *atomic.Uint32, v uint32) {
	if v >= uint32(d.vectorCount) {
		v = noVector
	}
	vector.Store(v)
	d.vectorsChanged()
}

// notifyOff is queue_notify_off: where the selected queue's doorbell is, in
// units of notifyMultiplier.
func (d *Device) notifyOff() uint32 {
	if i := d.state.QueueSelect(); i < uint32(len(d.events)) {
		return i
	}
	return 0
}

// resetQueue is a store to queue_reset. The vector is of what is reset (§2.6.1).
func (d *Device) resetQueue(v uint32) {
	if v != 1 {
		return
	}
	d.state.ResetQueue()
	if d.state.QueueResetting() || !d.state.QueueState().Enabled {
		d.assign(d.selected(), noVector)
	}
}

// half is one half of a field with 64 bits, which a driver may access at once
// (§4.1.3.1).
const half = 4

func wide(off uint64, p []byte) bool {
	return len(p) == 2*half && (off == queueDesc || off == queueDriver || off == queueDevice)
}

func (d *Device) loadCommon(off uint64, p []byte) {
	if wide(off, p) {
		d.loadCommon(off, p[:half])
		d.loadCommon(off+half, p[half:])
		return
	}
	f := d.common[off]
	if f.width != len(p) {
		return
	}
	v := f.load()
	switch len(p) {
	case 1:
		p[0] = byte(v)
	case 2:
		binary.LittleEndian.PutUint16(p, uint16(v))
	case 4:
		binary.LittleEndian.PutUint32(p, v)
	}
}

func (d *Device) storeCommon(off uint64, p []byte) {
	if wide(off, p) {
		d.storeCommon(off, p[:half])
		d.storeCommon(off+half, p[half:])
		return
	}
	f := d.common[off]
	if f.width != len(p) || f.store == nil {
		return
	}
	var v uint32
	for i, b := range p {
		v |= uint32(b) << (8 * i)
	}
	f.store(v)
}
