package mmio

import (
	"encoding/binary"
	"log/slog"
	"math/bits"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/huskvm/husk/devices/virtio"
	"github.com/huskvm/husk/devices/virtio/virtiotest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func memory() *virtiotest.Memory { return virtiotest.NewMemory(1<<32, 1<<20) }

func TestTransport(t *testing.T) {
	virtiotest.TestTransport(t, func(t testing.TB, e *virtiotest.Echo, mem *virtiotest.Memory) virtiotest.Transport {
		return driver{newRig(t, e, mem)}
	})
}

func TestIdentity(t *testing.T) {
	r := newRig(t, &virtiotest.Echo{}, memory())
	require.EqualValues(t, 0x200, Size)
	require.EqualValues(t, 0x74726976, r.load32(0))
	require.EqualValues(t, 2, r.load32(4))
	require.EqualValues(t, 4, r.load32(8), "entropy")
	require.EqualValues(t, 0x1af4, r.load32(0xc))
	for _, low := range []uint64{0xb0, 0xb8} {
		r.store32(0xac, 1)
		require.Equal(t, []uint32{0xffffffff, 0xffffffff}, []uint32{r.load32(low), r.load32(low + 4)}, "no shared memory")
	}
}

// TestOnlyWholeRegisters: what is not 32 bits, aligned, reads as ones and
// changes nothing (§4.2.2.2).
func TestOnlyWholeRegisters(t *testing.T) {
	g, r := start(t)
	for off := range uint64(configAt) {
		for _, width := range []int{1, 2, 4, 8} {
			if width == 4 && off%4 == 0 {
				continue
			}
			p, ones := make([]byte, width), make([]byte, width)
			for i := range ones {
				ones[i] = 0xff
			}
			r.store(off, p)
			if off+uint64(width) <= configAt { // the rest is the configuration's
				r.bus.Load(base+off, p)
				require.Equal(t, ones, p, "%d bytes at %#x", width, off)
			}
		}
	}
	require.EqualValues(t, 15, r.load32(0x70))
	g.Say(0, "as before")
}

func start(t testing.TB) (*virtiotest.Guest, *rig) {
	mem := memory()
	r := newRig(t, &virtiotest.Echo{Sizes: []int{8, 4}}, mem)
	g := virtiotest.NewGuest(t, driver{r}, mem)
	g.Start(0)
	return g, r
}

func TestValuesThatDoNotFit(t *testing.T) {
	g, r := start(t)
	r.store32(0x70, 0x100)
	require.EqualValues(t, 15, r.load32(0x70), "not a reset")
	g.Say(0, "as before")

	place := g.Rings[0].State
	for size, status := range map[uint32]uint32{8: 15, 1<<16 | 8: 15 | virtio.StatusNeedsReset} {
		require.True(t, g.Negotiate(0))
		r.store32(0x30, 0)
		r.store32(0x38, size)
		for off, gpa := range map[uint64]uint64{0x80: place.Desc, 0x90: place.Driver, 0xa0: place.Device} {
			r.store32(off, uint32(gpa))
			r.store32(off+4, uint32(gpa>>32))
		}
		r.store32(0x44, 2)
		require.Zero(t, r.load32(0x44), "neither ready nor not")
		r.store32(0x44, 1)
		r.store32(0x70, 15)
		require.Equal(t, status, r.load32(0x70), "size %d", size)
	}
}

func TestNotificationsSignalTheEvent(t *testing.T) {
	r := newRig(t, &virtiotest.Echo{Sizes: []int{8, 4}}, memory())
	r.store32(QueueNotify, 1)
	r.store32(QueueNotify, 2)
	r.store32(QueueNotify, 0xffffffff)
	r.store(QueueNotify, []byte{0, 0})
	require.Equal(t, 0, r.events[0].Count())
	require.Equal(t, 1, r.events[1].Count())
}

// TestQueueReadyTakesAQueueAway as Linux does when it removes a driver, without
// a reset and without RING_RESET.
func TestQueueReadyTakesAQueueAway(t *testing.T) {
	g, r := start(t)
	g.Say(1, "here")
	r.store32(0x30, 1)
	r.store32(0x44, 0)
	require.Zero(t, r.load32(0x44))
	g.Say(0, "the first goes on")
	require.EqualValues(t, 15, r.load32(0x70))
}

// TestTheLineIsUpUntilAcknowledged, by what was seen and no more.
func TestTheLineIsUpUntilAcknowledged(t *testing.T) {
	line := &level{}
	d, err := New(Options{Name: "echo", Device: &virtiotest.Echo{}, Line: line, Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	defer d.Close()
	at := func(off uint64) uint32 {
		p := make([]byte, 4)
		d.Load(off, p)
		return binary.LittleEndian.Uint32(p)
	}
	ack := func(v uint32) { d.Store(0x64, binary.LittleEndian.AppendUint32(nil, v)) }
	d.isr.Interrupt(virtio.ISRQueue).Signal()
	d.isr.Interrupt(virtio.ISRConfig).Signal()
	require.EqualValues(t, 3, at(0x60))
	require.EqualValues(t, 3, at(0x60), "a load takes nothing")
	ack(1)
	require.EqualValues(t, 2, at(0x60))
	require.True(t, line.high)
	ack(1)
	require.True(t, line.high)
	ack(0xffffffff)
	require.False(t, line.high)

	d.isr.Interrupt(virtio.ISRQueue).Signal()
	d.Store(0x70, make([]byte, 4))
	require.Zero(t, at(0x60), "a reset")
	require.False(t, line.high)
}

type level struct{ high bool }

func (l *level) Set(high bool) { l.high = high }

func TestPauseAndClose(t *testing.T) {
	g, r := start(t)
	g.Say(0, "before")
	require.NoError(t, r.Pause(g.Context()))
	g.Rings[0].Add(virtiotest.Out([]byte("x")), virtiotest.In(1))
	g.Publish(0)
	used, err := g.Rings[0].Used()
	require.NoError(t, err)
	require.Nil(t, used)
	r.Resume()
	used, err = g.Rings[0].Await(g.Context())
	require.NoError(t, err)
	g.Rings[0].Free(used)
	g.Say(0, "after")
	r.Close()
	g.Reset()
}

func TestEventsAreOnePerQueue(t *testing.T) {
	_, err := New(Options{Name: "disk", Device: &virtiotest.Echo{Sizes: []int{8}}, Log: slog.New(slog.DiscardHandler)})
	require.ErrorContains(t, err, "disk: ")
	require.ErrorContains(t, err, "1 queues, but 0 kicks")
}

func TestCommandLine(t *testing.T) {
	require.Equal(t, "virtio_mmio.device=0x200@0xd0000400:7", CommandLine(0xd000_0400, 7))
}

// FuzzRegisters stores to registers and loads from them, four bytes of where and
// how, then eight of value, from a running device on. A reset brings it back.
func FuzzRegisters(f *testing.F) {
	step := func(off uint64, p []byte) []byte {
		s := []byte{byte(off), byte(off >> 8), byte(bits.TrailingZeros(uint(len(p)))), 0}
		return append(append(s, p...), make([]byte, 8-len(p))...)
	}
	// What a driver does from reset to reset.
	var seed []byte
	g, r := start(f)
	r.trace = func(off uint64, p []byte) { seed = append(seed, step(off, p)...) }
	g.Start(virtio.FeatRingReset | virtio.FeatEventIdx)
	g.Say(0, "hello")
	g.ResetQueue(1)
	g.Enable(1, 0)
	r.trace = nil
	f.Add(seed)
	f.Add(seed[len(seed)/2:])
	f.Add(step(0x44, make([]byte, 4)))
	f.Fuzz(func(t *testing.T, steps []byte) {
		g, r := start(t)
		for n := 0; len(steps) >= 12 && n < 300; n++ {
			off, how, value := uint64(binary.LittleEndian.Uint16(steps))%Size, steps[2], steps[4:12]
			steps = steps[12:]
			p := value[:1<<(how&3)]
			if how&0x80 != 0 {
				r.bus.Load(base+off, make([]byte, len(p)))
			} else {
				r.bus.Store(base+off, p)
			}
			if how&0x40 != 0 {
				require.NoError(t, r.Pause(g.Context()))
				r.Resume()
			}
		}
		g.Start(virtio.FeatIndirectDesc)
		g.Say(0, "back")
		g.Say(1, "again")
	})
}
