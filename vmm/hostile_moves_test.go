package vmm

import (
	"github.com/huskvm/husk/devices/virtio"
)

// rings are where the parts of a queue are in RAM.
type rings struct{ desc, driver, device uint64 }

// Where attacks have their rings: a few places, so that one is often where
// another is, too.
const (
	places    = 0x80_0000
	placeSize = 0x4000
)

// somewhere is one of the places.
func (a attack) somewhere() uint64 { return places + uint64(a.IntN(16))*placeSize }

func ringsAt(gpa uint64) rings { return rings{gpa, gpa + 0x1000, gpa + 0x2000} }

func poke(gpa uint64, size int, v uint64) access {
	return access{store: true, addr: gpa, size: size, value: v}
}

// drive is something that a driver does, or might.
func (a attack) drive(t target) []access {
	moves := []func(target) []access{
		a.bringUp, a.bringUp, a.bringUp, a.request, a.request, a.request, a.ring, a.ring,
		a.doorbells, a.doorbells, a.reset, a.deviceConfig, a.anyRegister, a.resetWhileRinging,
	}
	if t.slot != 0 {
		moves = append(moves, a.moveBARs, a.moveBARs, a.vectors, a.vectors, a.anyConfig, a.window)
	}
	return pick(a, moves)(t)
}

// bringUp is a driver's whole beginning, with requests waiting.
func (a attack) bringUp(t target) []access {
	var m []access
	if t.slot != 0 {
		m = t.placeAt(t.base, t.tableAt(), commandWorking)
	}
	features := uint64(virtio.FeatVersion1)
	for _, f := range []uint64{virtio.FeatIndirectDesc, virtio.FeatEventIdx, virtio.FeatRingReset, 1 << 9, 1 << 11, 1 << 13, 1 << 14} {
		if a.IntN(2) == 0 {
			features |= f
		}
	}
	m = append(m, t.negotiate(features)...)
	for i := range uint64(1 + a.IntN(4)) {
		m = append(m, t.enable(i, pick(a, []uint64{1, 4, 64, 64, 256, 1024, 3}), ringsAt(a.somewhere()))...)
		m = append(m, t.set(queueVector, pick(a, []uint64{0, 1, 2, i, 0xffff})))
	}
	m = append(m, a.request(t)...)
	return append(m, t.driverOK(), t.notify(uint64(a.IntN(4))))
}

// request puts chains into a queue's table and offers them.
func (a attack) request(t target) []access {
	at := ringsAt(a.somewhere())
	n := uint64(1 + a.IntN(8))
	var m []access
	for i := range n {
		m = append(m, a.chain(at, i*4)...)
		m = append(m, poke(at.driver+4+2*i, 2, i*4))
	}
	// What was taken before is not known: half of the time it is a bit more.
	index := pick(a, []uint64{n, n, 2 * n, uint64(a.IntN(300)), a.Uint64()})
	return append(m, poke(at.driver, 2, pick(a, []uint64{0, 0, 1})), poke(at.driver+2, 2, index&0xffff), t.notify(uint64(a.IntN(4))))
}

// Descriptor flags (virtio 1.2 §2.7.5).
const (
	descNext     = 1
	descWrite    = 2
	descIndirect = 4
)

func descriptor(gpa, addr, length, flags, next uint64) []access {
	return []access{
		poke(gpa, 4, addr&0xffff_ffff), poke(gpa+4, 4, addr>>32),
		poke(gpa+8, 4, length), poke(gpa+12, 4, flags|next<<16),
	}
}

