package vmm

import (
	"log/slog"

	"github.com/huskvm/husk/kvm"
)

// routes lead each GSI to the IOAPIC's pin of that number, and nowhere else. KVM's
// own choice leads the first 16 to the PIC too, which a kernel on a
// hardware-reduced machine never silences.
func routes() []kvm.Route {
	r := make([]kvm.Route, ioapicPins)
	for gsi := range r {
		r[gsi] = kvm.Route{GSI: uint32(gsi), Chip: &kvm.ChipPin{Chip: kvm.ChipIOAPIC, Pin: uint32(gsi)}}
	}
	return r
}

// A gsiLine is an input of KVM's interrupt controllers.
type gsiLine struct {
	vm  *kvm.VM
	gsi uint32
	log *slog.Logger
}

// Set implements devices.Line.
func (l gsiLine) Set(high bool) {
	if err := l.vm.SetIRQLine(l.gsi, high); err != nil {
		l.log.Error("interrupt not delivered", "gsi", l.gsi, "err", err)
	}
}
