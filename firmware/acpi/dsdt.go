package acpi

import (
	"fmt"

	"github.com/huskvm/husk/firmware/acpi/aml"
)

// dsdt is the Differentiated System Description Table: the devices that a
// guest cannot find by looking (§5.2.11.1).
//
// Nothing in it touches hardware but _EVT, which runs when an event has come,
// and nothing else is a method but _OSC, which the guest calls once.
// There is no _STA where a constant will do, and no _INI.
func dsdt(c Config) []byte {
	devices := []aml.Term{powerButton(), eventDevice(c.Power)}
	for uid, cpu := range c.CPUs {
		if cpu.Enabled {
			devices = append(devices, processor(uid))
		}
	}
	if c.Serial != nil {
		devices = append(devices, serial(*c.Serial))
	}
	if c.RTC != nil {
		devices = append(devices, rtc(*c.RTC))
	}
	if c.I8042 != nil {
		devices = append(devices, keyboard(*c.I8042))
	}
	if c.PVPanic != nil {
		devices = append(devices, pvpanic(*c.PVPanic))
	}
	if c.PCI != nil {
		devices = append(devices, c.PCI.rootBridge(), c.PCI.motherboard())
	}
	for i, v := range c.VirtioMMIO {
		devices = append(devices, v.device(i))
	}
	const revision = 2 // integers have 64 bits
	return table("DSDT", revision, append(softOff(c.Power), aml.Scope(`\_SB`, devices...)...))
}

// softOff is \_S5 (§7.4.2): what to put into SLP_TYPx to turn the machine off.
// The other sleep states do not exist.
func softOff(p Power) aml.Term {
	return aml.Name(`\_S5`, aml.Package(aml.Integer(uint64(p.SleepTypeS5)),
		aml.Integer(0), aml.Integer(0), aml.Integer(0)))
}

// processor ties a processor's place in the MADT to a device (§8.4).
func processor(uid int) aml.Term {
	return aml.Device(fmt.Sprintf("C%03X", uid),
		hid("ACPI0007"),
		aml.Name("_UID", aml.Integer(uint64(uid))))
}

// powerButton is a control method power button (§4.8.2.2.1.2).
func powerButton() aml.Term {
	return aml.Device("PWRB", hid("PNP0C0C"))
}

// eventDevice is the Generic Event Device (§5.6.9): its interrupt makes the
// guest run _EVT, which passes on what it finds pending. The interrupt is a
// level, so that an event from before the guest listened is not lost.
func eventDevice(p Power) aml.Term {
	const statusChange = 0x80 // for a button: pressed, §4.8.2.2.1.2
	pending := aml.Local(0)
	return aml.Device("GED",
		hid("ACPI0013"),
		crs(aml.Interrupt(p.GSI, aml.Level)),
		aml.PortRegion("EVTR", p.Events, 1),
		aml.ByteFields("EVTR", "EVTS"),
		aml.Method("_EVT", 1,
			aml.Store(aml.Path("EVTS"), pending),
			aml.If(aml.And(pending, aml.Integer(uint64(p.PowerButton))),
				aml.Notify("PWRB", statusChange))))
}

func serial(s Serial) aml.Term {
	const ports = 8
	return aml.Device("COM1",
		hid("PNP0501"), // 16550A-compatible
		aml.Name("_UID", aml.Integer(1)),
		crs(aml.IO(s.Port, ports), aml.Interrupt(s.GSI, aml.Edge)))
}

func rtc(r RTC) aml.Term {
	const ports = 2
	return aml.Device("RTC",
		hid("PNP0B00"),
		crs(aml.IO(r.Port, ports), aml.Interrupt(r.GSI, aml.Edge)))
}

func keyboard(k I8042) aml.Term {
	return aml.Device("KBD",
		hid("PNP0303"), // IBM enhanced keyboard
		crs(aml.IO(k.Data, 1), aml.IO(k.Command, 1), aml.Interrupt(k.GSI, aml.Edge)))
}

func pvpanic(p PVPanic) aml.Term {
	const present = 0xB // present, enabled, working, not shown to the user: §6.3.7
	return aml.Device("PEVT",
		hid("QEMU0001"),
		aml.Name("_STA", aml.Integer(present)),
		crs(aml.IO(p.Port, 1)))
}

func hid(id string) aml.Term { return aml.Name("_HID", aml.HardwareID(id)) }

func crs(d ...aml.Descriptor) aml.Term { return aml.Name("_CRS", aml.ResourceTemplate(d...)) }
