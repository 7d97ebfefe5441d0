package pci

import (
	"encoding/binary"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/devices/pci"
	"github.com/huskvm/husk/devices/virtio"
	"github.com/huskvm/husk/devices/virtio/virtiotest"
)

// widths are the fields of the common configuration (§4.1.4.3).
var widths = map[uint64][]int{
	0x00: {4}, 0x04: {4}, 0x08: {4}, 0x0c: {4}, 0x10: {2}, 0x12: {2}, 0x14: {1}, 0x15: {1}, 0x16: {2}, 0x18: {2},
	0x1a: {2}, 0x1c: {2}, 0x1e: {2}, 0x20: {4, 8}, 0x24: {4}, 0x28: {4, 8}, 0x2c: {4}, 0x30: {4, 8}, 0x34: {4}, 0x3a: {2},
}

// TestOnlyWholeFields: what is not a field reads as ones, and a store to it
// changes nothing (§4.1.3.1).
func TestOnlyWholeFields(t *testing.T) {
	g, r := start(t, mode{})
	r.put(0x16, 2, 1)
	state := r.state.QueueState()
	for off := range uint64(notifyAt) {
		if off >= configAt && off < notifyAt {
			continue
		}
		for _, width := range []int{1, 2, 4, 8} {
			p, ones := make([]byte, width), make([]byte, width)
			for i := range ones {
				ones[i] = 0xff
			}
			known := slices.Contains(widths[off], width) || off == isrAt && width == 1
			if off+uint64(width) > configAt && off < configAt {
				continue // partly configuration
			}
			if !known {
				r.mmio.Store(home+off, p)
			}
			r.mmio.Load(home+off, p)
			if known {
				require.NotEqual(t, ones, p, "%d bytes at %#x", width, off)
			} else {
				require.Equal(t, ones, p, "%d bytes at %#x", width, off)
			}
		}
	}
	require.EqualValues(t, 15, r.get(0x14, 1))
	require.Equal(t, state, r.state.QueueState())
	g.Say(0, "as before")
}

func TestFieldsOf64Bits(t *testing.T) {
	g, r := start(t, mode{})
	g.Reset()
	for i, off := range []uint64{0x20, 0x28, 0x30} {
		v := uint64(i+1) * 0x1111_2222_3333_4440
		r.store(off, binary.LittleEndian.AppendUint64(nil, v))
		require.Equal(t, uint32(v), r.get(off, 4))
		require.Equal(t, uint32(v>>32), r.get(off+4, 4))
		r.put(off+4, 4, 5)
		p := make([]byte, 8)
		r.load(off, p)
		require.Equal(t, 5<<32|v&0xffffffff, binary.LittleEndian.Uint64(p))
	}
	s := r.state.QueueState()
	require.Equal(t, []uint64{0x5_3333_4440, 0x5_6666_8880, 0x5_9999_ccc0}, []uint64{s.Desc, s.Driver, s.Device})
}

func TestReadOnlyFields(t *testing.T) {
	g, r := start(t, mode{})
	require.EqualValues(t, 2, r.get(0x12, 2), "num_queues")
	for i := range uint32(2) {
		r.put(0x16, 2, i)
		require.Equal(t, i, r.get(0x1e, 2), "queue_notify_off")
	}
	r.put(0x16, 2, 77)
	require.Zero(t, r.get(0x1e, 2))
	for off, width := range map[uint64]int{0x04: 4, 0x12: 2, 0x15: 1, 0x1e: 2} {
		before := r.get(off, width)
		r.put(off, width, ^before)
		require.Equal(t, before, r.get(off, width))
	}
	r.put(0x16, 2, 0)
	r.put(0x1c, 2, 0)
	require.EqualValues(t, 1, r.get(0x1c, 2), "queue_enable takes no 0")
	r.put(0x3a, 2, 2)
	r.put(0x3a, 2, 0)
	require.EqualValues(t, 1, r.get(0x1c, 2), "queue_reset takes a 1")
	g.Say(0, "as before")
	g.Reset()
	r.put(0x16, 2, 0)
	r.put(0x1c, 2, 0)
	r.put(0x1c, 2, 2)
	require.Zero(t, r.get(0x1c, 2), "nor anything but a 1")
}

