package acpi

import (
	"errors"
	"fmt"
)

// ErrConfig is wrapped by every error of Build: the machine described cannot
// be said in ACPI tables.
var ErrConfig = errors.New("acpi: bad configuration")

// The BIOS read-only memory of a PC, where a kernel that was not told the
// address of the root pointer looks for it (ACPI 6.5 §5.2.5.1), up to where
// the reset code is.
const (
	regionStart = 0xE0000
	regionEnd   = ResetVector
)

// A Config describes the machine. A device with a nil pointer does not exist.
type Config struct {
	// Base is the guest-physical address of the block of tables: a multiple
	// of 16 in [0xE0000, ResetVector), with room for the block below the end.
	Base uint64

	CPUs      []CPU
	LocalAPIC uint32 // guest-physical address of the local APICs
	IOAPIC    IOAPIC
	Power     Power

	Serial  *Serial
	RTC     *RTC
	I8042   *I8042
	PVPanic *PVPanic
	PCI     *PCI

	VirtioMMIO []VirtioMMIO
}

// A CPU is one logical processor. Its index in Config.CPUs is its ACPI
// processor UID. The boot processor comes first.
type CPU struct {
	APICID  uint32 // as CPUID leaf 0xB tells it; above 254 needs x2APIC
	Enabled bool   // false: not there yet, may come by hotplug
}

// An IOAPIC turns GSIs, from GSIBase on, into interrupts.
type IOAPIC struct {
	ID      uint8
	Address uint32 // guest-physical address of its registers
	GSIBase uint32 // GSI of its first pin
}

// Power is how the guest turns the machine off and on again, and how the
// machine tells the guest of events. The fields without a width are I/O ports
// of one byte each.
type Power struct {
	SleepControl uint16 // SLEEP_CONTROL_REG, ACPI 6.5 §4.8.3.7.1
	SleepStatus  uint16 // SLEEP_STATUS_REG, ACPI 6.5 §4.8.3.7.2
	SleepTypeS5  uint8  // SLP_TYPx value that means soft off, 0 to 7
	Reset        uint16 // RESET_REG, ACPI 6.5 §4.8.3.6
	ResetValue   uint8  // what to store to Reset
	Events       uint16 // pending events; a load acknowledges them
	PowerButton  uint8  // the bit in Events that says the power button was pressed
	GSI          uint32 // asserted while Events is not 0; level, active high
}

// A Serial is a 16550A at eight ports from Port, known to the guest as COM1.
type Serial struct {
	Port uint16
	GSI  uint32 // edge, active high
}

// An RTC is an MC146818 with its index at Port and its data at Port+1.
type RTC struct {
	Port    uint16
	GSI     uint32 // edge, active high
	Century uint8  // index of the century in CMOS memory, 0 when there is none
}

// An I8042 is a keyboard controller. Linux probes one that is declared, at the
// cost of some hundred exits. One that is there for resets only works undeclared.
type I8042 struct {
	Data, Command uint16 // ports, 0x60 and 0x64 on a PC
	GSI           uint32 // keyboard; edge, active high
}

// A PVPanic is the port on which a guest reports that it has panicked (QEMU's
// docs/specs/pvpanic).
type PVPanic struct {
	Port uint16
}

// validate refuses what the tables cannot say.
func (c Config) validate() error {
	switch {
	case c.Base%16 != 0 || c.Base < regionStart || c.Base >= regionEnd:
		return fmt.Errorf("base %#x: give a multiple of 16 from %#x to %#x", c.Base, regionStart, regionEnd-1)
	case len(c.CPUs) == 0 || !c.CPUs[0].Enabled:
		return errors.New("CPUs: the first is the boot processor: give one that is enabled")
	case c.Power.SleepTypeS5 > 7:
		return fmt.Errorf("Power.SleepTypeS5 %d: give a value of three bits", c.Power.SleepTypeS5)
	case c.Power.PowerButton == 0:
		return errors.New("Power.PowerButton is 0: give a bit of the event register")
	}
	seen := map[uint32]int{}
	for i, cpu := range c.CPUs {
		if j, ok := seen[cpu.APICID]; ok {
			return fmt.Errorf("CPUs %d and %d have APIC id %d: give each its own", j, i, cpu.APICID)
		}
		seen[cpu.APICID] = i
	}
	if c.PCI != nil {
		if err := c.PCI.validate(); err != nil {
			return fmt.Errorf("PCI: %w", err)
		}
	}
	if err := c.validateVirtioMMIO(); err != nil {
		return err
	}
	if err := disjoint(c.memory()); err != nil {
		return err
	}
	return c.validateGSIs()
}

// validateGSIs sees to it that no two devices share an interrupt: the DSDT
// calls each exclusive, and PCI's are low where the others' are high.
func (c Config) validateGSIs() error {
	users := map[uint32]string{}
	for _, d := range c.interrupts() {
		if d.gsi < c.IOAPIC.GSIBase {
			return fmt.Errorf("%s has GSI %d, and the IOAPIC begins with %d: give one that it has",
				d.name, d.gsi, c.IOAPIC.GSIBase)
		}
		if other, ok := users[d.gsi]; ok {
			return fmt.Errorf("%s and %s have GSI %d: give each its own", other, d.name, d.gsi)
		}
		users[d.gsi] = d.name
	}
	return nil
}

// An interrupt is a GSI and the field of Config that has it.
type interrupt struct {
	name string
	gsi  uint32
}

func (c Config) interrupts() []interrupt {
	all := []interrupt{{"Power", c.Power.GSI}}
	if c.Serial != nil {
		all = append(all, interrupt{"Serial", c.Serial.GSI})
	}
	if c.RTC != nil {
		all = append(all, interrupt{"RTC", c.RTC.GSI})
	}
	if c.I8042 != nil {
		all = append(all, interrupt{"I8042", c.I8042.GSI})
	}
	if c.PCI != nil {
		for i, gsi := range c.PCI.INTx {
			all = append(all, interrupt{fmt.Sprintf("PCI.INTx[%d]", i), gsi})
		}
	}
	for i, v := range c.VirtioMMIO {
		all = append(all, interrupt{virtioMMIOName(i), v.GSI})
	}
	return all
}
