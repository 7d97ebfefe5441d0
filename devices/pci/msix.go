package pci

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"
)

// MaxVectors is how many MSI-X vectors a function can have (PCI 3.0 §6.8.2.3).
const MaxVectors = 2048

// MSIX gives a function vectors (PCI 3.0 §6.8.2). Table and pending bits have
// a 64-bit memory BAR of their own, of MSIXBarSize bytes.
type MSIX struct {
	Vectors int // 1 to MaxVectors
	BAR     int // which one; Config.BARs leaves it empty
	Sink    Vectors
	// Changed, if not nil, is called when what Function.Direct says may have changed:
	// on the thread of the vCPU that caused it and before the guest sees it done,
	// several at once. It must not access configuration space nor call Reset.
	Changed func()
}

// A Message is a message signalled interrupt: a store of Data to Address.
type Message struct {
	Address uint64 // guest-physical, a multiple of 4
	Data    uint32
}

// Vectors delivers the messages of one function. It is called with a lock held,
// so it must not call into this package, nor wait.
//
// It need not know of masks. Signal is never called while a vector is masked, so
// what it signals can be an eventfd that stays bound to the interrupt
// controller: the message of an unmasked vector takes one write from Trigger to
// the guest. A mask costs nothing, and the end of one costs a Route only if the
// guest has changed the message meanwhile. When the guest's store of a mask is
// done, no Signal of that vector is under way.
type Vectors interface {
	// Route makes vector deliver m from now on. It is called before the first
	// Signal, and whenever a vector that may be signalled has a new message;
	// one call at a time. After an error the vector stays pending, until the
	// guest changes its message or unmasks it again.
	Route(vector int, m Message) error
	// Signal delivers vector's message. It is called from several goroutines
	// at once.
	Signal(vector int)
}

// The capability (PCI 3.0 §6.8.2.3 to 6.8.2.5): offsets from its ID, and the
// bits of Message Control.
const (
	msixControl = 2
	msixMaskAll = 1 << 14
	msixEnable  = 1 << 15
)

// A table entry (PCI 3.0 §6.8.2.6 to 6.8.2.9).
const (
	entrySize    = 16
	entryAddress = 0
	entryData    = 8
	entryControl = 12
	entryMasked  = 1 << 0 // in Vector Control
)

// entryWritable are the bits of an entry that a guest can change.
var entryWritable = [entrySize]byte{
	0xfc, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, // §6.8.2.7: a message is an aligned double word
	0xff, 0xff, 0xff, 0xff,
	entryMasked, 0, 0, 0,
}

// pendingOffset is where the pending bits are in the BAR: behind the table.
func pendingOffset(vectors int) uint64 {
	return max(uint64(nextPower(vectors*entrySize)), 2048)
}

// MSIXBarSize is the size in bytes of the BAR that so many vectors take.
func MSIXBarSize(vectors int) uint64 { return 2 * pendingOffset(vectors) }

// nextPower is the lowest power of two that is at least n.
func nextPower(n int) int { return 1 << bits.Len(uint(n-1)) }

func (c *MSIX) validate(f *Config) error {
	switch {
	case c.Vectors < 1 || c.Vectors > MaxVectors:
		return fmt.Errorf("%d MSI-X vectors: give 1 to %d", c.Vectors, MaxVectors)
	case c.Sink == nil:
		return errors.New("MSI-X without a Sink")
	case c.BAR < 0 || c.BAR >= barCount || f.BARs[c.BAR] != BAR{}:
		return fmt.Errorf("MSI-X in BAR %d: give it one below %d that nothing else is in", c.BAR, barCount)
	}
	return nil
}

func (c *MSIX) bar(m *msix) BAR {
	return BAR{Kind: Memory64, Size: MSIXBarSize(c.Vectors), Device: m}
}

func (c *MSIX) capability() Capability {
	le := binary.LittleEndian
	var body []byte
	body = le.AppendUint16(body, uint16(c.Vectors-1))
	body = le.AppendUint32(body, uint32(c.BAR)) // the table is at its start
	body = le.AppendUint32(body, uint32(pendingOffset(c.Vectors))|uint32(c.BAR))
	writable := make([]byte, len(body))
	le.PutUint16(writable, msixEnable|msixMaskAll)
	return Capability{ID: CapMSIX, Body: body, Writable: writable}
}

// msix is a function's vectors. It is the devices.Device behind the BAR.
type msix struct {
	name    string
	log     *slog.Logger
	sink    Vectors
	changed func()          // MSIX.Changed
	pending []atomic.Uint64 // the pending bit array

	// mu is held for reading where a vector is triggered, and for writing
	// where something changes on which that depends.
	mu                       sync.RWMutex
	table                    []byte
	routes                   []route
	enabled, maskAll, master bool
	complaint                time.Time
}

// A Descriptors is a Vectors whose Signal is a write to an eventfd, as the kernel can
// make one, too: FD is that of a vector.
type Descriptors interface {
	Vectors
	FD(vector int) int
}

// A route is a message that the sink has been told.
type route struct {
	Message
	ok bool
}

