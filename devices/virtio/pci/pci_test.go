package pci

import (
	"errors"
	"log/slog"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/huskvm/husk/devices/eventfd"
	"github.com/huskvm/husk/devices/pci"
	"github.com/huskvm/husk/devices/virtio"
	"github.com/huskvm/husk/devices/virtio/virtiotest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// What the kernel signals is an Event.
var _ virtio.Event = (*eventfd.Event)(nil)

func memory() *virtiotest.Memory { return virtiotest.NewMemory(1<<32, 1<<20) }

func TestTransport(t *testing.T) {
	for name, m := range map[string]mode{
		"MSI-X": {}, "INTx": {intx: true}, "slow doorbells": {slow: true}, "through configuration space": {viaConfig: true},
		"INTx through configuration space": {intx: true, viaConfig: true},
	} {
		t.Run(name, func(t *testing.T) {
			virtiotest.TestTransport(t, func(t testing.TB, e *virtiotest.Echo, mem *virtiotest.Memory) virtiotest.Transport {
				return driver{newRig(t, e, mem, m)}
			})
		})
	}
}

// start starts a device with queues of 8 and 4.
func start(t testing.TB, m mode) (*virtiotest.Guest, *rig) {
	mem := memory()
	e := &virtiotest.Echo{Sizes: []int{8, 4}}
	r := newRig(t, e, mem, m)
	r.echo = e
	g := virtiotest.NewGuest(t, driver{r}, mem)
	g.Start(virtio.FeatRingReset)
	return g, r
}

// typed is a device of some type that is never served.
type typed struct {
	virtiotest.Echo
	kind virtio.Type
}

func (d *typed) Type() virtio.Type { return d.kind }

func TestIdentity(t *testing.T) {
	for kind, class := range map[virtio.Type]uint32{
		virtio.Net: 0x020000, virtio.Block: 0x010000, virtio.Console: 0x078000, virtio.Entropy: 0x00ff00,
		virtio.Balloon: 0x00ff00, virtio.Socket: 0x078000, virtio.FS: 0x018000,
	} {
		d := &typed{kind: kind}
		d.Sizes = []int{8}
		r := newRig(t, d, memory(), mode{})
		id := 0x1040 + uint32(kind)
		require.Equal(t, id<<16|0x1af4, r.conf(0, 4))
		require.Equal(t, id<<16|0x1af4, r.conf(0x2c, 4), "subsystem")
		require.Equal(t, class<<8|1, r.conf(8, 4))
		require.EqualValues(t, 1, r.conf(0x3d, 1), "INTA#")
	}
}

// TestStructures: each is in pages of its own, inside of the BAR, and has room
// for what it must (§4.1.4).
func TestStructures(t *testing.T) {
	for queues, size := range map[int]uint64{0: 0x4000, 1: 0x4000, 1024: 0x4000, 1025: 0x8000, 2047: 0x8000} {
		e := &virtiotest.Echo{}
		for range queues {
			e.Sizes = append(e.Sizes, 1)
		}
		r := newRig(t, e, memory(), mode{})
		r.setConf(regCommand, 2, 0)
		r.setBAR(registersBAR, 1<<64-1)
		require.EqualValues(t, -size, uint64(r.conf(regBAR+4, 4))<<32|uint64(r.conf(regBAR, 4)&^0xf), "%d queues", queues)
		require.EqualValues(t, 0xc, r.conf(regBAR, 4)&0xf, "64 bits, prefetchable")
		pages := map[uint64]uint8{}
		for kind, s := range r.found {
			if kind == capWindow {
				continue
			}
			require.NotContains(t, pages, s.off/page)
			pages[s.off/page] = kind
			require.Zero(t, s.off%page)
			require.LessOrEqual(t, s.off+s.length, size)
		}
		require.EqualValues(t, 4, r.multiplier)
		require.GreaterOrEqual(t, r.found[capNotify].length, max(uint64(4*queues), 2))
		require.GreaterOrEqual(t, r.found[capCommon].length, uint64(0x3c))
		require.EqualValues(t, queues, r.conf(r.msixAt+2, 2)&0x7ff, "vectors less one")
		require.EqualValues(t, msixBAR, r.conf(r.msixAt+4, 4))
		require.Equal(t, queues+1, Vectors(e))
	}
}

func TestWhatCannotBePlugged(t *testing.T) {
	r := newRig(t, &virtiotest.Echo{}, memory(), mode{})
	log := slog.New(slog.DiscardHandler)
	_, err := New(Options{Name: "disk", Device: &virtiotest.Echo{Sizes: []int{8}}, Log: log})
	require.ErrorContains(t, err, "disk: a virtio device with 1 queues, but 0 kicks")
	root, err := pci.NewRoot(pci.RootConfig{Memory: r.mmio, IO: r.mmio, Log: log})
	require.NoError(t, err)
	_, err = New(Options{Name: "disk", Root: root, Slot: 1, Device: &virtiotest.Echo{}, Vectors: &r.sink, Log: log})
	require.ErrorIs(t, err, pci.ErrConfig)
	require.ErrorContains(t, err, "INTx")
}

// TestABARMovesWhileTheDeviceRuns: notifications arrive at the new place, and no
// longer at the old one.
func TestABARMovesWhileTheDeviceRuns(t *testing.T) {
	for name, m := range map[string]mode{"fast": {}, "slow": {slow: true}, "INTx": {intx: true}} {
		t.Run(name, func(t *testing.T) {
			g, r := start(t, m)
			for i := range uint64(20) {
				base := uint64(window) + (i%7)*0x4000
				r.setBAR(registersBAR, base)
				r.base.Store(base)
				if m.slow {
					require.Empty(t, r.bells.all())
				} else {
					require.Equal(t, map[uint64]int{base + notifyAt: 0, base + notifyAt + 4: 1}, r.bells.all())
				}
				g.Say(0, "here")
				g.Say(1, "and here")
			}
			r.setConf(regCommand, 2, uint32(pci.CommandBusMaster))
			require.Empty(t, r.bells.all(), "nothing is decoded")
			require.EqualValues(t, 0xff, r.get(0x14, 1))
			r.start()
			g.Say(0, "back")
		})
	}
}

// TestABARMovesUnderTraffic has both at once: a notification that falls between
// the places may be lost, as it may on hardware, but not the device.
func TestABARMovesUnderTraffic(t *testing.T) {
	g, r := start(t, mode{})
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				r.mmio.Store(home+notifyAt, []byte{0, 0})
				r.mmio.Load(home, make([]byte, 4))
				r.mmio.Load(home+configAt, make([]byte, 4))
			}
		}
	})
	for i := range uint64(200) {
		r.setBAR(registersBAR, window+(i%3)*0x4000)
	}
	close(stop)
	wg.Wait()
	r.start()
	g.Say(0, "still there")
}

func TestADoorbellThatCannotBeBoundIsSlow(t *testing.T) {
	g, r := start(t, mode{})
	r.bells.fail = errors.New("no more room")
	r.setBAR(registersBAR, window+0x4000)
	r.base.Store(window + 0x4000)
	require.Empty(t, r.bells.all())
	require.Contains(t, r.log.String(), "no more room")
	g.Say(0, "slowly")
	r.bells.fail = nil
	r.start()
	g.Say(0, "fast")
}

func TestPauseAndClose(t *testing.T) {
	g, r := start(t, mode{})
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
