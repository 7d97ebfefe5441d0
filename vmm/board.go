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
	"github.com/huskvm/husk/devices/pci"
	"github.com/huskvm/husk/devices/pvpanic"
	"github.com/huskvm/husk/devices/rtc"
	"github.com/huskvm/husk/devices/serial"
	"github.com/huskvm/husk/firmware/acpi"
)

// A board is the chips of a machine on their buses. It knows nothing of KVM:
// wires are what tie it to one.
type board struct {
	pio, mmio *devices.Bus
	serial    *serial.UART
	rtc       *rtc.RTC
	power     *acpipm.Device
	pci       *pci.Root
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
	var err error
	if b.pci, err = newPCI(cfg, b, w); err != nil {
		return nil, err
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
		{"PCI configuration", pci.PortsBase, pci.PortsSize, b.pci.Ports()},
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
	return b, b.mmio.Map("PCI configuration", ecamBase, pci.ECAMSize, b.pci.ECAM())
}

// newPCI is the host bridge.
func newPCI(cfg Config, b *board, w wires) (*pci.Root, error) {
	c := pci.RootConfig{
		Memory: b.mmio, IO: b.pio, Log: w.log,
		MemoryWindows: []pci.Window{{Base: pciLowBase, Size: pciLowSize}, {Base: pciHigh(cfg.Memory), Size: pciHighSize}},
	}
	for i := range pciPins {
		c.INTx = append(c.INTx, w.line(gsiPCI+uint32(i)))
	}
	return pci.NewRoot(c)
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
		PCI: &acpi.PCI{
			ECAM:     ecamBase,
			Memory32: acpi.Window{Base: pciLowBase, Size: pciLowSize},
			Memory64: acpi.Window{Base: pciHigh(cfg.Memory), Size: pciHighSize},
		},
	}
	for i := range pciPins {
		c.PCI.INTx = append(c.PCI.INTx, gsiPCI+uint32(i))
	}
	if cfg.Transport == TransportMMIO {
		for i := range cfg.parts() {
			c.VirtioMMIO = append(c.VirtioMMIO, virtioMMIO(i))
		}
	}
	for i := range cfg.CPUs {
		c.CPUs = append(c.CPUs, acpi.CPU{APICID: uint32(i), Enabled: true})
	}
	return c
}
