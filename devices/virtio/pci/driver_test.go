package pci

import (
	"encoding/binary"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/devices"
	"github.com/huskvm/husk/devices/pci"
	"github.com/huskvm/husk/devices/virtio"
	"github.com/huskvm/husk/devices/virtio/virtiotest"
)

// The rig's addresses.
const (
	ecam     = 0xe000_0000
	window   = 1 << 38
	winSize  = 0x100_0000
	slot     = 3
	home     = window            // of the registers
	msixHome = window + 0x80_000 // of the vectors
	lapic    = 0xfee0_0000
)

// Registers of configuration space.
const (
	regCommand = 0x04
	regBAR     = 0x10
)

// How a rig's driver works.
type mode struct {
	intx      bool // without MSI-X
	slow      bool // no doorbell is bound
	viaConfig bool // through VIRTIO_PCI_CAP_PCI_CFG, not the BAR
}

// A rig is a device in a slot, with a driver. It does as Linux does
// (drivers/virtio/virtio_pci_modern_dev.c).
type rig struct {
	*Device
	mode
	echo   *virtiotest.Echo // of start
	mmio   *devices.Bus
	events []*virtiotest.Signal
	bells  doorbells
	sink   sink
	log    safeBuffer

	base atomic.Uint64 // where BAR 0 is
	// found are the structures by type, and the offset of their capability.
	found      map[uint8]structureAt
	multiplier uint32
	msixAt     int // the MSI-X capability
	// trace, if not nil, sees each store to BAR 0.
	trace func(off uint64, p []byte)

	mu      sync.Mutex
	signals map[int]*virtiotest.Signal // by queue; -1 is the configuration's
}

type structureAt struct {
	at          int
	off, length uint64
}

func newRig(t testing.TB, d virtio.Device, mem *virtiotest.Memory, m mode) *rig {
	t.Helper()
	r := &rig{mode: m, mmio: devices.NewBus("mmio"), signals: map[int]*virtiotest.Signal{}}
	r.sink.signal = r.message
	r.bells.where = map[uint64]int{}
	log := slog.New(slog.NewTextHandler(&r.log, nil))
	root, err := pci.NewRoot(pci.RootConfig{
		Memory: r.mmio, IO: devices.NewBus("pio"),
		MemoryWindows: []pci.Window{{Base: window, Size: winSize}},
		INTx:          []devices.Line{virtiotest.NewLine(t, r.interrupt)},
		Log:           log,
	})
	require.NoError(t, err)
	require.NoError(t, r.mmio.Map("ECAM", ecam, pci.ECAMSize, root.ECAM()))
	o := Options{Name: "echo", Root: root, Slot: slot, Device: d, Memory: mem, Vectors: &r.sink, Log: log}
	for range d.QueueSizes() {
		s := virtiotest.NewSignal()
		r.events = append(r.events, s)
		o.Events = append(o.Events, s)
	}
	if !m.slow {
		o.Doorbells = &r.bells
	}
	r.Device, err = New(o)
	require.NoError(t, err)
	t.Cleanup(r.Close)
	r.probe(t)
	return r
}

func (r *rig) loadConf(reg int, p []byte)  { r.mmio.Load(ecam+slot<<15+uint64(reg), p) }
func (r *rig) storeConf(reg int, p []byte) { r.mmio.Store(ecam+slot<<15+uint64(reg), p) }

func (r *rig) conf(reg, width int) uint32 {
	p := make([]byte, 4)
	r.loadConf(reg, p[:width])
	return binary.LittleEndian.Uint32(p)
}

func (r *rig) setConf(reg, width int, v uint32) {
	r.storeConf(reg, binary.LittleEndian.AppendUint32(nil, v)[:width])
}

func (r *rig) setBAR(i int, base uint64) {
	r.setConf(regBAR+4*i, 4, uint32(base))
	r.setConf(regBAR+4*i+4, 4, uint32(base>>32))
}

