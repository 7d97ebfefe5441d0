package acpi

// Interrupt controller structures (§5.2.12, table 5.21).
const (
	typeLocalAPIC      = 0
	typeIOAPIC         = 1
	typeLocalAPICNMI   = 4
	typeLocalX2APIC    = 9
	typeLocalX2APICNMI = 10
)

// lastLocalAPIC is the highest id, and the highest UID, that a local APIC
// structure can hold: 255 stands for all processors.
const lastLocalAPIC = 254

// Local APIC flags (§5.2.12.2, table 5.23).
const (
	cpuEnabled       = 1 << 0
	cpuOnlineCapable = 1 << 1 // not enabled, but may come
)

// lint1 is the local interrupt pin where a PC has its NMI.
const lint1 = 1

type localAPIC struct {
	Type, Length uint8
	UID, APICID  uint8
	Flags        uint32
}

type localX2APIC struct {
	Type, Length uint8
	_            uint16
	APICID       uint32
	Flags        uint32
	UID          uint32
}

type ioAPIC struct {
	Type, Length uint8
	ID           uint8
	_            uint8
	Address      uint32
	GSIBase      uint32
}

type localAPICNMI struct {
	Type, Length uint8
	UID          uint8
	Flags        uint16 // 0: polarity and trigger as the bus has them
	LINT         uint8
}

type localX2APICNMI struct {
	Type, Length uint8
	Flags        uint16
	UID          uint32
	LINT         uint8
	_            [3]uint8
}

// madt is the Multiple APIC Description Table: the processors and where their
// interrupts come from (§5.2.12).
//
// PCAT_COMPAT is clear, as there are no 8259s to turn off. There is no
// interrupt source override: those move ISA interrupts from the 8259s' order,
// IRQ 0 of the PIT above all, and a device of this machine names its GSI and
// trigger in the DSDT.
func madt(c Config) []byte {
	body := encode(struct{ LocalAPIC, Flags uint32 }{LocalAPIC: c.LocalAPIC})
	x2APIC := false
	for uid, cpu := range c.CPUs {
		flags := uint32(cpuOnlineCapable)
		if cpu.Enabled {
			flags = cpuEnabled
		}
		var entry any
		if cpu.APICID <= lastLocalAPIC && uid <= lastLocalAPIC {
			entry = localAPIC{typeLocalAPIC, 8, uint8(uid), uint8(cpu.APICID), flags}
		} else {
			x2APIC = true
			entry = localX2APIC{Type: typeLocalX2APIC, Length: 16, APICID: cpu.APICID, Flags: flags, UID: uint32(uid)}
		}
		body = append(body, encode(entry)...)
	}
	io := c.IOAPIC
	body = append(body, encode(ioAPIC{Type: typeIOAPIC, Length: 12, ID: io.ID, Address: io.Address, GSIBase: io.GSIBase})...)

	// The NMI of every processor.
	body = append(body, encode(localAPICNMI{Type: typeLocalAPICNMI, Length: 6, UID: 0xFF, LINT: lint1})...)
	if x2APIC {
		body = append(body, encode(localX2APICNMI{Type: typeLocalX2APICNMI, Length: 12, UID: 0xFFFFFFFF, LINT: lint1})...)
	}
	const revision = 6
	return table("APIC", revision, body)
}
