package pci

import (
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// counter is a sink that only counts.
type counter struct{ signals atomic.Int64 }

func (*counter) Route(int, Message) error { return nil }
func (c *counter) Signal(int)             { c.signals.Add(1) }

// Several vCPUs at configuration space, BARs and vectors, while the device
// interrupts and is reset: for the race detector. In the end all works.
func TestConcurrentGuests(t *testing.T) {
	r, s := newRig(t), &counter{}
	c := nic(nil)
	c.MSIX = &MSIX{Vectors: 5, BAR: 2, Sink: s}
	f, err := r.Add(1, 0, c)
	require.NoError(t, err)
	other, err := r.Add(2, 0, nic(nil))
	require.NoError(t, err)
	v := probe(t, r)
	const rounds = 300
	var wg sync.WaitGroup
	for vcpu := range 3 {
		wg.Go(func() {
			d := r.mmconfig()
			if vcpu == 0 {
				d = r.conf1() // the address register is nobody else's
			}
			for i := range rounds {
				d.w16(dev, regCommand, uint16(i)&7)
				d.setBAR(dev, 0, low+uint64(i%4)*0x4000)
				d.setBAR(2<<3, 0, low+uint64(i%3)*0x4000)
				d.w16(2<<3, regCommand, uint16(i)&2)
				d.w16(dev, v.cap+2, uint16(i)<<14)
				d.r32(dev, regCommand)
				r.byteAt(low + uint64(i%4)*0x4000)
				p := []byte{byte(i), 0, 0, 0}
				f.msix.Store(uint64(i%20)*4, p)
				f.msix.Load(uint64(i%20)*4, p)
				f.msix.Load(2048, p)
			}
		})
	}
	wg.Go(func() {
		for i := range rounds {
			f.Trigger(i % 5)
			f.SetINTx(i%2 == 0)
			other.SetINTx(i%3 == 0)
		}
	})
	wg.Go(func() {
		for range rounds / 10 {
			f.Reset()
		}
	})
	wg.Wait()

	f.Reset()
	other.Reset()
	v.command(CommandMemory | CommandBusMaster)
	v.control(msixEnable)
	v.setBAR(dev, 0, high)
	require.Equal(t, byte(0x41), r.byteAt(high))
	before := s.signals.Load()
	require.True(t, f.Trigger(4))
	v.mask(4, false)
	require.Equal(t, before+1, s.signals.Load())
}

// No event is lost or doubled between two that trigger and one that masks: the
// last always comes.
func TestMaskRacesWithTrigger(t *testing.T) {
	r, s := newRig(t), &counter{}
	c := nic(nil)
	c.MSIX = &MSIX{Vectors: 1, BAR: 2, Sink: s}
	f, err := r.Add(1, 0, c)
	require.NoError(t, err)
	v := probe(t, r)
	v.command(CommandMemory | CommandBusMaster)
	v.control(msixEnable)
	for range 300 {
		before := s.signals.Load()
		var wg sync.WaitGroup
		wg.Go(func() { v.mask(0, false) })
		wg.Go(func() { f.Trigger(0) })
		wg.Go(func() { f.Trigger(0) })
		wg.Wait()
		sent := s.signals.Load() - before
		require.Contains(t, []int64{1, 2}, sent)
		require.False(t, v.pending(0))
		v.mask(0, true)
		require.Equal(t, before+sent, s.signals.Load(), "nothing is under way when a mask is done")
	}
}

func TestTriggerDoesNotAllocate(t *testing.T) {
	f, v := triggered(t)
	require.Zero(t, testing.AllocsPerRun(100, func() { f.Trigger(0) }))
	v.mask(0, true)
	require.Zero(t, testing.AllocsPerRun(100, func() { f.Trigger(0) }))
	p := make([]byte, 4)
	require.Zero(t, testing.AllocsPerRun(100, func() { v.r.mmio.Load(ecamBase+8<<12, p) }))
}

func triggered(t testing.TB) (*Function, *vectors) {
	r := newRig(t)
	c := nic(nil)
	c.MSIX = &MSIX{Vectors: 1, BAR: 2, Sink: &counter{}}
	f, err := r.Add(1, 0, c)
	require.NoError(t, err)
	v := probe(t, r)
	v.command(CommandMemory | CommandBusMaster)
	v.control(msixEnable)
	v.mask(0, false)
	return f, v
}

func BenchmarkTrigger(b *testing.B) {
	f, _ := triggered(b)
	b.ReportAllocs()
	for b.Loop() {
		f.Trigger(0)
	}
}

func BenchmarkTriggerParallel(b *testing.B) {
	f, _ := triggered(b)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			f.Trigger(0)
		}
	})
}

func BenchmarkConfigLoad(b *testing.B) {
	_, v := triggered(b)
	p := make([]byte, 4)
	for b.Loop() {
		v.r.mmio.Load(ecamBase+8<<12, p)
	}
}
