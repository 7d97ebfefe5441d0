package pci

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/devices"
)

// A config is a mechanism by which a driver gets at configuration space.
type config interface {
	load(devfn, reg int, p []byte)
	store(devfn, reg int, p []byte)
}

// conf1 is Linux's pci_conf1_read and pci_conf1_write.
type conf1 struct{ pio *devices.Bus }

func (c conf1) address(devfn, reg int) {
	c.pio.Store(0xcf8, binary.LittleEndian.AppendUint32(nil, 1<<31|uint32(devfn)<<8|uint32(reg&^3)))
}

func (c conf1) load(devfn, reg int, p []byte) {
	c.address(devfn, reg)
	c.pio.Load(0xcfc+uint64(reg&3), p)
}

func (c conf1) store(devfn, reg int, p []byte) {
	c.address(devfn, reg)
	c.pio.Store(0xcfc+uint64(reg&3), p)
}

// mmconfig is Linux's pci_mmcfg_read and pci_mmcfg_write.
type mmconfig struct{ mmio *devices.Bus }

func (c mmconfig) load(devfn, reg int, p []byte)  { c.mmio.Load(ecamBase+uint64(devfn<<12|reg), p) }
func (c mmconfig) store(devfn, reg int, p []byte) { c.mmio.Store(ecamBase+uint64(devfn<<12|reg), p) }

// A driver is configuration space with numbers.
type driver struct{ config }

func (d driver) r8(devfn, reg int) uint8 {
	var p [1]byte
	d.load(devfn, reg, p[:])
	return p[0]
}

func (d driver) r16(devfn, reg int) uint16 {
	var p [2]byte
	d.load(devfn, reg, p[:])
	return binary.LittleEndian.Uint16(p[:])
}

func (d driver) r32(devfn, reg int) uint32 {
	var p [4]byte
	d.load(devfn, reg, p[:])
	return binary.LittleEndian.Uint32(p[:])
}

func (d driver) w16(devfn, reg int, v uint16) {
	d.store(devfn, reg, binary.LittleEndian.AppendUint16(nil, v))
}

func (d driver) w32(devfn, reg int, v uint32) {
	d.store(devfn, reg, binary.LittleEndian.AppendUint32(nil, v))
}

// A found is what enumeration finds of a function.
type found struct {
	id, class, subsystem uint32
	header, pin          uint8
	bars                 map[int]foundBAR
	capabilities         map[uint8][]int // offsets by ID
}

type foundBAR struct {
	flags uint32
	size  uint64
}

// enumerate is Linux's pci_scan_slot and pci_setup_device on bus 0.
func (d driver) enumerate() map[int]found {
	all := map[int]found{}
	for slot := range 32 {
		for function := range 8 {
			devfn := slot<<3 | function
			id := d.r32(devfn, regVendor)
			if id == 0xffffffff || id == 0 || id == 0xffff || id == 0xffff0000 {
				if function == 0 {
					break
				}
				continue
			}
			f := found{
				id: id, class: d.r32(devfn, regRevision), subsystem: d.r32(devfn, regSubVendor),
				header: d.r8(devfn, regHeaderType), pin: d.r8(devfn, regInterruptPin),
				bars: map[int]foundBAR{}, capabilities: map[uint8][]int{},
			}
			d.size(devfn, f.bars)
			d.walk(devfn, f.capabilities)
			all[devfn] = f
			if function == 0 && f.header&0x80 == 0 {
				break
			}
		}
	}
	return all
}

// size is __pci_read_base: decoding off, write ones, read, restore.
func (d driver) size(devfn int, bars map[int]foundBAR) {
	command := d.r16(devfn, regCommand)
	d.w16(devfn, regCommand, command&^3)
	defer d.w16(devfn, regCommand, command)
	probe := func(reg int) (was, mask uint32) {
		was = d.r32(devfn, reg)
		d.w32(devfn, reg, 0xffffffff)
		mask = d.r32(devfn, reg)
		d.w32(devfn, reg, was)
		return was, mask
	}
	for i := 0; i < 6; i++ {
		was, lo := probe(regBAR + 4*i)
		switch {
		case lo == 0:
		case was&1 != 0:
			bars[i] = foundBAR{was & 3, uint64(^(lo &^ 3)) + 1}
		case was&6 == 4:
			_, hi := probe(regBAR + 4*i + 4)
			bars[i] = foundBAR{was & 0xf, ^(uint64(hi)<<32 | uint64(lo&^0xf)) + 1}
			i++
		default:
			bars[i] = foundBAR{was & 0xf, uint64(^(lo &^ 0xf)) + 1}
		}
	}
}

// walk is __pci_find_next_cap, with its time to live.
func (d driver) walk(devfn int, capabilities map[uint8][]int) {
	if d.r16(devfn, regStatus)&statusCapabilities == 0 {
		return
	}
	at := int(d.r8(devfn, regCapabilities))
	for ttl := 48; ttl > 0 && at >= 0x40; ttl-- {
		entry := d.r16(devfn, at&^3)
		if entry&0xff == 0xff {
			return
		}
		capabilities[uint8(entry)] = append(capabilities[uint8(entry)], at)
		at = int(entry >> 8)
	}
}