func newMSIX(c MSIX, name string, log *slog.Logger) *msix {
	m := &msix{
		name:    name,
		log:     log,
		sink:    c.Sink,
		changed: c.Changed,
		pending: make([]atomic.Uint64, (c.Vectors+63)/64),
		table:   make([]byte, c.Vectors*entrySize),
		routes:  make([]route, c.Vectors),
	}
	if m.changed == nil {
		m.changed = func() {}
	}
	m.maskEach()
	return m
}

// maskEach puts the table to its state at power-on.
func (m *msix) maskEach() {
	clear(m.table)
	for v := range m.routes {
		m.table[v*entrySize+entryControl] = entryMasked
	}
}

// trigger is Function.Trigger.
func (m *msix) trigger(vector int) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	switch {
	case !m.enabled:
		return false
	case vector < 0 || vector >= len(m.routes):
	case m.open(vector) && m.routes[vector].ok:
		m.sink.Signal(vector)
	default:
		m.pending[vector/64].Or(1 << (vector % 64))
	}
	return true
}

// direct is Function.Direct.
func (m *msix) direct(vector int) int {
	d, ok := m.sink.(Descriptors)
	m.mu.RLock()
	defer m.mu.RUnlock()
	if !ok || vector < 0 || vector >= len(m.routes) || !m.open(vector) || !m.routes[vector].ok {
		return -1
	}
	return d.FD(vector)
}

// open tells whether vector's messages may be sent.
func (m *msix) open(vector int) bool {
	return m.enabled && m.master && !m.maskAll && m.table[vector*entrySize+entryControl]&entryMasked == 0
}

// settle routes vector if it may be sent and has a new message, and sends what
// is pending. mu is held for writing.
func (m *msix) settle(vector int) {
	if !m.open(vector) {
		return
	}
	le, entry := binary.LittleEndian, m.table[vector*entrySize:]
	message := Message{Address: le.Uint64(entry[entryAddress:]), Data: le.Uint32(entry[entryData:])}
	if r := &m.routes[vector]; !r.ok || r.Message != message {
		if err := m.sink.Route(vector, message); err != nil {
			r.ok = false
			m.complain(vector, message, err)
			return
		}
		*r = route{message, true}
	}
	word, bit := &m.pending[vector/64], uint64(1)<<(vector%64)
	if word.And(^bit)&bit != 0 {
		m.sink.Signal(vector)
	}
}

// complain logs that a message cannot be delivered, at most once in a while.
func (m *msix) complain(vector int, message Message, err error) {
	const every = 10 * time.Second
	if now := time.Now(); now.Sub(m.complaint) >= every {
		m.complaint = now
		m.log.Warn("PCI: an MSI-X message cannot be routed; its vector stays pending", "device", m.name, "vector", vector,
			"address", fmt.Sprintf("%#x", message.Address), "data", fmt.Sprintf("%#x", message.Data), "err", err)
	}
}

// setControl follows Message Control and the command register. With MSI-X
// disabled nothing is pending: the function's interrupt is INTx# then.
func (m *msix) setControl(enabled, maskAll, master bool) {
	defer m.changed()
	m.mu.Lock()
	defer m.mu.Unlock()
	if enabled == m.enabled && maskAll == m.maskAll && master == m.master {
		return
	}
	m.enabled, m.maskAll, m.master = enabled, maskAll, master
	if !enabled {
		m.clearPending()
		return
	}
	for v := range m.routes {
		m.settle(v)
	}
}

func (m *msix) clearPending() {
	for i := range m.pending {
		m.pending[i].Store(0)
	}
}

// reset masks each vector. What it does to Message Control is the function's
// to do.
func (m *msix) reset() {
	defer m.changed()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.maskEach()
	m.clearPending()
}

// Load implements devices.Device. Between and behind table and pending bits are
// zeros.
func (m *msix) Load(off uint64, p []byte) {
	clear(p)
	m.mu.RLock()
	defer m.mu.RUnlock()
	if off < uint64(len(m.table)) {
		copy(p, m.table[off:])
	}
	start := pendingOffset(len(m.routes))
	for i := range p {
		if at := off + uint64(i); at >= start && at-start < 8*uint64(len(m.pending)) {
			at -= start
			p[i] = byte(m.pending[at/8].Load() >> (at % 8 * 8))
		}
	}
}

// Store implements devices.Device. The pending bits cannot be written.
func (m *msix) Store(off uint64, p []byte) {
	defer m.changed()
	m.mu.Lock()
	defer m.mu.Unlock()
	if off >= uint64(len(m.table)) {
		return
	}
	p = p[:min(len(p), len(m.table)-int(off))]
	if len(p) == 0 {
		return
	}
	for i, v := range p {
		at := int(off) + i
		w := entryWritable[at%entrySize]
		m.table[at] = m.table[at]&^w | v&w
	}
	first, last := int(off)/entrySize, (int(off)+len(p)-1)/entrySize
	for v := first; v <= last; v++ {
		m.settle(v)
	}
}