func TestVectors(t *testing.T) {
	g, r := start(t, mode{})
	vectors := func() (v []uint32) {
		v = append(v, r.get(0x10, 2))
		for i := range uint32(3) {
			r.put(0x16, 2, i)
			v = append(v, r.get(0x1a, 2))
		}
		return v
	}
	require.Equal(t, []uint32{0, 1, 2, 0xffff}, vectors())
	r.put(0x1a, 2, 1) // of queue 2, which does not exist
	require.Equal(t, []uint32{0, 1, 2, 0xffff}, vectors())
	for _, v := range []uint32{3, 0x7ff, 0xffff} {
		r.put(0x10, 2, v)
		r.put(0x16, 2, 1)
		r.put(0x1a, 2, v)
		require.Equal(t, []uint32{0xffff, 1, 0xffff, 0xffff}, vectors(), "%#x", v)
	}

	// One vector for all.
	r.put(0x16, 2, 1)
	r.put(0x1a, 2, 1)
	g.Rings[1].Interrupt = g.Rings[0].Interrupt
	g.Say(1, "shared")

	g.ResetQueue(1)
	require.Equal(t, []uint32{0xffff, 1, 0xffff, 0xffff}, vectors(), "reset with its queue")
	g.Reset()
	require.Equal(t, []uint32{0xffff, 0xffff, 0xffff, 0xffff}, vectors())
	require.EqualValues(t, 1<<15, r.conf(r.msixAt+2, 2)&(1<<15), "MSI-X stays enabled (§4.1.4.3.1)")
	p := make([]byte, 4)
	r.mmio.Load(msixHome+16, p)
	require.EqualValues(t, lapic, binary.LittleEndian.Uint32(p), "and so does its table")
	require.EqualValues(t, pci.CommandMemory|pci.CommandBusMaster, r.conf(regCommand, 2))
}

func TestAQueueWithoutAVectorIsPolled(t *testing.T) {
	g, r := start(t, mode{})
	r.put(0x16, 2, 0)
	r.put(0x1a, 2, noVector)
	sent := r.sink.sent
	ring := g.Rings[0]
	ring.Add(virtiotest.Out([]byte("x")), virtiotest.In(1))
	g.Publish(0)
	require.Eventually(t, func() bool { q, err := ring.Used(); return err == nil && q != nil }, time.Minute, time.Millisecond)
	g.Say(1, "this one has one")
	r.sink.mu.Lock()
	defer r.sink.mu.Unlock()
	require.Equal(t, sent+1, r.sink.sent)
	require.Zero(t, r.get(isrAt, 1), "nor ISR status, with MSI-X")
}

func TestAMaskedVectorIsPending(t *testing.T) {
	g, r := start(t, mode{})
	mask := func(v byte) { r.mmio.Store(msixHome+16+12, []byte{v, 0, 0, 0}) }
	mask(1)
	ring := g.Rings[0]
	ring.Add(virtiotest.Out([]byte("x")), virtiotest.In(1))
	g.Publish(0)
	p := make([]byte, 8)
	require.Eventually(t, func() bool { r.mmio.Load(msixHome+2048, p); return p[0] == 1<<1 }, time.Minute, time.Millisecond)
	require.Empty(t, ring.Interrupt.C())
	mask(0)
	<-ring.Interrupt.C()
	r.mmio.Load(msixHome+2048, p)
	require.Zero(t, p[0])
}