// setBAR is pci_std_update_resource, for any kind of BAR.
func (d driver) setBAR(devfn, i int, base uint64) {
	d.w32(devfn, regBAR+4*i, uint32(base))
	if d.r32(devfn, regBAR+4*i)&7 == 4 {
		d.w32(devfn, regBAR+4*i+4, uint32(base>>32))
	}
}

// The rig's addresses.
const (
	ecamBase = 0xe000_0000
	low      = 0xc000_0000 // 32-bit window
	high     = 1 << 38     // 64-bit window
	winSize  = 0x1000_0000
	ioBase   = 0x1000
	chipBase = low + 0x100_0000 // another chip, in the window
)

// A rig is a root on buses, with inputs that remember.
type rig struct {
	*Root
	pio, mmio *devices.Bus
	lines     [8]*input
	log       *bytes.Buffer
}

func newRig(t testing.TB) *rig {
	r := &rig{pio: devices.NewBus("pio"), mmio: devices.NewBus("mmio"), log: &bytes.Buffer{}}
	lines := make([]devices.Line, len(r.lines))
	for i := range lines {
		r.lines[i] = &input{}
		lines[i] = r.lines[i]
	}
	var err error
	r.Root, err = NewRoot(RootConfig{
		Memory: r.mmio, IO: r.pio,
		MemoryWindows: []Window{{low, winSize}, {high, winSize}},
		IOWindows:     []Window{{ioBase, 0xf000}},
		INTx:          lines,
		Log:           slog.New(slog.NewTextHandler(r.log, nil)),
	})
	require.NoError(t, err)
	require.NoError(t, r.pio.Map("configuration", PortsBase, PortsSize, r.Ports()))
	require.NoError(t, r.mmio.Map("ECAM", ecamBase, ECAMSize, r.ECAM()))
	require.NoError(t, r.mmio.Map("chip", chipBase, 0x1000, tag(0xcc)))
	return r
}

func (r *rig) conf1() driver    { return driver{conf1{r.pio}} }
func (r *rig) mmconfig() driver { return driver{mmconfig{r.mmio}} }

// byteAt is the byte that a guest reads from memory space.
func (r *rig) byteAt(gpa uint64) byte {
	var p [1]byte
	r.mmio.Load(gpa, p[:])
	return p[0]
}

// input is an interrupt controller's input.
type input struct {
	mu   sync.Mutex
	high bool
	sets int
}

func (l *input) Set(high bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.high = high
	l.sets++
}

// level tells the level, and how often it was set.
func (l *input) level() (bool, int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.high, l.sets
}

// tag is a device whose bytes say which device it is.
type tag byte

func (d tag) Load(_ uint64, p []byte) {
	for i := range p {
		p[i] = byte(d)
	}
}
func (tag) Store(uint64, []byte) {}

var errRoute = errors.New("no such local APIC")

// sink is what vmm would be: it delivers to a list. It refuses an address that
// is not the local APICs'.
type sink struct {
	mu     sync.Mutex
	routes map[int]Message
	sent   []Message
	routed int // calls of Route
}

func (s *sink) Route(vector int, m Message) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.routed++
	if m.Address>>20 != 0xfee {
		return fmt.Errorf("%#x: %w", m.Address, errRoute)
	}
	if s.routes == nil {
		s.routes = map[int]Message{}
	}
	s.routes[vector] = m
	return nil
}

func (s *sink) Signal(vector int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sent = append(s.sent, s.routes[vector])
}

// take returns the data of what was sent since it was last called.
func (s *sink) take() []uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	var data []uint32
	for _, m := range s.sent {
		data = append(data, m.Data)
	}
	s.sent = nil
	return data
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// events collects what the callbacks of a function say.
type events []string

func (e *events) connect(c *Config) {
	c.Mapped = func(bar int, base uint64) { *e = append(*e, fmt.Sprintf("mapped %d %#x", bar, base)) }
	c.Unmapped = func(bar int, base uint64) { *e = append(*e, fmt.Sprintf("unmapped %d %#x", bar, base)) }
	c.CommandChanged = func(v Command) { *e = append(*e, fmt.Sprintf("command %#x", uint16(v))) }
}

func (e *events) take() []string {
	all := *e
	*e = nil
	return all
}

// nic is a function like a virtio one: registers in a 64-bit BAR, vectors in
// another, vendor-specific capabilities.
func nic(s Vectors) Config {
	c := Config{
		Name:   "nic",
		Vendor: 0x1af4, Device: 0x1041, SubsystemVendor: 0x1af4, Subsystem: 0x40,
		Class: 0x020000, Revision: 1, InterruptPin: 1,
		Capabilities: []Capability{
			{ID: CapVendor, Body: []byte{16, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0}},
			{ID: CapVendor, Body: make([]byte, 15)}, // not a multiple of four
		},
	}
	c.BARs[0] = BAR{Kind: Memory64, Prefetchable: true, Size: 0x4000, Device: tag(0x41)}
	if s != nil {
		c.MSIX = &MSIX{Vectors: 5, BAR: 2, Sink: s}
	}
	return c
}
