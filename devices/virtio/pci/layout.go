package pci

import (
	"encoding/binary"
	"math/bits"

	"github.com/huskvm/husk/devices/pci"
	"github.com/huskvm/husk/devices/virtio"
)

// The BARs. Each has 64 bits and takes the next one's register too.
const (
	registersBAR = 0
	msixBAR      = 2
)

// Where the structures of §4.1.4 are in registersBAR. Each has pages of its own,
// so that a hypervisor, or a driver in user space, can have one without another.
// The doorbells are last because it depends on the device how many there are.
const (
	page     = 0x1000
	commonAt = 0 * page
	isrAt    = 1 * page
	configAt = 2 * page
	notifyAt = 3 * page
)

// notifyMultiplier is the distance of two doorbells in bytes
// (notify_off_multiplier, §4.1.4.4).
const notifyMultiplier = 4

// doorbell is where queue i's doorbell is in registersBAR.
func doorbell(i int) uint64 { return notifyAt + notifyMultiplier*uint64(i) }

// A layout is how large the parts of registersBAR are that depend on the device.
type layout struct {
	notify uint64 // the doorbells
	bar    uint64
}

func newLayout(queues int) layout {
	notify := max(doorbell(queues)-notifyAt, notifyMultiplier)
	return layout{notify: notify, bar: 1 << bits.Len64(max(notifyAt+notify, 4*page)-1)}
}

// Identity (§4.1.2).
const (
	vendor    = 0x1af4
	deviceIDs = 0x1040 // and the device type
	revision  = 1
)

// class is the class code that QEMU gives a type: drivers do not look at it, but
// firmware and lspci do.
func class(t virtio.Type) uint32 {
	switch t {
	case virtio.Net:
		return 0x020000 // Ethernet controller
	case virtio.Block:
		return 0x010000 // SCSI storage controller
	case virtio.FS:
		return 0x018000 // other storage controller
	case virtio.Console, virtio.Socket:
		return 0x078000 // other communication controller
	}
	return 0x00ff00 // none of PCI's
}

// config is the function.
func (d *Device) config(o Options) pci.Config {
	id := deviceIDs + uint16(o.Device.Type())
	c := pci.Config{
		Name:   o.Name,
		Vendor: vendor, Device: id,
		// A subsystem below 0x40 would be a transitional device's (§4.1.2.1).
		SubsystemVendor: vendor, Subsystem: id,
		Class: class(o.Device.Type()), Revision: revision,
		InterruptPin: 1, // INTA#
		MSIX:         &pci.MSIX{Vectors: d.vectorCount, BAR: msixBAR, Sink: o.Vectors, Changed: d.vectorsChanged},
		Mapped:       d.mapped, Unmapped: d.unmapped,
		Capabilities: []pci.Capability{
			structure(capCommon, commonAt, commonSize),
			structure(capISR, isrAt, 1),
			// A page, not what the device has now: that may change, and a driver
			// is to find room for it.
			structure(capDevice, configAt, page),
			structure(capNotify, notifyAt, d.layout.notify, notifyMultiplier),
			d.window(),
		},
	}
	c.BARs[registersBAR] = pci.BAR{Kind: pci.Memory64, Prefetchable: true, Size: d.layout.bar, Device: registers{d}}
	return c
}

// The types of a structure: cfg_type of struct virtio_pci_cap (§4.1.4).
const (
	capCommon = 1 // VIRTIO_PCI_CAP_COMMON_CFG
	capNotify = 2 // VIRTIO_PCI_CAP_NOTIFY_CFG
	capISR    = 3 // VIRTIO_PCI_CAP_ISR_CFG
	capDevice = 4 // VIRTIO_PCI_CAP_DEVICE_CFG
	capWindow = 5 // VIRTIO_PCI_CAP_PCI_CFG
)

// structure is a struct virtio_pci_cap, with what follows it for some types. Its
// body begins with cap_len, behind ID and link.
func structure(kind uint8, off, size uint64, more ...uint32) pci.Capability {
	length := 16 + 4*len(more)
	body := []byte{byte(length), kind, registersBAR, 0, 0, 0}
	for _, v := range append([]uint32{uint32(off), uint32(size)}, more...) {
		body = binary.LittleEndian.AppendUint32(body, v)
	}
	return pci.Capability{ID: pci.CapVendor, Body: body}
}
