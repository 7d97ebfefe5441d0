package acpi

import (
	"encoding/binary"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write the golden files in testdata anew")

// bare is a machine with no device that can be left out.
func bare(cpus int) Config {
	c := Config{
		Base:      0xE0000,
		LocalAPIC: 0xFEE00000,
		IOAPIC:    IOAPIC{ID: 0, Address: 0xFEC00000},
		Power: Power{
			SleepControl: 0x600, SleepStatus: 0x601, SleepTypeS5: 5,
			Reset: 0x602, ResetValue: 1,
			Events: 0x603, PowerButton: 1, GSI: 9,
		},
	}
	for id := range cpus {
		c.CPUs = append(c.CPUs, CPU{APICID: uint32(id), Enabled: true})
	}
	return c
}

// full is a machine with every device.
func full(cpus int) Config {
	c := bare(cpus)
	c.Serial = &Serial{Port: 0x3F8, GSI: 4}
	c.RTC = &RTC{Port: 0x70, GSI: 8, Century: 0x32}
	c.I8042 = &I8042{Data: 0x60, Command: 0x64, GSI: 1}
	c.PVPanic = &PVPanic{Port: 0x505}
	c.PCI = &PCI{
		ECAM: 0xE0000000, LastBus: 255,
		IO:       Window{0x1000, 0xF000},
		Memory32: Window{0xC0000000, 0x20000000},
		Memory64: Window{1 << 38, 1 << 37},
		INTx:     []uint32{16, 17, 18, 19, 20, 21, 22, 23},
	}
	return c
}

// machines are the configurations that the tests go through.
func machines() map[string]Config {
	serial := bare(1)
	serial.Serial = &Serial{Port: 0x3F8, GSI: 4}

	sparse := full(4) // three cores a package leave gaps; x2APIC above 254
	sparse.CPUs = []CPU{{0, true}, {4, true}, {254, true}, {255, true}, {0x1000, false}}

	crowd := bare(300) // UIDs that a local APIC structure cannot hold
	for i := range crowd.CPUs {
		crowd.CPUs[i].APICID = uint32(len(crowd.CPUs) - i)
	}

	// Configuration space above 4 GiB, and MSIs only.
	high := bare(1)
	high.PCI = &PCI{ECAM: 1 << 39, Memory64: Window{1 << 40, 1 << 30}}

	// Virtio without PCI, side by side in a page; 17 of them.
	virtio := full(1)
	virtio.PCI = nil
	for i := range uint32(17) {
		virtio.VirtioMMIO = append(virtio.VirtioMMIO, VirtioMMIO{Base: 0xD0000000 + i*0x200, Size: 0x200, GSI: 16 + i})
	}
	return map[string]Config{
		"high-pci": high, "bare": bare(1), "serial": serial, "full": full(1), "full-64": full(64),
		"sparse": sparse, "crowd": crowd, "virtio-mmio": virtio,
	}
}

// each runs f for every machine's tables.
func each(t *testing.T, f func(t *testing.T, c Config, tables Tables)) {
	t.Helper()
	for name, c := range machines() {
		t.Run(name, func(t *testing.T) {
			tables, err := Build(c)
			require.NoError(t, err)
			f(t, c, tables)
		})
	}
}

// walk finds the tables as a kernel does, from the root pointer on, and returns
// them by signature. It checks the sums on its way.
func walk(t *testing.T, tables Tables) map[string][]byte {
	t.Helper()
	le := binary.LittleEndian
	at := func(gpa uint64) []byte {
		require.GreaterOrEqual(t, gpa, tables.Base)
		require.Less(t, gpa-tables.Base, uint64(len(tables.Data)))
		return tables.Data[gpa-tables.Base:]
	}
	sum := func(b []byte) (s uint8) {
		for _, v := range b {
			s += v
		}
		return s
	}
	found := map[string][]byte{}
	read := func(gpa uint64) []byte {
		b := at(gpa)
		b = b[:le.Uint32(b[4:])]
		require.Zero(t, sum(b), "checksum of %s", b[:4])
		require.NotContains(t, found, string(b[:4]))
		found[string(b[:4])] = b
		return b
	}

	p := at(tables.RSDP)
	require.Equal(t, "RSD PTR ", string(p[:8]))
	require.Zero(t, sum(p[:20]))
	require.Zero(t, sum(p[:le.Uint32(p[20:])]))
	roots := read(le.Uint64(p[24:]))[36:]
	for ; len(roots) > 0; roots = roots[8:] {
		read(le.Uint64(roots))
	}
	read(le.Uint64(found["FACP"][140:]))
	return found
}

func TestTablesAreFoundFromTheRoot(t *testing.T) {
	each(t, func(t *testing.T, c Config, tables Tables) {
		require.Equal(t, c.Base, tables.Base)
		require.Zero(t, tables.RSDP%16)
		want := []string{"APIC", "DSDT", "FACP", "XSDT"}
		if c.PCI != nil {
			want = append(want, "MCFG")
		}
		found := walk(t, tables)
		require.Len(t, found, len(want))
		for _, w := range want {
			require.Contains(t, found, w)
		}
	})
}

func TestGolden(t *testing.T) {
	each(t, func(t *testing.T, _ Config, tables Tables) {
		path := filepath.Join("testdata", filepath.Base(t.Name())+".bin")
		if *update {
			require.NoError(t, os.MkdirAll("testdata", 0o755))
			require.NoError(t, os.WriteFile(path, tables.Data, 0o644))
		}
		want, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, want, tables.Data, "run go test with -update if this is meant")
	})
}

