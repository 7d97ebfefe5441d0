package main

import (
	"encoding/binary"
	"math/rand/v2"
	"sync/atomic"
)

// An attack is one thread's.
type attack struct {
	*rand.Rand
	devices []*device
	mem     *pages
	ports   *ports    // nil where they cannot be had
	holes   []*region // of memory space, where nothing should be
	count   *atomic.Uint64
}

func pick[T any](a *attack, from []T) T { return from[a.IntN(len(from))] }

// Registers of the common configuration (virtio 1.2 §4.1.4.3).
const (
	regFeatureSelect = 0x08
	regFeatures      = 0x0c
	regStatus        = 0x14
	regQueueSelect   = 0x16
	regQueueSize     = 0x18
	regQueueVector   = 0x1a
	regQueueEnable   = 0x1c
	regQueueDesc     = 0x20
	regQueueDriver   = 0x28
	regQueueDevice   = 0x30
	regQueueReset    = 0x3a
	commonSize       = 0x40
)

// noRAM is where a guest of at most 2 GiB has no RAM.
const noRAM = 2 << 30

// value is anything that is not an address in RAM, but for those of our own pages:
// a device may be led to write there.
func (a *attack) value() uint64 {
	v := a.Uint64()
	switch a.IntN(5) {
	case 0:
		return pick(a, a.mem.gpa)
	case 1:
		return v & 0xff
	case 2:
		return uint64(1) << a.IntN(12)
	case 3:
		return pick(a, []uint64{0xffff_ffff, noRAM, 0xfee0_0000, 0xe000_0000, 0xc000_0000, ^uint64(0), 0x8000_0000_0000_0000})
	}
	return v | noRAM | noRAM<<32
}

// store is a store to registers, spoiled now and then.
func (a *attack) store(d *device, bar, off, size int, v uint64) {
	r := d.bars[bar]
	if r == nil {
		return
	}
	if a.IntN(25) == 0 {
		switch a.IntN(4) {
		case 0:
			return
		case 1:
			v = a.value()
		case 2:
			off += a.IntN(9) - 4
		case 3:
			size = pick(a, []int{1, 2, 4, 8})
		}
	}
	if bar == d.msixBAR {
		v = ordinary(off, size, v)
	}
	a.count.Add(1)
	r.store(off, size, v)
}

// ordinary makes of what is stored to the table of MSI-X a message that is an
// ordinary interrupt: an NMI or INIT would be the guest's own end, and so would be
// an exception.
func ordinary(off, size int, v uint64) uint64 {
	for i := range size {
		b := v >> (8 * i) & 0xff
		switch (off + i) % 16 {
		case 8:
			b = 0x30 + b%0xb0
		case 9:
			b &^= 7
		}
		v = v&^(0xff<<(8*i)) | b<<(8*i)
	}
	return v
}

func (a *attack) common(d *device, reg, size int, v uint64) {
	off, size := d.at(reg, size)
	a.store(d, d.common.bar, off, size, v)
}

func (a *attack) ring(d *device) {
	queue := pick(a, []int{0, 0, 0, 1, 2, 3, 5, 200})
	if d.mmio {
		a.store(d, 0, mmioNotify, 4, uint64(queue))
		return
	}
	a.store(d, d.notify.bar, d.notify.off+queue*d.notifyMultiplier, 2, uint64(queue))
}

// move does a few things that belong together.
func (a *attack) move() {
	d := pick(a, a.devices)
	n := 15
	if d.mmio {
		n = 10 // the others are PCI's
	}
	switch a.IntN(n) {
	case 0, 1:
		if a.ports != nil {
			a.port()
		}
	case 2, 3, 4:
		a.bringUp(d)
	case 5, 6:
		a.offer(a.place())
		a.ring(d)
	case 7:
		for range 50 {
			a.ring(d)
		}
	case 8:
		a.anything(d)
	case 9:
		a.reset(d)
	case 10:
		a.vectors(d)
	case 11:
		a.configuration(d)
	case 12:
		a.moveBARs(d)
	case 13:
		if a.ports != nil {
			a.portConfig(d)
			d.goHome()
		}
	case 14:
		a.memory(d)
	}
}

