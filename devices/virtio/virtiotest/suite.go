package virtiotest

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/devices/virtio"
)

// all are the features of queues.
const all = virtio.FeatIndirectDesc | virtio.FeatEventIdx | virtio.FeatRingReset

// TestTransport has a transport do what any must. open puts an Echo behind it,
// which is closed when t ends.
func TestTransport(t *testing.T, open func(t testing.TB, e *Echo, mem *Memory) Transport) {
	guest := func(t testing.TB, sizes ...int) (*Guest, *Echo) {
		e := &Echo{Sizes: sizes}
		mem := NewMemory(1<<32, 1<<22)
		return NewGuest(t, open(t, e, mem), mem), e
	}
	for name, test := range map[string]func(*testing.T, *Guest, *Echo){
		"features": features, "requests": requests, "resets": resets, "ring resets": ringResets,
		"bad chain": badChain, "configuration": configuration, "queues": queues,
	} {
		t.Run(name, func(t *testing.T) {
			g, e := guest(t, 8, 4)
			test(t, g, e)
		})
	}
}

func features(t *testing.T, g *Guest, e *Echo) {
	require.EqualValues(t, EchoFeature|1<<28|1<<29|1<<32|1<<40, g.Offered())
	g.Store(DeviceFeatureSelect, 2)
	require.Zero(t, g.Load(DeviceFeatures))
	require.True(t, g.Negotiate(EchoFeature))
	require.False(t, g.Negotiate(EchoFeature<<1), "was not offered")
	require.EqualValues(t, 3, g.Load(Status))
	g.Reset()
	require.Equal(t, []uint64{0, EchoFeature | 1<<32, 0, 0}, e.negotiated)
}

// requests are done under all features, one after the other and many at once.
func requests(t *testing.T, g *Guest, _ *Echo) {
	for _, f := range []uint64{0, virtio.FeatIndirectDesc, virtio.FeatEventIdx, all} {
		g.Start(f)
		require.EqualValues(t, 15, g.Load(Status))
		for range 20 {
			g.Say(0, "first")
			g.Say(1, "second")
		}
		r := g.Rings[0]
		for range 20 {
			for r.Room() >= 2 {
				r.Add(Out([]byte("many")), In(8))
			}
			g.Publish(0)
			for r.Room() < int(r.State.Size) {
				q, err := r.Await(g.Context())
				require.NoError(t, err)
				require.EqualValues(t, 4, q.Written)
				r.Free(q)
			}
		}
		require.EqualValues(t, 15, g.Load(Status))
	}
}

// resets come while requests are under way.
func resets(t *testing.T, g *Guest, e *Echo) {
	for range 20 {
		g.Start(all)
		g.Say(1, "hello")
		for g.Rings[0].Room() > 0 {
			g.Rings[0].Add(Out([]byte("in mid-flight")), In(16))
		}
		g.Publish(0)
		g.Reset()
		require.False(t, e.Serving(), "the driver sees 0, so the device rests")
		g.Store(QueueSelect, 0)
		require.Zero(t, g.Load(QueueEnable))
		g.Notify(0)
		g.Notify(1)
	}
}

func ringResets(t *testing.T, g *Guest, _ *Echo) {
	g.Start(all)
	for range 20 {
		g.Say(0, "first")
		g.Say(1, "second")
		g.Rings[1].Add(Out([]byte("in mid-flight")), In(16))
		g.Publish(1)
		g.ResetQueue(1)
		require.EqualValues(t, 4, g.Load(QueueMax))
		g.Say(0, "the first goes on")
		g.Enable(1, all)
	}
	g.Say(1, "at last")

	g.Start(all &^ virtio.FeatRingReset)
	g.Store(QueueSelect, 1)
	g.Store(QueueReset, 1)
	require.EqualValues(t, 1, g.Load(QueueEnable), "was not negotiated")
	g.Say(1, "goes on")
}

func badChain(t *testing.T, g *Guest, _ *Echo) {
	for range 3 {
		g.Start(all)
		g.Say(0, "good")
		g.Rings[0].Offer(99)
		g.Publish(0)
		g.awaitConfig()
		require.EqualValues(t, 15|virtio.StatusNeedsReset, g.Load(Status))
	}
	g.Start(all)
	g.Say(0, "good again")
}

func (g *Guest) awaitConfig() {
	g.t.Helper()
	select {
	case <-g.ConfigInterrupt.C():
	case <-g.Context().Done():
		require.Fail(g.t, "no interrupt for the configuration")
	}
}

func configuration(t *testing.T, g *Guest, e *Echo) {
	want := []byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}
	e.SetConfig(want)
	for _, width := range []int{1, 2, 4, 8} {
		for off := 0; off+width <= len(want); off++ {
			p := make([]byte, width)
			g.LoadConfig(off, p)
			require.Equal(t, want[off:off+width], p)
		}
	}
	p := make([]byte, 4)
	g.LoadConfig(8, p)
	require.Equal(t, []byte{9, 10, 0xff, 0xff}, p, "across its end")
	g.LoadConfig(252, p)
	require.Equal(t, []byte{0xff, 0xff, 0xff, 0xff}, p)

	g.StoreConfig(4, []byte{0xaa})
	g.StoreConfig(6, []byte{0xbb, 0xcc})
	g.StoreConfig(8, []byte{1, 1, 1, 1}) // across its end
	p = make([]byte, 8)
	g.LoadConfig(2, p)
	require.Equal(t, []byte{3, 4, 0xaa, 6, 0xbb, 0xcc, 9, 10}, p)

	g.Start(all)
	require.Eventually(t, e.Serving, time.Minute, time.Millisecond)
	for i := range byte(20) {
		generation := g.Load(Generation)
		e.SetConfig([]byte{i})
		g.awaitConfig()
		require.NotEqual(t, generation, g.Load(Generation))
		p := []byte{0xff}
		g.LoadConfig(0, p)
		require.Equal(t, i, p[0])
	}
	g.Say(0, "still there")
}

// queues are set up as the driver wants, and one that does not exist is not.
func queues(t *testing.T, g *Guest, _ *Echo) {
	require.True(t, g.Negotiate(0))
	for i := range uint32(4) {
		g.Store(QueueSelect, i)
		require.Equal(t, []uint32{8, 4, 0, 0}[i], g.Load(QueueMax))
		require.Zero(t, g.Load(QueueEnable))
	}
	for _, r := range []Register{QueueSize, QueueDesc, QueueDriverHigh, QueueDevice, QueueEnable} {
		g.Store(r, 1)
	}
	require.Zero(t, g.Load(QueueEnable))
	g.Notify(3)
	require.EqualValues(t, 11, g.Load(Status))

	g.Store(QueueSelect, 0)
	g.Store(QueueSize, 6) // no power of two
	g.Store(QueueEnable, 1)
	g.Store(Status, 15)
	require.EqualValues(t, 15|virtio.StatusNeedsReset, g.Load(Status))

	g.Reset()
	g.Store(QueueSelect, 0)
	require.EqualValues(t, 8, g.Load(QueueMax), "its size is the largest again")
}