// What a kernel reads in the FADT, by the offsets of ACPI 6.5 table 5.9.
func TestFADT(t *testing.T) {
	for _, tt := range []struct {
		name    string
		c       Config
		boot    uint16
		century uint8
	}{
		{"bare", bare(1), bootNoVGA | bootNoASPM | bootNoCMOSRTC, 0},
		{"full", full(1), bootNoVGA | bootNoASPM | bootLegacyDevices | boot8042, 0x32},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tables, err := Build(tt.c)
			require.NoError(t, err)
			f := walk(t, tables)["FACP"]
			le := binary.LittleEndian
			require.Len(t, f, 276)
			require.Equal(t, byte(6), f[8], "revision")
			require.Equal(t, byte(5), f[131], "minor revision")
			require.Equal(t, uint64(le.Uint32(f[40:])), le.Uint64(f[140:]), "DSDT and X_DSDT")
			require.Equal(t, tt.century, f[108])
			require.Equal(t, tt.boot, le.Uint16(f[109:]))
			require.Equal(t, uint32(1<<20|1<<10|1<<6|1<<5|1<<4|1<<2|1), le.Uint32(f[112:]))
			port := func(off int) uint64 {
				require.Equal(t, []byte{1, 8, 0, 1}, f[off:off+4], "a byte in I/O space")
				return le.Uint64(f[off+4:])
			}
			require.Equal(t, uint64(0x602), port(116), "RESET_REG")
			require.Equal(t, byte(1), f[128], "RESET_VALUE")
			require.Equal(t, uint64(0x600), port(244), "SLEEP_CONTROL_REG")
			require.Equal(t, uint64(0x601), port(256), "SLEEP_STATUS_REG")
		})
	}
}

// Every processor is in the MADT once, in a structure that can hold its id.
func TestMADTProcessors(t *testing.T) {
	each(t, func(t *testing.T, c Config, tables Tables) {
		m := walk(t, tables)["APIC"]
		le := binary.LittleEndian
		require.Equal(t, uint32(0xFEE00000), le.Uint32(m[36:]))
		require.Zero(t, le.Uint32(m[40:]), "PCAT_COMPAT")

		cpus := make([]CPU, len(c.CPUs))
		nmis, ioapics := 0, 0
		for e := m[44:]; len(e) > 0; e = e[e[1]:] {
			switch e[0] {
			case typeLocalAPIC:
				require.Less(t, e[3], byte(255))
				cpus[e[2]] = CPU{uint32(e[3]), le.Uint32(e[4:]) == cpuEnabled}
			case typeLocalX2APIC:
				cpus[le.Uint32(e[12:])] = CPU{le.Uint32(e[4:]), le.Uint32(e[8:]) == cpuEnabled}
			case typeIOAPIC:
				ioapics++
				require.Equal(t, uint32(0xFEC00000), le.Uint32(e[4:]))
			case typeLocalAPICNMI:
				nmis++
				require.Equal(t, []byte{0xFF, 0, 0, 1}, e[2:6])
			}
		}
		require.Equal(t, c.CPUs, cpus)
		require.Equal(t, 1, ioapics)
		require.Equal(t, 1, nmis)
	})
}