// memory is configuration space in memory, and where nothing is.
func (a *attack) memory(d *device) {
	regions := a.holes
	if d.ecam != nil {
		regions = append([]*region{d.ecam, d.ecam}, regions...)
	}
	for range a.IntN(10) {
		if len(regions) == 0 {
			return
		}
		r, off, size := pick(a, regions), a.IntN(0x110), pick(a, []int{1, 2, 4, 8})
		a.count.Add(1)
		if a.IntN(3) == 0 {
			r.load(off, size)
		} else {
			r.store(off, size, a.value())
		}
	}
	d.goHome()
}

// bringUp is a driver's beginning.
func (a *attack) bringUp(d *device) {
	d.goHome()
	features := uint64(1)<<32 | pick(a, []uint64{0, 1 << 28, 1 << 29, 1 << 40, 1<<28 | 1<<29 | 1<<40 | 1<<9 | 1<<13 | 1<<14})
	for _, status := range []uint64{0, 1, 3} {
		a.common(d, regStatus, 1, status)
	}
	for i := range uint64(2) {
		a.common(d, regFeatureSelect, 4, i)
		a.common(d, regFeatures, 4, features>>(32*i)&0xffff_ffff)
	}
	a.common(d, regStatus, 1, 11)
	for i := range uint64(1 + a.IntN(3)) {
		p := a.place()
		a.offer(p)
		a.queue(d, i, p)
	}
	a.common(d, regStatus, 1, 15)
	a.ring(d)
}

// place is the first of three pages for a queue, and more for what it leads to.
func (a *attack) place() int { return a.IntN(len(a.mem.gpa)/8) * 8 }

// queue sets up queue i in the pages from p on.
func (a *attack) queue(d *device, i uint64, p int) {
	a.common(d, regQueueSelect, 2, i)
	a.common(d, regQueueSize, 2, pick(a, []uint64{1, 4, 64, 64, 256, 3}))
	a.common(d, regQueueVector, 2, pick(a, []uint64{0, 1, 2, 0xffff}))
	for n, reg := range []int{regQueueDesc, regQueueDriver, regQueueDevice} {
		gpa := a.mem.gpa[p+n]
		a.common(d, reg, 4, gpa&0xffff_ffff)
		a.common(d, reg+4, 4, gpa>>32)
	}
	a.common(d, regQueueEnable, 2, 1)
}

// offer puts chains into the rings at p: a block device's requests, or like them.
func (a *attack) offer(p int) {
	le := binary.LittleEndian
	desc, avail := a.mem.at(p), a.mem.at(p+1)
	put := func(i int, gpa uint64, length, flags, next int) {
		e := desc[16*(i%256):]
		le.PutUint64(e, gpa)
		le.PutUint32(e[8:], uint32(length))
		le.PutUint16(e[12:], uint16(flags))
		le.PutUint16(e[14:], uint16(next))
	}
	n := 1 + a.IntN(8)
	for i := range n {
		header := a.mem.at(p + 3)[64*i:]
		at := a.mem.gpa[p+3] + uint64(64*i)
		kind := pick(a, []int{0, 0, 1, 1, 4, 8, 11, 13, 77})
		le.PutUint32(header, uint32(kind))
		le.PutUint64(header[8:], pick(a, []uint64{0, 1, 8, 2047, 1 << 30, a.Uint64()}))
		write := 0
		if kind == 0 || kind == 8 {
			write = 2
		}
		// No longer than the page that it is in: what is behind is not ours.
		data := a.mem.gpa[p+4+a.IntN(4)]
		length := pick(a, []int{512, 512, 4096, 16, 0, 1})
		put(4*i, at, 16, 1, 4*i+1)
		put(4*i+1, data, length, 1|write, 4*i+2)
		put(4*i+2, at+60, 1, 2, 0)
		switch a.IntN(12) {
		case 0:
			put(4*i+1, a.value()|noRAM, int(a.Uint32()), 1|write, 4*i+2)
		case 1:
			put(4*i, at, 16, a.IntN(4)|1, a.IntN(300))
		case 2:
			put(4*i, at, 16*a.IntN(5), 4, 0)
		case 3:
			put(4*i, data, length, 2, 0)
		}
		le.PutUint16(avail[4+2*i:], uint16(4*i))
	}
	le.PutUint16(avail[2:], uint16(pick(a, []int{n, n, n, 2 * n, a.IntN(1 << 16)})))
}