// chain is a request of up to four descriptors from entry i on. Three of four are
// a block device's.
func (a attack) chain(at rings, i uint64) []access {
	header := a.somewhere() + 0x3000 + 64*i%0x800
	data := pick(a, []uint64{a.somewhere(), a.somewhere(), buffer, a.ram - 4096, a.ram - 1, uint64(a.address())})
	length := pick(a, []uint64{512, 512, 4096, 4096, 1 << 16, 0, 1, 511, 1 << 20, 1 << 31})
	kind := pick(a, []uint64{0, 0, 1, 1, 4, 8, 11, 13, 2, 0xffff_ffff})
	sector := pick(a, []uint64{0, 1, 7, 64, 2040, 2047, 2048, a.Uint64()})
	table := at.desc
	var m []access
	if a.IntN(4) == 0 { // a table of its own
		table = a.somewhere() + 0x3800
		m = descriptor(at.desc+16*i, table, pick(a, []uint64{16, 48, 64, 64, 65, 1 << 20}), descIndirect, 0)
		i = 0
	}
	m = append(m, poke(header, 4, kind), poke(header+8, 4, sector&0xffff_ffff), poke(header+12, 4, sector>>32))
	if kind == 11 || kind == 13 {
		data = header + 16
		length = 16
		m = append(m, poke(data, 4, sector), poke(data+4, 4, 0), poke(data+8, 4, length>>9+uint64(a.IntN(9))), poke(data+12, 4, uint64(a.IntN(3))))
	}
	way := uint64(0)
	if kind == 0 || kind == 8 {
		way = descWrite
	}
	at16 := func(n uint64) uint64 { return table + 16*(i+n) }
	switch a.IntN(4) {
	case 0: // one buffer for the device to fill, or any
		return append(m, descriptor(at16(0), data, length, pick(a, []uint64{descWrite, descWrite, 0, descNext, a.Uint64() & 7}), a.Uint64()&0xff)...)
	default:
		m = append(m, descriptor(at16(0), header, 16, descNext, i+1)...)
		m = append(m, descriptor(at16(1), data, length, descNext|way, i+2)...)
		return append(m, descriptor(at16(2), header+60, 1, descWrite, 0)...)
	}
}

// ring changes something in the rings, whoever uses them now.
func (a attack) ring(target) []access {
	at := ringsAt(a.somewhere())
	var m []access
	for range 1 + a.IntN(6) {
		switch a.IntN(6) {
		case 0:
			m = append(m, poke(at.driver+2, 2, a.Uint64()&0xffff))
		case 1:
			m = append(m, poke(at.driver+4+2*uint64(a.IntN(256)), 2, pick(a, []uint64{0, 1, 255, 256, 0xffff})))
		case 2:
			m = append(m, poke(at.device+2, 2, a.Uint64()&0xffff)) // the device's own index
		case 3:
			i := uint64(a.IntN(32))
			m = append(m, poke(at.desc+16*i+12, 4, a.Uint64()&7|i<<16)) // a loop
		case 4:
			m = append(m, poke(at.desc+16*uint64(a.IntN(32))+8, 4, uint64(a.value())))
		case 5:
			m = append(m, poke(at.driver+4+2*uint64(a.IntN(257)), 4, a.Uint64())) // the event index is behind the ring
		}
	}
	return m
}

func (a attack) doorbells(t target) []access {
	var m []access
	for range 1 + a.IntN(20) {
		m = append(m, t.notify(pick(a, []uint64{0, 0, 0, 1, 2, 3, 4, 63, a.Uint64() & 0x3ff})))
	}
	return m
}

// reset resets the device or one queue, or is not sure.
func (a attack) reset(t target) []access {
	var m []access
	for range 1 + a.IntN(4) {
		switch a.IntN(5) {
		case 0:
			m = append(m, t.set(deviceStatus, 0), t.at(deviceStatus))
		case 1:
			m = append(m, t.set(deviceStatus, a.Uint64()&0xff))
		case 2:
			m = append(m, t.set(queueSelect, uint64(a.IntN(5))), t.set(queueReset, 1), t.at(queueReset))
		case 3:
			m = append(m, t.set(queueSelect, uint64(a.IntN(5))), t.set(queueEnable, uint64(a.IntN(2))), t.at(queueEnable))
		case 4:
			m = append(m, t.enable(uint64(a.IntN(4)), 64, ringsAt(a.somewhere()))...)
		}
	}
	return m
}

// resetWhileRinging has the device stop and start under its doorbells.
func (a attack) resetWhileRinging(t target) []access {
	var m []access
	for range 1 + a.IntN(5) {
		m = append(m, t.notify(0), t.set(deviceStatus, 0), t.notify(0))
		m = append(m, t.negotiate(virtio.FeatVersion1|virtio.FeatRingReset)...)
		m = append(m, t.enable(0, 64, ringsAt(a.somewhere()))...)
		m = append(m, t.driverOK(), t.notify(0), t.set(queueReset, 1))
		m = append(m, t.enable(0, 64, ringsAt(a.somewhere()))...)
		m = append(m, t.notify(0))
	}
	return m
}

func (a attack) deviceConfig(t target) []access {
	x := access{store: a.IntN(2) == 0, addr: t.configAt() + uint64(a.IntN(300)), size: pick(a, []int{1, 2, 4, 8}), value: uint64(a.value())}
	return []access{x, t.at(deviceStatus)}
}

