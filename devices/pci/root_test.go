package pci

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/devices"
)

func TestEnumerate(t *testing.T) {
	r := newRig(t)
	add := func(slot, function int, c Config) {
		_, err := r.Add(slot, function, c)
		require.NoError(t, err)
	}
	add(1, 0, nic(&sink{}))
	old := Config{Name: "old", Vendor: 0x1234, Device: 0x5678, Class: 0x0c0300, InterruptPin: 4}
	old.BARs[0] = BAR{Kind: IO, Size: 32, Device: tag(1)}
	old.BARs[1] = BAR{Kind: Memory32, Size: 16, Device: tag(2)}
	old.BARs[2] = BAR{Kind: Memory32, Prefetchable: true, Size: 1 << 31, Device: tag(3)}
	old.BARs[3] = BAR{Kind: IO, Size: 4, Device: tag(4)}
	old.BARs[4] = BAR{Kind: Memory64, Size: 1 << 40, Device: tag(5)}
	add(31, 0, old)
	add(31, 7, Config{Name: "last", Vendor: 1, Device: 2, Class: 0xff0000})

	want := map[int]found{
		0: {
			id: 0x00081b36, class: 0x06000000, subsystem: 0x11001af4,
			bars: map[int]foundBAR{}, capabilities: map[uint8][]int{},
		},
		1 << 3: {
			id: 0x10411af4, class: 0x02000001, subsystem: 0x00401af4, pin: 1,
			bars:         map[int]foundBAR{0: {0xc, 0x4000}, 2: {4, 0x1000}},
			capabilities: map[uint8][]int{CapVendor: {0x40, 0x50}, CapMSIX: {0x64}},
		},
		31 << 3: {
			id: 0x56781234, class: 0x0c030000, header: 0x80, pin: 4,
			bars: map[int]foundBAR{
				0: {1, 32}, 1: {0, 16}, 2: {8, 1 << 31}, 3: {1, 4}, 4: {4, 1 << 40},
			},
			capabilities: map[uint8][]int{},
		},
		31<<3 | 7: {id: 0x00020001, class: 0xff000000, bars: map[int]foundBAR{}, capabilities: map[uint8][]int{}},
	}
	before := r.mmio.Ranges()
	require.Equal(t, want, r.conf1().enumerate())
	require.Equal(t, want, r.mmconfig().enumerate())
	require.Equal(t, before, r.mmio.Ranges(), "sizing maps nothing")
	require.Empty(t, r.log.String())
}

func TestLinuxFindsMechanism1(t *testing.T) {
	r := newRig(t)
	// pci_check_type1
	r.pio.Store(0xcfb, []byte{1})
	r.pio.Store(0xcf8, []byte{0, 0, 0, 0x80})
	p := make([]byte, 4)
	r.pio.Load(0xcf8, p)
	require.Equal(t, []byte{0, 0, 0, 0x80}, p)
	// pci_sanity_check
	require.Equal(t, uint16(0x0600), r.conf1().r16(0, 0x0a))
}

