package acpi

// The Fixed ACPI Description Table's own revision (§5.2.9): ACPI 6.5.
const fadtRevision, fadtMinor = 6, 5

// Fixed feature flags (§5.2.9, table 5.10).
const (
	flagWBINVD        = 1 << 0  // WBINVD works
	flagProcC1        = 1 << 2  // every processor has C1, that is HLT
	flagNoPowerButton = 1 << 4  // PWR_BUTTON: not fixed hardware, but a device in the DSDT
	flagNoSleepButton = 1 << 5  // SLP_BUTTON: likewise, if any
	flagNoRTCWake     = 1 << 6  // FIX_RTC: no wake status in fixed hardware
	flagResetRegister = 1 << 10 // RESET_REG_SUP
	flagHWReduced     = 1 << 20 // HW_REDUCED_ACPI
)

// IA-PC boot architecture flags (§5.2.9.3).
const (
	bootLegacyDevices = 1 << 0 // what a user could see is on the ISA bus
	boot8042          = 1 << 1
	bootNoVGA         = 1 << 2
	bootNoASPM        = 1 << 4 // PCIe link power management must be left alone
	bootNoCMOSRTC     = 1 << 5
)

// address is a Generic Address Structure (§5.2.3.2).
type address struct {
	Space, BitWidth, BitOffset, AccessSize uint8
	Address                                uint64
}

// bytePort is the register of one byte at an I/O port.
func bytePort(port uint16) address {
	const systemIO, byteAccess = 1, 1
	return address{Space: systemIO, BitWidth: 8, AccessSize: byteAccess, Address: uint64(port)}
}

// fixedDescription is the FADT behind its header. The blanks are the fixed
// hardware that a hardware-reduced machine has not.
type fixedDescription struct {
	FirmwareControl  uint32 // no FACS: it serves fixed hardware only
	DSDT             uint32
	_                uint8
	PreferredProfile uint8
	_                [62]uint8 // SCI_INT to MON_ALRM
	Century          uint8
	BootArchitecture uint16
	_                uint8
	Flags            uint32
	ResetRegister    address
	ResetValue       uint8
	ARMBoot          uint16
	MinorVersion     uint8
	XFirmwareControl uint64
	XDSDT            uint64
	_                [8]address // X_PM1a_EVT_BLK to X_GPE1_BLK
	SleepControl     address
	SleepStatus      address
	HypervisorVendor [8]byte
}

// fadt says what fixed hardware there is, which is hardly any, and where the
// DSDT is.
func fadt(c Config, dsdt uint64) []byte {
	f := fixedDescription{
		DSDT:             uint32(dsdt), // below 1 MiB
		XDSDT:            dsdt,
		BootArchitecture: bootNoVGA | bootNoASPM,
		Flags: flagWBINVD | flagProcC1 | flagNoPowerButton | flagNoSleepButton |
			flagNoRTCWake | flagResetRegister | flagHWReduced,
		ResetRegister:    bytePort(c.Power.Reset),
		ResetValue:       c.Power.ResetValue,
		MinorVersion:     fadtMinor,
		SleepControl:     bytePort(c.Power.SleepControl),
		SleepStatus:      bytePort(c.Power.SleepStatus),
		HypervisorVendor: [8]byte{'H', 'U', 'S', 'K'},
	}
	if c.Serial != nil || c.I8042 != nil {
		f.BootArchitecture |= bootLegacyDevices
	}
	if c.I8042 != nil {
		f.BootArchitecture |= boot8042
	}
	// A kernel that believes in an RTC polls its update flag through port
	// 0x71, tens of thousands of times when all it reads is ones.
	if c.RTC == nil {
		f.BootArchitecture |= bootNoCMOSRTC
	} else {
		f.Century = c.RTC.Century
	}
	return table("FACP", fadtRevision, encode(f))
}