// anyRegister is an access to anything in the device's registers.
func (a attack) anyRegister(t target) []access {
	var m []access
	for range 1 + a.IntN(10) {
		off := uint64(a.IntN(0x40))
		if a.IntN(4) == 0 {
			off = uint64(a.IntN(0x4100))
		}
		if t.slot == 0 {
			off = uint64(a.IntN(0x210))
		}
		m = append(m, access{store: a.IntN(3) > 0, addr: t.base + off, size: pick(a, []int{1, 2, 4, 4, 8}), value: uint64(a.value())})
	}
	return m
}

// moveBARs puts the BARs over RAM, chips, each other and what other functions
// have, on and off.
func (a attack) moveBARs(t target) []access {
	anywhere := func() uint64 {
		return pick(a, []uint64{
			t.base, t.base, t.tableAt(), homeBase(a.IntN(8)), homeBase(spareSlot), homeBase(spareSlot) + 0x8000,
			0, places, a.ram, a.ram - 0x4000, pciLowBase - 0x4000, pciLowBase + pciLowSize - 0x4000, pciLowBase + pciLowSize,
			ecamBase, mmioBase, ioapicBase, localAPICBase, pciHigh(a.ram), pciHigh(a.ram) + pciHighSize - 0x4000,
			pciHigh(a.ram) + pciHighSize, ^uint64(0), uint64(a.value()),
		})
	}
	m := t.placeAt(anywhere(), anywhere(), pick(a, []uint64{commandWorking, commandWorking, commandMemory, 0, 0xffff, commandNoINTx}))
	if a.IntN(2) == 0 { // the last word to whom works
		m = append(m, t.placeAt(t.base, t.tableAt(), commandWorking)...)
	}
	return m
}

// vectors is the table of MSI-X, and its switch.
func (a attack) vectors(t target) []access {
	var m []access
	for range 1 + a.IntN(6) {
		entry := t.tableAt() + 16*uint64(pick(a, []int{0, 0, 1, 2, 4, 5, 63}))
		m = append(m,
			poke(entry, 4, pick(a, []uint64{localAPICBase, localAPICBase, localAPICBase | 1<<12, localAPICBase | 0xff<<12 | 0xf, places, uint64(a.value())})),
			poke(entry+4, 4, pick(a, []uint64{0, 0, 0, uint64(a.value())})),
			poke(entry+8, 4, pick(a, []uint64{0x20, 0xfe, 0x4030, 0xc030, uint64(a.value())})),
			poke(entry+12, 4, uint64(a.IntN(3))))
	}
	// The capability is the last one, and where that is follows from the others.
	control := pick(a, []uint64{0x98, 0x94, 0x90, 0x9c, 0xa0, 0x8c, 0x40 + 4*uint64(a.IntN(40))})
	return append(m, t.config(control+pciMSIXControl, 2, pick(a, []uint64{msixOn, msixOn, msixOn | msixAll, 0, 0xffff})),
		access{store: true, addr: t.tableAt() + 0x800, size: 8, value: a.Uint64()}, access{addr: t.tableAt() + 0x800, size: 4})
}

// anyConfig is configuration space, both ways, in sweeps too.
func (a attack) anyConfig(t target) []access {
	var m []access
	reg, size := uint64(a.IntN(0x104)), pick(a, []int{1, 2, 4})
	for range 1 + a.IntN(16) {
		switch x := t.config(reg, size, uint64(a.value())); a.IntN(3) {
		case 0:
			m = append(m, x)
		case 1:
			x.store = false
			m = append(m, x)
		case 2:
			m = append(m, t.configPorts(reg&0xff, size, uint64(a.value()))...)
		}
		reg += uint64(size)
	}
	return append(m, t.config(pciCommand, 2, commandWorking))
}

// window is the way to the registers through configuration space (virtio 1.2
// §4.1.4.9), wherever that capability is.
func (a attack) window(t target) []access {
	at := pick(a, []uint64{0x84, 0x84, 0x80, 0x88, 0x40 + 4*uint64(a.IntN(32))})
	var m []access
	for range 1 + a.IntN(6) {
		m = append(m,
			t.config(at+4, 1, pick(a, []uint64{0, 0, 0, 2, 5})),
			t.config(at+8, 4, pick(a, []uint64{0, 0x14, 0x16, 0x1c, 0x1000, 0x2000, 0x3000, 0x3ffc, 0x4000, uint64(a.value())})),
			t.config(at+12, 4, pick(a, []uint64{1, 2, 4, 0, 3, 8, uint64(a.value())})),
			t.config(at+16+uint64(a.IntN(2)), pick(a, []int{1, 2, 4}), uint64(a.value())))
	}
	return m
}