func TestBuildRefuses(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Config)
		says   string
	}{
		{"no processor", func(c *Config) { c.CPUs = nil }, "boot processor"},
		{"no boot processor", func(c *Config) { c.CPUs[0].Enabled = false }, "boot processor"},
		{"one APIC id twice", func(c *Config) { c.CPUs[1].APICID = 0 }, "CPUs 0 and 1"},
		{"base not aligned", func(c *Config) { c.Base = 0xE0008 }, "multiple of 16"},
		{"base too low", func(c *Config) { c.Base = 0x9F000 }, "from 0xe0000"},
		{"base too high", func(c *Config) { c.Base = 1 << 20 }, "from 0xe0000"},
		{"no room", func(c *Config) { c.Base = 0xFFF00 }, "lower Base"},
		{"one GSI twice", func(c *Config) { c.RTC.GSI = 4 }, "Serial and RTC have GSI 4"},
		{"GSI of no pin", func(c *Config) { c.IOAPIC.GSIBase = 9 }, "Serial has GSI 4"},
		{"PCI's interrupt taken", func(c *Config) { c.PCI.INTx[3] = 4 }, "Serial and PCI.INTx[3] have GSI 4"},
		{"one INTx twice", func(c *Config) { c.PCI.INTx[3] = 16 }, "PCI.INTx[0] and PCI.INTx[3] have GSI 16"},
		{"ECAM not aligned", func(c *Config) { c.PCI.ECAM += 4096 }, "ECAM 0xe0001000: give a multiple"},
		{"no ECAM", func(c *Config) { c.PCI.ECAM = 0 }, "ECAM 0x0"},
		{"ECAM in a window", func(c *Config) { c.PCI.Memory32.Size++ }, "PCI.ECAM (0xe0000000 to 0xefffffff) and PCI.Memory32 (0xc0000000 to 0xe0000000) overlap"},
		{"ECAM at the top", func(c *Config) { c.PCI.ECAM = 0xFFFFFFFF_FFF00000 }, "past the end"},
		{"IOAPIC in a window", func(c *Config) { c.PCI.Memory64 = Window{0xFEC00FFF, 1} }, "the IOAPIC"},
		{"local APIC in a window", func(c *Config) { c.PCI.Memory64 = Window{0xFEE00FFF, 1 << 30} }, "the local APIC"},
		{"window past 4 GiB", func(c *Config) { c.PCI.Memory32 = Window{0xFF000000, 1<<24 + 1} }, "Memory32 has 0x1000001 bytes at 0xff000000, past the end"},
		{"window past the end", func(c *Config) { c.PCI.Memory64 = Window{1 << 63, 1<<63 + 1} }, "Memory64"},
		{"bridge's ports in its window", func(c *Config) { c.PCI.IO = Window{0xCFF, 1} }, "leave them out"},
		{"ports past the end", func(c *Config) { c.PCI.IO.Size++ }, "IO has 0xf001 ports at 0x1000"},
		{"all ports", func(c *Config) { c.PCI.IO = Window{0, 1 << 16} }, "IO has 0x10000 ports"},
		{"no window", func(c *Config) { c.PCI = &PCI{ECAM: 1 << 39, INTx: []uint32{16}} }, "INTx without a window"},
		{"two virtio devices in one place", func(c *Config) { c.VirtioMMIO = []VirtioMMIO{{0xF0000000, 0x200, 5}, {0xF00001FF, 0x200, 6}} }, "VirtioMMIO[0] (0xf0000000 to 0xf00001ff) and VirtioMMIO[1]"},
		{"a virtio device in a window", func(c *Config) { c.VirtioMMIO = []VirtioMMIO{{0xC0000000, 0x200, 5}} }, "PCI.Memory32"},
		{"a virtio device past 4 GiB", func(c *Config) { c.VirtioMMIO = []VirtioMMIO{{0xFFFFFF00, 0x200, 5}} }, "past the end"},
		{"a virtio device without a size", func(c *Config) { c.VirtioMMIO = []VirtioMMIO{{0xF0000000, 0, 5}} }, "VirtioMMIO[0] at 0xf0000000 has size 0"},
		{"a virtio device's interrupt taken", func(c *Config) { c.VirtioMMIO = []VirtioMMIO{{0xF0000000, 0x200, 4}} }, "Serial and VirtioMMIO[0] have GSI 4"},
		{"too many virtio devices", func(c *Config) { c.VirtioMMIO = make([]VirtioMMIO, 4097) }, "at most 4096"},
		{"sleep type too wide", func(c *Config) { c.Power.SleepTypeS5 = 8 }, "three bits"},
		{"no power button", func(c *Config) { c.Power.PowerButton = 0 }, "PowerButton is 0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := full(2)
			tt.change(&c)
			_, err := Build(c)
			require.ErrorIs(t, err, ErrConfig)
			require.ErrorContains(t, err, tt.says)
		})
	}
}