// TestISRStatus: a load takes it, and INTx# follows (§4.1.4.5.1).
func TestISRStatus(t *testing.T) {
	g, r := start(t, mode{intx: true})
	const disable, status = uint32(pci.CommandINTxDisable), 0x06
	r.setConf(regCommand, 2, uint32(pci.CommandMemory|pci.CommandBusMaster)|disable) // the driver's handler rests
	ring := g.Rings[0]
	ring.Add(virtiotest.Out([]byte("x")), virtiotest.In(1))
	g.Publish(0)
	interrupt := func() bool { return r.conf(status, 2)&(1<<3) != 0 }
	require.Eventually(t, interrupt, time.Minute, time.Millisecond)
	require.Empty(t, ring.Interrupt.C(), "disabled")
	require.EqualValues(t, virtio.ISRQueue, r.get(isrAt, 1))
	require.Zero(t, r.get(isrAt, 1))
	require.False(t, interrupt())

	ring.Offer(99)
	g.Publish(0)
	require.Eventually(t, interrupt, time.Minute, time.Millisecond)
	r.setConf(regCommand, 2, uint32(pci.CommandMemory|pci.CommandBusMaster))
	<-g.ConfigInterrupt.C()
	require.Eventually(t, func() bool { return !interrupt() }, time.Minute, time.Millisecond)
}

func TestAResetClearsISRStatus(t *testing.T) {
	g, r := start(t, mode{})
	g.Rings[0].Offer(99)
	g.Publish(0)
	<-g.ConfigInterrupt.C()
	require.EqualValues(t, virtio.ISRConfig, r.get(isrAt, 1), "whatever else announces it")
	g.Start(0)
	g.Rings[0].Offer(99)
	g.Publish(0)
	<-g.ConfigInterrupt.C()
	g.Reset()
	require.Zero(t, r.get(isrAt, 1))
}

func TestDoorbellsThatReachUs(t *testing.T) {
	g, r := start(t, mode{})
	g.Reset()
	counts := func() []int { return []int{r.events[0].Count(), r.events[1].Count()} }
	before := counts()
	for off, want := range map[uint64][]int{0: {1, 0}, 4: {0, 1}, 2: {0, 0}, 5: {0, 0}, 8: {0, 0}, 0xffc: {0, 0}} {
		r.mmio.Store(home+notifyAt+off, []byte{9, 9})
		after := counts()
		require.Equal(t, want, []int{after[0] - before[0], after[1] - before[1]}, "%#x", off)
		before = after
	}
	require.EqualValues(t, 0xffff, r.get(notifyAt, 2))
}

// TestTheWindow: what is not a register's place and width is nothing (§4.1.4.9).
func TestTheWindow(t *testing.T) {
	g, r := start(t, mode{})
	at := r.found[capWindow].at
	aim := func(bar, off, n uint32) {
		r.setConf(at+4, 1, bar)
		r.setConf(at+8, 4, off)
		r.setConf(at+12, 4, n)
	}
	aim(0, 0x14, 1)
	require.EqualValues(t, 0xffffff0f, r.conf(at+16, 4), "status, and no more")
	require.EqualValues(t, 0x0f, r.conf(at+16, 1))
	require.EqualValues(t, 0xff, r.conf(at+17, 1))
	aim(0, 0x16, 2)
	r.setConf(at+16, 4, 0xffff_0001)
	require.EqualValues(t, 1, r.get(0x16, 2))
	r.setConf(at+16, 1, 0)
	r.setConf(at+18, 2, 0)
	require.EqualValues(t, 1, r.get(0x16, 2), "less than is in view, or beside it")
	for _, w := range [][3]uint32{{0, 0x14, 0}, {0, 0x14, 3}, {0, 0x14, 8}, {0, 0x16, 4}, {1, 0x14, 1}, {2, 0, 4}, {0xff, 0, 4}, {0, 0xffffffff, 1}, {0, 0x4000, 4}} {
		aim(w[0], w[1], w[2])
		require.EqualValues(t, 0xffffffff, r.conf(at+16, 4), "%#x", w)
		r.setConf(at+16, 4, 0)
	}
	require.EqualValues(t, 15, r.get(0x14, 1))
	r.echo.SetConfig([]byte{1, 2, 3, 4})
	aim(0, configAt+2, 2)
	require.EqualValues(t, 0xffff0403, r.conf(at+16, 4))
	aim(0, configAt+1, 2)
	require.EqualValues(t, 0xffffffff, r.conf(at+16, 4), "not aligned")

	r.setConf(regCommand, 2, uint32(pci.CommandBusMaster))
	aim(0, 0x14, 1)
	require.EqualValues(t, 15, r.conf(at+16, 1), "no BAR needs to be mapped")
	r.start()
	g.Say(0, "as before")
}
