package vmm

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"

	"github.com/huskvm/husk/devices"
	"github.com/huskvm/husk/devices/acpipm"
	"github.com/huskvm/husk/devices/pci"
)

// An attack is what no driver would do. The same source of randomness makes the
// same attack.
type attack struct {
	*rand.Rand
	mapped  []devices.Range // ports that have something behind them
	ram     uint64          // bytes
	lethal  float64         // the share of accesses that would end the machine and are left in
	wild    float64         // the share of a driver's accesses that are not what a driver does
	targets []target
	spared  devices.Range // memory space that is left alone
}

// An access is one load or store of a guest: of a port, of a register or of RAM.
type access struct {
	port, store bool
	addr        uint64
	size        int // 1, 2, 4 or 8 bytes
	value       uint64
}

// spareSlot is the PCI slot of a device that is not attacked.
const spareSlot = pci.Slots - 1

// spares tells whether x leaves alone what is not attacked: its registers, and
// its slot's configuration space.
func (a attack) spares(x access) bool {
	if x.port {
		return x.addr > pci.PortsBase || x.addr+uint64(x.size) <= pci.PortsBase || x.value>>11&0x1f != spareSlot
	}
	for _, r := range []devices.Range{a.spared, {Base: ecamBase + spareSlot<<15, Size: 1 << 15}} {
		if x.addr < r.Base+r.Size && x.addr+uint64(x.size) > r.Base {
			return false
		}
	}
	return true
}

// move is a few accesses that belong together.
func (a attack) move() []access {
	var m []access
	switch p := a.Float64(); {
	case p < 0.3 || len(a.targets) == 0 && p < 0.8:
		m = []access{a.port()}
	case p < 0.4 || len(a.targets) == 0:
		m = []access{a.memory()}
	default:
		m = a.mutate(a.drive(pick(a, a.targets)))
	}
	return slices.DeleteFunc(m, func(x access) bool { return !a.spares(x) })
}

// mutate spoils a share of a driver's accesses.
func (a attack) mutate(m []access) []access {
	var out []access
	for _, x := range m {
		if a.Float64() >= a.wild {
			out = append(out, x)
			continue
		}
		switch a.IntN(7) {
		case 0: // forgotten
			continue
		case 1:
			out = append(out, x)
		case 2:
			x.value ^= 1 << a.IntN(8*x.size)
		case 3:
			x.value = uint64(a.value())
		case 4:
			x.addr += uint64(a.Int64N(9) - 4)
		case 5:
			x.size = pick(a, []int{1, 2, 4, 8})
		case 6:
			x.store = !x.store
		}
		out = append(out, x)
	}
	return out
}

// lethalPorts are those through which a guest ends its run.
var lethalPorts = []uint16{portI8042Command, portDebugExit, portPVPanic, portPower + acpipm.SleepControl, portPower + acpipm.Reset}

// likely are values that mean something to one chip or another.
var likely = []uint32{
	0, 1, 2, 4, 5, 7, 8, 0x0a, 0x0b, 0x0c, 0x0f, 0x10, 0x1f, 0x20, 0x26, 0x32, 0x60, 0x72, 0x7f,
	0x80, 0x83, 0x8b, 0xa7, 0xa8, 0xaa, 0xad, 0xae, 0xc1, 0xc7, 0xd1, 0xd2, 0xd4, 0xf4, 0xfe, 0xff,
	acpipm.SleepTypeS5<<2 | 1<<5, 0xff00, 0xffff, 0x8000_0000, 0xffff_ffff,
	0x407, 0x8000_0804, 0x8000_0810, 0x8000_1004, pciLowBase, pciLowBase + pciLowSize - 0x1000, ecamBase, mmioBase,
	localAPICBase, localAPICBase + 0x1000,
}

// addresses are where chips are, the ends of RAM and of the hole.
var addresses = []uint32{
	ioapicBase, ioapicBase + 0x10, ioapicBase + 0x40, localAPICBase, localAPICBase + 0x80, localAPICBase + 0xb0,
	localAPICBase + 0xf0, localAPICBase + 0x300, localAPICBase + 0x310, localAPICBase + 0x320, localAPICBase + 0x380,
	identityMapBase - 2, tssBase, holeStart - 2, holeStart, holeEnd - 8,
	ecamBase, ecamBase + 0x3c, ecamBase + 0xffe, ecamBase + 1<<15, ecamBase + pci.ECAMSize - 3, mmioBase - 2, mmioBase,
}

// port is one access by IN or OUT.
func (a attack) port() access {
	return access{port: true, store: a.IntN(2) == 0, addr: uint64(a.portNumber()), size: pick(a, []int{1, 2, 4}), value: uint64(a.value())}
}

// memory is an access to where no RAM is.
func (a attack) memory() access {
	return access{store: a.IntN(2) == 0, addr: uint64(a.address()), size: pick(a, []int{1, 2, 4, 8}), value: uint64(a.value())}
}

// portNumber is mostly one that is mapped, or next to one.
func (a attack) portNumber() uint16 {
	for {
		p := uint16(a.Uint32())
		if a.IntN(8) != 0 {
			r := pick(a, a.mapped)
			p = uint16(int64(r.Base) + a.Int64N(int64(r.Size)+6) - 3)
		}
		// An access of four bytes reaches three ports further.
		ends := slices.ContainsFunc(lethalPorts, func(l uint16) bool { return p <= l && l-p < 4 })
		if !ends || a.Float64() < a.lethal {
			return p
		}
	}
}

func (a attack) value() uint32 {
	switch a.IntN(4) {
	case 0:
		return a.Uint32()
	case 1:
		return pick(a, likely) ^ 1<<a.IntN(32)
	case 2:
		return pick(a, likely) | pick(a, likely)<<16 // for the second port of a wide access
	default:
		return pick(a, likely)
	}
}

func (a attack) address() uint32 {
	switch a.IntN(4) {
	case 0, 1:
		return pick(a, addresses) + a.Uint32N(8)
	case 2:
		return uint32(a.ram) - 3 + a.Uint32N(8)
	}
	return uint32(a.ram + a.Uint64N(holeEnd-a.ram))
}

func pick[T any](a attack, from []T) T { return from[a.IntN(len(from))] }

// do makes an access on the machine's buses and RAM, as a vCPU would.
func (vm *VM) do(x access) {
	var b [8]byte
	p := b[:x.size]
	binary.LittleEndian.PutUint64(b[:], x.value)
	switch ram, err := vm.mem.Writable(x.addr, uint64(x.size)); {
	case x.port && x.size == 8: // no instruction does
	case x.port && x.store:
		vm.board.pio.Store(x.addr, p)
	case x.port:
		vm.board.pio.Load(x.addr, p)
	case err == nil && x.store:
		copy(ram, p)
	case err == nil:
		copy(p, ram)
	case x.store:
		vm.board.mmio.Store(x.addr, p)
	default:
		vm.board.mmio.Load(x.addr, p)
	}
}