// start has the function decode its BARs, access memory and send its messages.
func (r *rig) start() {
	r.base.Store(home)
	r.setBAR(registersBAR, home)
	r.setBAR(msixBAR, msixHome)
	r.setConf(regCommand, 2, uint32(pci.CommandMemory|pci.CommandBusMaster))
	if !r.intx {
		r.setConf(r.msixAt+2, 2, 1<<15)
	}
}

// probe is vp_modern_probe: it finds the structures.
func (r *rig) probe(t testing.TB) {
	r.found = map[uint8]structureAt{}
	for at := r.conf(0x34, 1); at != 0; at = r.conf(int(at)+1, 1) {
		switch r.conf(int(at), 1) {
		case pci.CapMSIX:
			r.msixAt = int(at)
		case pci.CapVendor:
			require.Zero(t, r.conf(int(at)+4, 1), "BAR")
			kind := uint8(r.conf(int(at)+3, 1))
			r.found[kind] = structureAt{int(at), uint64(r.conf(int(at)+8, 4)), uint64(r.conf(int(at)+12, 4))}
		}
	}
	for kind := uint8(1); kind <= 5; kind++ {
		require.Contains(t, r.found, kind)
	}
	r.multiplier = r.conf(r.found[capNotify].at+16, 4)
	r.start()
}

// load loads from BAR 0.
func (r *rig) load(off uint64, p []byte) {
	if r.viaConfig && len(p) <= 4 {
		r.aim(off, len(p))
		r.loadConf(r.found[capWindow].at+16, p)
		return
	}
	r.mmio.Load(r.base.Load()+off, p)
}

// store stores to BAR 0. A doorbell that is bound takes the store as KVM would.
func (r *rig) store(off uint64, p []byte) {
	if r.trace != nil {
		r.trace(off, p)
	}
	if r.viaConfig && len(p) <= 4 {
		r.aim(off, len(p))
		r.storeConf(r.found[capWindow].at+16, p)
		return
	}
	gpa := r.base.Load() + off
	if queue, ok := r.bells.at(gpa); ok && len(p) == 2 {
		r.events[queue].Signal()
		return
	}
	r.mmio.Store(gpa, p)
}

// aim puts the window on n bytes of BAR 0.
func (r *rig) aim(off uint64, n int) {
	at := r.found[capWindow].at
	r.setConf(at+4, 1, 0)
	r.setConf(at+8, 4, uint32(off))
	r.setConf(at+12, 4, uint32(n))
}

func (r *rig) get(off uint64, width int) uint32 {
	p := make([]byte, 4)
	r.load(off, p[:width])
	return binary.LittleEndian.Uint32(p)
}

func (r *rig) put(off uint64, width int, v uint32) {
	r.store(off, binary.LittleEndian.AppendUint32(nil, v)[:width])
}

// interrupt is vp_interrupt: the load takes the bits.
func (r *rig) interrupt() {
	p := make([]byte, 1)
	r.mmio.Load(r.base.Load()+r.found[capISR].off, p)
	r.mu.Lock()
	defer r.mu.Unlock()
	for queue, s := range r.signals {
		if queue < 0 && p[0]&2 != 0 || queue >= 0 && p[0]&1 != 0 {
			s.Signal()
		}
	}
}

// message is what the vectors are for: the data of each is a queue, and the
// configuration's is -1.
func (r *rig) message(data uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.signals[int(int32(data))]; s != nil {
		s.Signal()
	}
}

// A place is a field of the common configuration.
type place struct {
	off   uint64
	width int
}

// places are those of §4.1.4.3.
var places = map[virtiotest.Register]place{
	virtiotest.DeviceFeatureSelect: {0x00, 4}, virtiotest.DeviceFeatures: {0x04, 4},
	virtiotest.DriverFeatureSelect: {0x08, 4}, virtiotest.DriverFeatures: {0x0c, 4},
	virtiotest.Status: {0x14, 1}, virtiotest.Generation: {0x15, 1},
	virtiotest.QueueSelect: {0x16, 2}, virtiotest.QueueMax: {0x18, 2}, virtiotest.QueueSize: {0x18, 2},
	virtiotest.QueueEnable: {0x1c, 2},
	virtiotest.QueueDesc:   {0x20, 4}, virtiotest.QueueDescHigh: {0x24, 4},
	virtiotest.QueueDriver: {0x28, 4}, virtiotest.QueueDriverHigh: {0x2c, 4},
	virtiotest.QueueDevice: {0x30, 4}, virtiotest.QueueDeviceHigh: {0x34, 4},
	virtiotest.QueueReset: {0x3a, 2},
}

