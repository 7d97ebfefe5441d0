package pci

import (
	"encoding/binary"

	"github.com/huskvm/husk/devices/pci"
)

// Where the fields of struct virtio_pci_cfg_cap are in a capability's body
// (§4.1.4.9).
const (
	windowBAR    = 2
	windowOff    = 6
	windowLength = 10
	windowData   = 14 // pci_cfg_data
	windowSize   = 4
)

// window is the way to the registers through configuration space, for firmware
// that has not mapped the BAR: the driver says where, and finds it in
// pci_cfg_data.
func (d *Device) window() pci.Capability {
	c := structure(capWindow, 0, 0, 0)
	c.Writable = make([]byte, len(c.Body))
	for _, i := range []int{
		windowBAR, windowOff, windowOff + 1, windowOff + 2, windowOff + 3,
		windowLength, windowLength + 1, windowLength + 2, windowLength + 3,
	} {
		c.Writable[i] = 0xff
	}
	c.Live = &pci.Live{Off: windowData, Size: windowSize, Load: d.loadWindow, Store: d.storeWindow}
	return c
}

// view is where the driver has put the window: n bytes at off. It is not ok
// unless it is in the right BAR, of 1, 2 or 4 bytes, and aligned to them. Behind
// the BAR's end there are no registers.
func view(body []byte) (off uint64, n int, ok bool) {
	off = uint64(binary.LittleEndian.Uint32(body[windowOff:]))
	length := uint64(binary.LittleEndian.Uint32(body[windowLength:]))
	switch length {
	case 1, 2, 4:
		ok = body[windowBAR] == registersBAR && off%length == 0
	}
	return off, int(length), ok
}

// loadWindow is pci.Live.Load. The bytes of pci_cfg_data that are not in view are
// ones.
func (d *Device) loadWindow(body []byte, off int, p []byte) {
	data := [windowSize]byte{0xff, 0xff, 0xff, 0xff}
	if at, n, ok := view(body); ok {
		registers{d}.Load(at, data[:n])
	}
	copy(p, data[off:])
}

// storeWindow is pci.Live.Store. A store that does not have all bytes in view
// is dropped: a driver stores what it wants at once.
func (d *Device) storeWindow(body []byte, off int, p []byte) {
	if at, n, ok := view(body); ok && off == 0 && n <= len(p) {
		registers{d}.Store(at, p[:n])
	}
}
