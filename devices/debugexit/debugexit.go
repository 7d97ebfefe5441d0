// Package debugexit is a port by which a guest ends its machine with an exit
// code of its choice: for test kernels, which have no power management.
//
// QEMU's isa-debug-exit, which guests know at port 0xf4, exits with
// value*2 + 1. husk takes the value as it is, so that 0 means success.
package debugexit

// Size is the number of ports.
const Size = 4

// A Port is the device. It has one register, at offset 0.
type Port struct {
	exit func(code uint32)
}

// New returns a port that hands to exit what the guest stores. exit is called
// on a vCPU's thread, once for each store, from several threads at once if the
// guest does so.
func New(exit func(code uint32)) *Port { return &Port{exit: exit} }

// Load reads zero: a guest can tell the port from a missing one, which reads
// as ones.
func (p *Port) Load(_ uint64, b []byte) { clear(b) }

// Store takes 1, 2 or 4 bytes at offset 0 as the exit code. It drops all else.
func (p *Port) Store(off uint64, b []byte) {
	if off != 0 || len(b) > Size {
		return
	}
	var code uint32
	for i, v := range b {
		code |= uint32(v) << (8 * i)
	}
	p.exit(code)
}
