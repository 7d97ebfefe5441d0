package vmm

import (
	"io"
	"log/slog"
	"time"

	"github.com/huskvm/husk/devices"
	"github.com/huskvm/husk/devices/acpipm"
	"github.com/huskvm/husk/devices/debugexit"
	"github.com/huskvm/husk/devices/i8042"
	"github.com/huskvm/husk/devices/marker"
	"github.com/huskvm/husk/devices/pvpanic"
	"github.com/huskvm/husk/devices/rtc"
	"github.com/huskvm/husk/devices/serial"
	"github.com/huskvm/husk/firmware/acpi"
	"github.com/huskvm/husk/kvm"
)

// A board is the chips of a machine on their buses. It knows nothing of KVM:
// wires are what tie it to one.
type board struct {
	pio, mmio *devices.Bus
	serial    *serial.UART
	rtc       *rtc.RTC
	power     *acpipm.Device
}

// wires are where a board's chips lead.
type wires struct {
	line    func(gsi uint32) devices.Line
	stop    func(Result)
	panic   func(pvpanic.Event)
	marker  func(id byte)
	console io.Writer // what the guest sends on COM1
	first   func()    // its first byte
	log     *slog.Logger
}

func newBoard(cfg Config, w wires) (*board, error) {
	reset := func() { w.stop(Result{Outcome: Reboot}) }
	b := &board{
		pio:  devices.NewBus("pio"),
		mmio: devices.NewBus("mmio"),
		serial: serial.New(serial.Config{
			Line: w.line(gsiSerial), Out: w.console, Log: w.log, OnFirstByte: w.first,
		}),
		rtc: rtc.New(rtc.Config{Now: time.Now, Line: w.line(gsiRTC)}),
		power: acpipm.New(acpipm.Config{
			Line:     w.line(gsiPower),
			PowerOff: func() { w.stop(Result{Outcome: PowerOff}) },
			Reset:    reset,
		}),
	}
	kbc := i8042.New(i8042.Config{Keyboard: w.line(gsiKeyboard), Aux: w.line(gsiAux), Reset: reset})

	type slot struct {
		name       string
		base, size uint64
		dev        devices.Device
	}
	slots := []slot{
		{"i8042 data", portI8042Data, 1, kbc.Data()},
		{"i8042 command", portI8042Command, 1, kbc.Command()},
		{"RTC", portRTC, 2, b.rtc},
		{"COM1", portSerial, 8, b.serial},
		{"pvpanic", portPVPanic, 1, pvpanic.New(w.panic)},
		{"marker", portMarker, 1, marker.New(w.marker)},
		{"power", portPower, acpipm.Size, b.power},
	}
	if cfg.DebugExit {
		slots = append(slots, slot{"debug-exit", portDebugExit, 4, debugexit.New(func(code uint32) {
			w.stop(Result{Outcome: DebugExit, Code: int(code)})
		})})
	}
	for _, s := range slots {
		if err := b.pio.Map(s.name, s.base, s.size, s.dev); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// describe is the board in the terms of ACPI.
func describe(cfg Config) acpi.Config {
	c := acpi.Config{
		Base:      acpiBase,
		LocalAPIC: localAPICBase,
		// The IOAPIC's id comes after the processors', which share its space.
		IOAPIC: acpi.IOAPIC{ID: uint8(cfg.CPUs), Address: ioapicBase},
		Power: acpi.Power{
			SleepControl: portPower + acpipm.SleepControl,
			SleepStatus:  portPower + acpipm.SleepStatus,
			SleepTypeS5:  acpipm.SleepTypeS5,
			Reset:        portPower + acpipm.Reset,
			ResetValue:   acpipm.ResetValue,
			Events:       portPower + acpipm.Events,
			PowerButton:  acpipm.PowerButton,
			GSI:          gsiPower,
		},
		Serial:  &acpi.Serial{Port: portSerial, GSI: gsiSerial},
		RTC:     &acpi.RTC{Port: portRTC, GSI: gsiRTC, Century: rtc.Century},
		I8042:   &acpi.I8042{Data: portI8042Data, Command: portI8042Command, GSI: gsiKeyboard},
		PVPanic: &acpi.PVPanic{Port: portPVPanic},
	}
	for i := range cfg.CPUs {
		c.CPUs = append(c.CPUs, acpi.CPU{APICID: uint32(i), Enabled: true})
	}
	return c
}

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
