package pci

import (
	"encoding/binary"
	"sync/atomic"

	"github.com/huskvm/husk/devices"
)

// Where configuration space is accessed.
const (
	// PortsBase and PortsSize are mechanism #1's ports (PCI 3.0 §3.2.2.3.2).
	PortsBase = 0xcf8
	PortsSize = 8
	// ECAMSize is the memory that the memory-mapped configuration space of
	// one bus takes (PCI Express Base 3.0 §7.2.2). Its address is a multiple
	// of it.
	ECAMSize = 1 << 20
)

// load fills p from function devfn of bus 0, offset reg. An access that passes
// the end of a double word is taken apart.
func (r *Root) load(devfn int, reg uint64, p []byte) {
	f := r.functions[devfn].Load()
	for len(p) > 0 {
		n := min(len(p), 4-int(reg%4))
		if f == nil || reg >= configSize {
			ones(p[:n])
		} else {
			f.load(int(reg), p[:n])
		}
		reg, p = reg+uint64(n), p[n:]
	}
}

// store is load's counterpart.
func (r *Root) store(devfn int, reg uint64, p []byte) {
	f := r.functions[devfn].Load()
	for f != nil && len(p) > 0 && reg < configSize {
		n := min(len(p), 4-int(reg%4))
		f.store(int(reg), p[:n])
		reg, p = reg+uint64(n), p[n:]
	}
}

func ones(p []byte) {
	for i := range p {
		p[i] = 0xff
	}
}

// Ports is configuration space through two double words of ports, to be mapped
// at PortsBase: an address register, which can only be accessed as a whole, and
// a window on what it points to. It holds the address that guests set, so call
// it once.
func (r *Root) Ports() devices.Device { return &ports{root: r} }

type ports struct {
	root    *Root
	address atomic.Uint32
}

// The address register.
const (
	addressEnable   = 1 << 31
	addressWritable = 0x80fffffc // bits 24 to 30 are reserved, 0 and 1 always 0
	portData        = 4
)

// target decodes the address register. ok is false when nothing answers.
func (d *ports) target() (devfn int, reg uint64, ok bool) {
	a := d.address.Load()
	return int(a >> 8 & 0xff), uint64(a & 0xfc), a&addressEnable != 0 && a>>16&0xff == 0
}

// Load implements devices.Device.
func (d *ports) Load(off uint64, p []byte) {
	ones(p)
	switch {
	case off >= portData:
		if devfn, reg, ok := d.target(); ok && off+uint64(len(p)) <= PortsSize {
			d.root.load(devfn, reg+off-portData, p)
		}
	case off == 0 && len(p) == 4:
		binary.LittleEndian.PutUint32(p, d.address.Load())
	}
}

// Store implements devices.Device.
func (d *ports) Store(off uint64, p []byte) {
	switch {
	case off >= portData:
		if devfn, reg, ok := d.target(); ok && off+uint64(len(p)) <= PortsSize {
			d.root.store(devfn, reg+off-portData, p)
		}
	case off == 0 && len(p) == 4:
		d.address.Store(binary.LittleEndian.Uint32(p) & addressWritable)
	}
}

// ECAM is configuration space in memory: bus, slot, function and offset are
// fields of the address. It is to be mapped for ECAMSize bytes a bus; there is
// nothing on any bus but the first.
func (r *Root) ECAM() devices.Device { return ecam{r} }

type ecam struct{ root *Root }

// functionSize is a function's share of ECAM.
const functionSize = 1 << 12

// Load implements devices.Device.
func (d ecam) Load(off uint64, p []byte) {
	if off >= ECAMSize {
		ones(p)
		return
	}
	d.root.load(int(off/functionSize), off%functionSize, p)
}

// Store implements devices.Device.
func (d ecam) Store(off uint64, p []byte) {
	if off < ECAMSize {
		d.root.store(int(off/functionSize), off%functionSize, p)
	}
}