func TestPorts(t *testing.T) {
	r := newRig(t)
	_, err := r.Add(1, 0, nic(&sink{}))
	require.NoError(t, err)
	le := binary.LittleEndian
	set := func(address uint32) { r.pio.Store(0xcf8, le.AppendUint32(nil, address)) }
	get := func(port uint64, n int) []byte {
		p := make([]byte, n)
		r.pio.Load(port, p)
		return p
	}
	const enabled = 1 << 31
	set(0xffffffff)
	require.Equal(t, uint32(0x80fffffc), le.Uint32(get(0xcf8, 4)), "reserved bits are 0")
	set(enabled | 0x800)
	for _, tt := range []struct {
		port uint64
		want []byte
	}{
		{0xcfc, []byte{0xf4, 0x1a, 0x41, 0x10}},
		{0xcfc, []byte{0xf4, 0x1a}},
		{0xcfd, []byte{0x1a, 0x41}},
		{0xcfe, []byte{0x41, 0x10}},
		{0xcfc, []byte{0xf4}},
		{0xcfd, []byte{0x1a}},
		{0xcfe, []byte{0x41}},
		{0xcff, []byte{0x10}},
		{0xcff, []byte{0x10, 0xff}},
		{0xcfd, []byte{0x1a, 0x41, 0x10, 0xff}},
		{0xcf8, []byte{0xff, 0xff}},
		{0xcf9, []byte{0xff}},
		{0xcfa, []byte{0xff, 0xff, 0xff, 0xff}},
		{0xcf8, bytes.Repeat([]byte{0xff}, 8)},
	} {
		require.Equal(t, tt.want, get(tt.port, len(tt.want)), "%#x", tt.port)
	}
	for _, p := range [][]byte{{1}, {1, 2}, {1, 2, 3, 4, 5, 6, 7, 8}} {
		r.pio.Store(0xcf8, p)
	}
	r.pio.Store(0xcf9, []byte{1, 2, 3, 4})
	require.Equal(t, uint32(enabled|0x800), le.Uint32(get(0xcf8, 4)), "it is accessed as a whole")

	set(enabled | 0x800 | regInterruptLine)
	r.pio.Store(0xcfc, []byte{9})
	require.Equal(t, []byte{9, 1, 0, 0}, get(0xcfc, 4))
	for name, address := range map[string]uint32{
		"disabled": 0x800 | regInterruptLine, "other bus": enabled | 1<<16 | 0x800 | regInterruptLine,
		"no function": enabled | 0x900, "no slot": enabled | 0x1000,
	} {
		set(address)
		require.Equal(t, []byte{0xff, 0xff, 0xff, 0xff}, get(0xcfc, 4), name)
		r.pio.Store(0xcfc, []byte{7})
	}
	require.Equal(t, uint8(9), r.conf1().r8(8, regInterruptLine))
}

func TestECAM(t *testing.T) {
	r := newRig(t)
	_, err := r.Add(1, 0, nic(&sink{}))
	require.NoError(t, err)
	get := func(off uint64, n int) []byte {
		p := make([]byte, n)
		r.ECAM().Load(off, p)
		return p
	}
	const at = 8 << 12
	require.Equal(t, []byte{0xf4, 0x1a, 0x41, 0x10, 0, 0, 0x10, 0}, get(at, 8))
	require.Equal(t, []byte{0x1a, 0x41, 0x10, 0}, get(at+1, 4), "across double words")
	require.Equal(t, []byte{0xff, 0xff, 0xff, 0xff}, get(at+0x100, 4), "no extended space")
	require.Equal(t, []byte{0, 0, 0xff, 0xff}, get(at+0xfe, 4))
	require.Equal(t, []byte{0xff, 0xff, 0xff, 0xff}, get(at+4096-4, 4))
	require.Equal(t, []byte{0xff, 0xff, 0xff, 0xff}, get(ECAMSize+at, 4), "another bus")
	r.ECAM().Store(ECAMSize+at+regInterruptLine, []byte{3})
	r.ECAM().Store(at+0xfe, []byte{1, 2, 3, 4})
	require.Zero(t, get(at+regInterruptLine, 1)[0])
	r.ECAM().Store(at+regInterruptLine, []byte{3, 3, 3, 3, 3, 3, 3, 3})
	require.Equal(t, []byte{3, 1, 0, 0}, get(at+regInterruptLine, 4))
}