// anything is any of the device's registers.
func (a *attack) anything(d *device) {
	for range 1 + a.IntN(20) {
		size := pick(a, []int{1, 2, 4, 8})
		p := pick(a, []place{d.common, d.common, d.specific, d.notify, {d.common.bar, 0}})
		off := p.off + a.IntN(commonSize)
		if d.mmio {
			off = a.IntN(0x210)
		}
		if a.IntN(3) == 0 {
			if r := d.bars[p.bar]; r != nil {
				a.count.Add(1)
				r.load(off, size)
			}
			continue
		}
		a.store(d, p.bar, off, size, a.value())
	}
}

// reset resets the device or a queue with its doorbells ringing.
func (a *attack) reset(d *device) {
	for range 1 + a.IntN(4) {
		a.ring(d)
		if a.IntN(2) == 0 {
			a.common(d, regStatus, 1, 0)
		} else {
			a.common(d, regQueueSelect, 2, uint64(a.IntN(4)))
			a.common(d, regQueueReset, 2, 1)
			p := a.place()
			a.offer(p)
			a.queue(d, uint64(a.IntN(3)), p)
		}
		a.ring(d)
	}
}

// vectors is the table of MSI-X, and what switches it.
func (a *attack) vectors(d *device) {
	for range 1 + a.IntN(6) {
		entry := 16 * a.IntN(6)
		a.store(d, d.msixBAR, entry, 4, pick(a, []uint64{0xfee0_0000, 0xfee0_0000, 0xfee0_1000, 0xfeef_f00c, a.value()}))
		a.store(d, d.msixBAR, entry+4, 4, pick(a, []uint64{0, 0, 0, a.value()}))
		a.store(d, d.msixBAR, entry+8, 4, a.value())
		a.store(d, d.msixBAR, entry+12, 4, uint64(a.IntN(3)))
	}
	a.count.Add(1)
	d.storeConfig(d.msixCap+2, []byte{0, pick(a, []byte{0x80, 0x80, 0xc0, 0x40, 0})})
}

// configuration is anything in configuration space.
func (a *attack) configuration(d *device) {
	for range 1 + a.IntN(8) {
		reg, p := a.IntN(256), make([]byte, pick(a, []int{1, 2, 4}))
		a.count.Add(1)
		if a.IntN(3) == 0 {
			d.loadConfig(reg, p)
			continue
		}
		var v [8]byte
		binary.LittleEndian.PutUint64(v[:], a.value())
		copy(p, v[:])
		d.storeConfig(reg, p)
	}
	d.goHome()
}

// moveBARs puts BARs over RAM, chips, and where others have the same one: what is
// stored to a table of MSI-X is chosen with care, so none must be where we take
// something else to be.
func (a *attack) moveBARs(d *device) {
	var v [8]byte
	for range 1 + a.IntN(4) {
		reg := regBAR + 8*a.IntN(3)
		at := pick(a, []uint64{
			0, a.value() | 1<<63, binary.LittleEndian.Uint64(pick(a, a.devices).start[reg:]), pick(a, a.mem.gpa),
			0xdfff_f000, 0xe000_0000, 0xfec0_0000, 0xfee0_0000, ^uint64(0),
		})
		binary.LittleEndian.PutUint64(v[:], at)
		a.count.Add(1)
		d.storeConfig(reg, v[:])
		a.ring(d)
	}
	d.goHome()
}
