package virtio_test

import (
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/huskvm/husk/devices/virtio"
	"github.com/huskvm/husk/devices/virtio/queue"
	"github.com/huskvm/husk/devices/virtio/virtiotest"
)

// model is what the registers should be, told without goroutines.
type model struct {
	status uint8
	acked  uint64
	above  bool // a feature above 63 was accepted
	queues [2]queue.State
	paused bool
}

func (m *model) reset() {
	*m = model{paused: m.paused}
	for i := range m.queues {
		m.queues[i] = queue.State{Size: 8}
	}
}

func (m *model) good(q queue.State) bool {
	return q.Size == 8 && q.Desc != 0 && q.Driver != 0 && q.Device != 0
}

// runs tells whether the device is served. It also faults a device that would be
// and cannot.
func (m *model) runs() bool {
	if m.paused || m.status&virtio.StatusDriverOK == 0 || m.status&(virtio.StatusFailed|virtio.StatusNeedsReset) != 0 {
		return false
	}
	for _, q := range m.queues {
		if q.Enabled && !m.good(q) {
			m.status |= virtio.StatusNeedsReset
			return false
		}
	}
	return true
}

func (m *model) setStatus(v uint8, offered uint64) {
	if v == 0 {
		m.reset()
		return
	}
	m.status |= v & virtio.StatusFailed
	if m.status&virtio.StatusFailed != 0 {
		return
	}
	has := func(bit uint8) bool { return m.status&bit != 0 }
	m.status |= v & virtio.StatusAcknowledge
	if has(virtio.StatusAcknowledge) {
		m.status |= v & virtio.StatusDriver
	}
	if has(virtio.StatusDriver) && m.acked&^offered == 0 && !m.above && m.acked&virtio.FeatVersion1 != 0 {
		m.status |= v & virtio.StatusFeaturesOK
	}
	if has(virtio.StatusFeaturesOK) {
		m.status |= v & virtio.StatusDriverOK
	}
}

// TestStateFollowsTheModel does what a driver may do and must not, in any order.
func TestStateFollowsTheModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := &echo{queues: []int{8, 8}}
		mem := virtiotest.NewMemory(1<<32, 1<<20)
		rings := [2]*virtiotest.Ring{}
		var kicks []queue.Kick
		var interrupts []queue.Interrupt
		for i := range rings {
			rings[i] = virtiotest.NewRing(mem, 8, queue.Features{})
			kicks, interrupts = append(kicks, rings[i].Kick), append(interrupts, rings[i].Interrupt)
		}
		config := virtiotest.NewSignal()
		s, err := virtio.NewState(virtio.Config{
			Device: e, Memory: mem, Features: virtio.FeatRingReset, Kicks: kicks, Interrupts: interrupts, ConfigInterrupt: config,
		})
		require.NoError(t, err)
		defer s.Close()
		offered := e.Features() | virtio.FeatVersion1 | virtio.FeatEventIdx | virtio.FeatIndirectDesc | virtio.FeatRingReset
		var m model
		m.reset()

		selected := 0
		selectQueue := func(t *rapid.T) {
			selected = rapid.IntRange(0, 1).Draw(t, "queue")
			s.SetQueueSelect(uint32(selected))
		}
		settable := func() bool { return !m.queues[selected].Enabled }
		stop := func() { m.queues[selected] = queue.State{Size: 8} }
		t.Repeat(map[string]func(*rapid.T){
			"status": func(t *rapid.T) {
				v := rapid.SampledFrom([]uint8{0, 1, 2, 3, 4, 8, 11, 11, 15, 15, 15, 64, 0x4f, 128, 255}).Draw(t, "status")
				s.SetStatus(v)
				m.setStatus(v, offered)
			},
			"features": func(t *rapid.T) {
				selector := rapid.Uint32Range(0, 2).Draw(t, "selector")
				v := rapid.SampledFrom([]uint32{0, 1, 1, 1 | 1<<8, 1 << 5, 1 << 6}).Draw(t, "features")
				s.SetDriverFeatureSelect(selector)
				s.SetDriverFeatures(v)
				if m.status&virtio.StatusFeaturesOK != 0 {
					return
				}
				if selector == 2 {
					m.above = m.above || v != 0
					return
				}
				shift := 32 * selector
				m.acked = m.acked&^(0xffffffff<<shift) | uint64(v)<<shift
				require.Equal(t, v, s.DriverFeatures())
			},
			"place": func(t *rapid.T) {
				selectQueue(t)
				r := virtiotest.NewRing(mem, 8, queue.Features{})
				for a, gpa := range []uint64{r.State.Desc, r.State.Driver, r.State.Device} {
					s.SetQueueAddress(virtio.Area(a), true, uint32(gpa>>32))
					s.SetQueueAddress(virtio.Area(a), false, uint32(gpa))
				}
				if settable() {
					q := &m.queues[selected]
					q.Desc, q.Driver, q.Device = r.State.Desc, r.State.Driver, r.State.Device
				}
			},
			"size": func(t *rapid.T) {
				selectQueue(t)
				n := rapid.SampledFrom([]uint16{8, 8, 8, 7, 16}).Draw(t, "size")
				s.SetQueueSize(n)
				if settable() {
					m.queues[selected].Size = n
				}
			},
			"enable": func(t *rapid.T) {
				selectQueue(t)
				s.EnableQueue()
				if settable() && (m.status&virtio.StatusDriverOK == 0 || m.acked&virtio.FeatRingReset != 0) {
					m.queues[selected].Enabled = true
				}
			},
			"disable": func(t *rapid.T) {
				selectQueue(t)
				s.DisableQueue()
				stop()
			},
			"reset queue": func(t *rapid.T) {
				selectQueue(t)
				s.ResetQueue()
				if m.acked&virtio.FeatRingReset != 0 && m.status&virtio.StatusFeaturesOK != 0 {
					stop()
				}
			},
			"a queue that is not": func(*rapid.T) {
				s.SetQueueSelect(2)
				s.SetQueueSize(4)
				s.SetQueueAddress(virtio.DescriptorArea, false, 4096)
				s.EnableQueue()
				s.ResetQueue()
				s.DisableQueue()
				require.Equal(t, queue.State{}, s.QueueState())
				require.Zero(t, s.QueueMax())
				require.False(t, s.QueueResetting())
				s.SetQueueSelect(uint32(selected))
			},
			"pause": func(t *rapid.T) {
				require.NoError(t, s.Pause(t.Context()))
				m.paused = true
				require.Zero(t, e.serving.Load())
			},
			"resume": func(*rapid.T) {
				s.Resume()
				m.paused = false
			},
			"": func(t *rapid.T) {
				want := int64(0)
				if m.runs() {
					want = 1
				}
				for end := time.Now().Add(time.Minute); e.serving.Load() != want && time.Now().Before(end); {
					runtime.Gosched()
				}
				require.Equal(t, want, e.serving.Load(), "served")
				require.Equal(t, m.status, s.Status())
				for i, q := range m.queues {
					s.SetQueueSelect(uint32(i))
					require.Equal(t, q, s.QueueState(), "queue %d", i)
				}
				s.SetQueueSelect(uint32(selected))
				if m.status&virtio.StatusNeedsReset != 0 {
					require.NotZero(t, config.Count())
				}
			},
		})
	})
}