// driver is the rig as a virtiotest.Transport.
type driver struct{ *rig }

func (d driver) Load(r virtiotest.Register) uint32 {
	p := places[r]
	return d.get(d.found[capCommon].off+p.off, p.width)
}

func (d driver) Store(r virtiotest.Register, v uint32) {
	p := places[r]
	d.put(d.found[capCommon].off+p.off, p.width, v)
}

func (d driver) LoadConfig(off int, p []byte)  { d.loadAligned(d.found[capDevice].off+uint64(off), p) }
func (d driver) StoreConfig(off int, p []byte) { d.store(d.found[capDevice].off+uint64(off), p) }

// loadAligned is load, where the window cannot be.
func (d driver) loadAligned(off uint64, p []byte) {
	if off%uint64(len(p)) == 0 {
		d.load(off, p)
		return
	}
	d.mmio.Load(d.base.Load()+off, p)
}

func (d driver) Notify(queue int) {
	common := d.found[capCommon].off
	d.put(common+0x16, 2, uint32(queue))
	off := d.get(common+0x1e, 2) * d.multiplier
	if int(off) != queue*int(d.multiplier) { // a queue that does not exist
		off = uint32(queue) * d.multiplier
	}
	d.put(d.found[capNotify].off+uint64(off), 2, uint32(queue))
}

// Connect is vp_request_msix_vectors for one vector, or vp_find_vqs_intx.
func (d driver) Connect(queue int, s *virtiotest.Signal) {
	d.mu.Lock()
	d.signals[queue] = s
	d.mu.Unlock()
	if d.intx {
		return
	}
	vector := queue + 1
	entry := make([]byte, 16)
	binary.LittleEndian.PutUint64(entry, lapic)
	binary.LittleEndian.PutUint32(entry[8:], uint32(int32(queue)))
	for i := 0; i < len(entry); i += 4 {
		d.mmio.Store(msixHome+uint64(16*vector+i), entry[i:i+4])
	}
	off := d.found[capCommon].off + 0x10
	if queue >= 0 {
		off = d.found[capCommon].off + 0x1a
	}
	d.put(off, 2, uint32(vector))
	if d.get(off, 2) != uint32(vector) {
		panic("the vector was refused")
	}
}

// sink delivers messages to a function.
type sink struct {
	signal func(data uint32)
	mu     sync.Mutex
	routes map[int]uint32
	sent   int
}

func (s *sink) Route(vector int, m pci.Message) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.routes == nil {
		s.routes = map[int]uint32{}
	}
	s.routes[vector] = m.Data
	return nil
}

func (s *sink) Signal(vector int) {
	s.mu.Lock()
	data := s.routes[vector]
	s.sent++
	s.mu.Unlock()
	s.signal(data)
}

// doorbells remembers what is bound.
type doorbells struct {
	mu    sync.Mutex
	where map[uint64]int
	fail  error
}

func (d *doorbells) Bind(queue int, gpa uint64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fail != nil {
		return d.fail
	}
	if _, taken := d.where[gpa]; taken {
		panic("bound twice")
	}
	d.where[gpa] = queue
	return nil
}

func (d *doorbells) Unbind(queue int, gpa uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if q, ok := d.where[gpa]; !ok || q != queue {
		panic("was not bound")
	}
	delete(d.where, gpa)
}

func (d *doorbells) at(gpa uint64) (queue int, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	queue, ok = d.where[gpa]
	return queue, ok
}

func (d *doorbells) all() map[uint64]int {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := map[uint64]int{}
	for gpa, q := range d.where {
		c[gpa] = q
	}
	return c
}

// safeBuffer is a log that several goroutines write to.
type safeBuffer struct {
	mu   sync.Mutex
	text []byte
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.text = append(b.text, p...)
	return len(p), nil
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return string(b.text)
}