func TestAddRefuses(t *testing.T) {
	bar := func(i int, b BAR) func(*Config) { return func(c *Config) { c.BARs[i] = b } }
	capability := func(cs ...Capability) func(*Config) { return func(c *Config) { c.Capabilities = cs } }
	live := func(off, size int) func(*Config) {
		return capability(Capability{Body: make([]byte, 4), Live: &Live{
			off, size, func([]byte, int, []byte) {}, func([]byte, int, []byte) {},
		}})
	}
	for _, tt := range []struct {
		name           string
		slot, function int
		change         func(*Config)
		says           string
	}{
		{"no slot", 32, 0, nil, "slot below 32"},
		{"no function", 1, 8, nil, "function below 8"},
		{"negative", -1, 0, nil, "slot below 32"},
		{"taken", 2, 0, nil, "place is taken"},
		{"host bridge's", 0, 0, nil, "place is taken"},
		{"function 0 missing", 3, 1, nil, "add that first"},
		{"class", 1, 0, func(c *Config) { c.Class = 1 << 24 }, "class 0x1000000"},
		{"vendor", 1, 0, func(c *Config) { c.Vendor = 0xffff }, "vendor 0xffff"},
		{"pin", 1, 0, func(c *Config) { c.InterruptPin = 5 }, "interrupt pin 5"},
		{"size", 1, 0, bar(4, BAR{Kind: Memory32, Size: 48, Device: tag(0)}), "BAR 4: size 0x30"},
		{"small", 1, 0, bar(4, BAR{Kind: Memory32, Size: 8, Device: tag(0)}), "from 0x10 to"},
		{"large", 1, 0, bar(4, BAR{Kind: IO, Size: 512, Device: tag(0)}), "from 0x4 to 0x100"},
		{"zero", 1, 0, bar(4, BAR{Kind: IO, Device: tag(0)}), "size 0x0"},
		{"kind", 1, 0, bar(4, BAR{Kind: 9, Device: tag(0)}), "kind 9"},
		{"no kind", 1, 0, bar(4, BAR{Size: 16}), "no kind"},
		{"prefetchable I/O", 1, 0, bar(4, BAR{Kind: IO, Prefetchable: true, Size: 4, Device: tag(0)}), "cannot be prefetched"},
		{"no device", 1, 0, bar(4, BAR{Kind: IO, Size: 4}), "no Device"},
		{"64 bits at the end", 1, 0, bar(5, BAR{Kind: Memory64, Size: 16, Device: tag(0)}), "BAR 5: a 64-bit one"},
		{"64 bits over another", 1, 0, bar(1, BAR{Kind: IO, Size: 4, Device: tag(0)}), "BAR 0: a 64-bit one"},
		{"MSI-X over another", 1, 0, func(c *Config) { c.MSIX.BAR = 0 }, "MSI-X in BAR 0"},
		{"no vectors", 1, 0, func(c *Config) { c.MSIX.Vectors = 0 }, "0 MSI-X vectors"},
		{"many vectors", 1, 0, func(c *Config) { c.MSIX.Vectors = 2049 }, "2049 MSI-X vectors"},
		{"no sink", 1, 0, func(c *Config) { c.MSIX.Sink = nil }, "without a Sink"},
		{"masks", 1, 0, capability(Capability{Body: make([]byte, 4), Writable: make([]byte, 3)}), "Writable has 3 bytes"},
		{"large capability", 1, 0, capability(Capability{}, Capability{ID: 9, Body: make([]byte, 200)}), "capability 1, id 0x9: it ends at"},
		{"live outside", 1, 0, live(3, 2), "Live is 2 bytes at 3"},
		{"live nowhere", 1, 0, live(0, 0), "Live is 0 bytes"},
		{"live negative", 1, 0, live(-1, 2), "at -1"},
		{"live without calls", 1, 0, capability(Capability{Body: make([]byte, 4), Live: &Live{Size: 4}}), "both Load and Store"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			_, err := r.Add(2, 0, nic(nil))
			require.NoError(t, err)
			c := nic(&sink{})
			if tt.change != nil {
				tt.change(&c)
			}
			_, err = r.Add(tt.slot, tt.function, c)
			require.ErrorIs(t, err, ErrConfig)
			require.ErrorContains(t, err, tt.says)
			require.ErrorContains(t, err, "nic at slot")
			require.Len(t, r.mmconfig().enumerate(), 2)
		})
	}
}

func TestNewRootRefuses(t *testing.T) {
	bus := devices.NewBus("mmio")
	for _, tt := range []struct {
		c    RootConfig
		says string
	}{
		{RootConfig{}, "Memory, IO and Log"},
		{RootConfig{Memory: bus, IO: bus, Log: quiet(), IOWindows: []Window{{}}}, "window at 0x0"},
		{RootConfig{Memory: bus, IO: bus, Log: quiet(), MemoryWindows: []Window{{1 << 63, 1<<63 + 1}}}, "passes the end"},
	} {
		_, err := NewRoot(tt.c)
		require.ErrorIs(t, err, ErrConfig)
		require.ErrorContains(t, err, tt.says)
	}
	r, err := NewRoot(RootConfig{Memory: bus, IO: bus, Log: quiet()})
	require.NoError(t, err)
	_, err = r.Add(1, 0, nic(nil))
	require.ErrorContains(t, err, "no INTx")
}
