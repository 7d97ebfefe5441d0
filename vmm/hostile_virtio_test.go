package vmm

import (
	"github.com/huskvm/husk/devices/virtio"
)

// A target is a virtio device as a guest finds it.
type target struct {
	slot int    // on the PCI bus; 0 for virtio-mmio
	base uint64 // of its registers; on PCI, of BAR 0 where a driver puts it
}

// A register of virtio's, on either transport.
type register int

const (
	driverFeatureSelect register = iota
	driverFeatures
	deviceFeatureSelect
	deviceFeatures
	deviceStatus
	queueSelect
	queueMax
	queueSize
	queueVector
	queueEnable
	queueReset
	queueDesc   // the lower half; the upper one is 4 bytes further
	queueDriver //
	queueDevice //
	registerCount
)

// Where registers are: offset and width (virtio 1.2 §4.1.4.3, §4.2.2). A PCI queue's
// size is its largest after a reset.
var (
	registersPCI = [registerCount][2]uint64{
		driverFeatureSelect: {0x08, 4}, driverFeatures: {0x0c, 4}, deviceFeatureSelect: {0, 4}, deviceFeatures: {0x04, 4},
		deviceStatus: {0x14, 1}, queueSelect: {0x16, 2}, queueMax: {0x18, 2}, queueSize: {0x18, 2}, queueVector: {0x1a, 2},
		queueEnable: {0x1c, 2}, queueReset: {0x3a, 2}, queueDesc: {0x20, 4}, queueDriver: {0x28, 4}, queueDevice: {0x30, 4},
	}
	registersMMIO = [registerCount][2]uint64{
		driverFeatureSelect: {0x24, 4}, driverFeatures: {0x20, 4}, deviceFeatureSelect: {0x14, 4}, deviceFeatures: {0x10, 4},
		deviceStatus: {0x70, 4}, queueSelect: {0x30, 4}, queueMax: {0x34, 4}, queueSize: {0x38, 4}, queueVector: {0x64, 4},
		queueEnable: {0x44, 4}, queueReset: {0xc0, 4}, queueDesc: {0x80, 4}, queueDriver: {0x90, 4}, queueDevice: {0xa0, 4},
	}
)

func (t target) at(r register) access {
	place := registersPCI[r]
	if t.slot == 0 {
		place = registersMMIO[r]
	}
	return access{addr: t.base + place[0], size: int(place[1])}
}

func (t target) set(r register, v uint64) access {
	x := t.at(r)
	x.store, x.value = true, v
	return x
}

// setWide sets a register of 64 bits.
func (t target) setWide(r register, v uint64) []access {
	low, high := t.set(r, v&0xffff_ffff), t.set(r, v>>32)
	high.addr += 4
	return []access{low, high}
}

// notify rings a queue's doorbell.
func (t target) notify(queue uint64) access {
	if t.slot == 0 {
		return access{store: true, addr: t.base + 0x50, size: 4, value: queue}
	}
	return access{store: true, addr: t.base + 0x3000 + 4*queue, size: 2, value: queue}
}

// configAt is where the device's own configuration is.
func (t target) configAt() uint64 {
	if t.slot == 0 {
		return t.base + 0x100
	}
	return t.base + 0x2000
}

// negotiate brings a device from its reset to FEATURES_OK.
func (t target) negotiate(features uint64) []access {
	return []access{
		t.set(deviceStatus, 0),
		t.set(deviceStatus, virtio.StatusAcknowledge),
		t.set(deviceStatus, virtio.StatusAcknowledge|virtio.StatusDriver),
		t.set(driverFeatureSelect, 0), t.set(driverFeatures, features&0xffff_ffff),
		t.set(driverFeatureSelect, 1), t.set(driverFeatures, features>>32),
		t.set(deviceStatus, virtio.StatusAcknowledge|virtio.StatusDriver|virtio.StatusFeaturesOK),
	}
}

// driverOK starts a device.
func (t target) driverOK() access {
	return t.set(deviceStatus, virtio.StatusAcknowledge|virtio.StatusDriver|virtio.StatusFeaturesOK|virtio.StatusDriverOK)
}

// enable sets up a queue.
func (t target) enable(i, size uint64, at rings) []access {
	m := []access{t.set(queueSelect, i), t.set(queueSize, size)}
	m = append(m, t.setWide(queueDesc, at.desc)...)
	m = append(m, t.setWide(queueDriver, at.driver)...)
	m = append(m, t.setWide(queueDevice, at.device)...)
	return append(m, t.set(queueEnable, 1))
}

// Where PCI's registers are in configuration space, and the bits of the command
// register.
const (
	pciCommand     = 0x04
	pciBAR0        = 0x10
	pciBAR2        = 0x18
	pciMSIXControl = 2

	commandMemory   = 2
	commandMaster   = 4
	commandNoINTx   = 1 << 10
	commandWorking  = commandMemory | commandMaster
	msixOn, msixAll = 1 << 15, 1 << 14
)

// config is an access to the target's configuration space, in memory.
func (t target) config(reg uint64, size int, v uint64) access {
	return access{store: true, addr: ecamBase + uint64(t.slot)<<15 + reg, size: size, value: v}
}

// configPorts is the same through ports.
func (t target) configPorts(reg uint64, size int, v uint64) []access {
	return []access{
		{port: true, store: true, addr: 0xcf8, size: 4, value: 1<<31 | uint64(t.slot)<<11 | reg&0xfc},
		{port: true, store: true, addr: 0xcfc + reg&3, size: size, value: v},
	}
}

// tableAt is where a driver puts BAR 2, with the table of MSI-X.
func (t target) tableAt() uint64 { return t.base + 0x8000 }

// placeAt puts the BARs to where they belong, or anywhere else.
func (t target) placeAt(bar0, bar2, command uint64) []access {
	return []access{
		t.config(pciBAR0, 4, bar0&0xffff_ffff), t.config(pciBAR0+4, 4, bar0>>32),
		t.config(pciBAR2, 4, bar2&0xffff_ffff), t.config(pciBAR2+4, 4, bar2>>32),
		t.config(pciCommand, 2, command),
	}
}

// homeBase is where the device in a slot has its BARs.
func homeBase(slot int) uint64 { return pciLowBase + uint64(slot)<<16 }

// targets are the machine's virtio devices.
func (c Config) targets() []target {
	var list []target
	for i := range c.parts() {
		if c.Transport == TransportMMIO {
			list = append(list, target{base: uint64(virtioMMIO(i).Base)})
		} else {
			list = append(list, target{slot: firstSlot + i, base: homeBase(firstSlot + i)})
		}
	}
	return list
}
