// Package marker is a one-byte port by which a guest marks a moment, such as
// "init has started": it stores a number, and husk notes the time. It costs the
// guest one exit. husk's own device: no hardware has it.
package marker

// Size is the number of ports.
const Size = 1

// A Port is the device.
type Port struct {
	mark func(id byte)
}

// New returns a port that hands to mark each number the guest stores. mark is
// called on a vCPU's thread, several at once, as often as the guest likes: it
// must bound what it keeps.
func New(mark func(id byte)) *Port { return &Port{mark: mark} }

// Load reads zero: a guest can tell the port from a missing one, which reads
// as ones.
func (p *Port) Load(_ uint64, b []byte) { clear(b) }

// Store marks a moment with the first byte stored.
func (p *Port) Store(off uint64, b []byte) {
	if off == 0 && len(b) > 0 {
		p.mark(b[0])
	}
}
