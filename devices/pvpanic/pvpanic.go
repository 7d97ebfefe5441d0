// Package pvpanic is the port by which a guest kernel tells that it has
// panicked (QEMU docs/specs/pvpanic.rst, ISA flavour, ACPI id QEMU0001).
package pvpanic

import "strings"

// Size is the number of ports. The specification puts them at 0x505.
const Size = 1

// An Event is what a guest reports: one bit or several.
type Event uint8

// The events, all of which husk supports.
const (
	Panicked    Event = 1 << 0 // the kernel has panicked, and nobody else handles it
	CrashLoaded Event = 1 << 1 // it has panicked, and a crash kernel takes over
	Shutdown    Event = 1 << 2 // it asks to be powered off, having no other way
)

const supported = Panicked | CrashLoaded | Shutdown

func (e Event) String() string {
	var names []string
	for i, name := range [...]string{"panicked", "crash-loaded", "shutdown"} {
		if e>>i&1 != 0 {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, "|")
}

// A Port is the device.
type Port struct {
	notify func(Event)
}

// New returns a port that hands to notify what the guest reports. notify is
// called on a vCPU's thread, several at once, as often as the guest likes.
func New(notify func(Event)) *Port { return &Port{notify: notify} }

// Load reads the events that are supported. Linux reports no others.
func (p *Port) Load(off uint64, b []byte) {
	for i := range b {
		b[i] = 0xff
	}
	if off == 0 && len(b) > 0 {
		b[0] = byte(supported)
	}
}

// Store reports the supported events among the bits stored.
func (p *Port) Store(off uint64, b []byte) {
	if off != 0 || len(b) == 0 {
		return
	}
	if e := Event(b[0]) & supported; e != 0 {
		p.notify(e)
	}
}
