package virtio_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/devices/virtio"
	"github.com/huskvm/husk/devices/virtio/queue"
	"github.com/huskvm/husk/devices/virtio/virtiotest"
)

func TestConfigurationAndItsGeneration(t *testing.T) {
	e := &echo{queues: []int{8}, config: []byte{1, 2, 3, 4}}
	d := virtiotest.NewDriver(t, e, nil)
	require.Equal(t, []byte{1, 2, 3, 4, 0xff, 0xff}, d.Config(6))
	p := []byte{0, 0}
	d.State.LoadConfig(^uint64(0), p)
	require.Equal(t, []byte{0xff, 0xff}, p)

	generation := d.State.ConfigGeneration()
	d.State.LoadConfig(0, p)
	require.Equal(t, generation, d.State.ConfigGeneration(), "nothing changed")
	e.setConfig([]byte{1, 2, 3, 5})
	d.State.LoadConfig(2, p)
	require.Equal(t, []byte{3, 5}, p)
	require.NotEqual(t, generation, d.State.ConfigGeneration(), "half of it is old")

	d.State.StoreConfig(1, []byte{9, 8})
	require.Equal(t, []byte{1, 9, 8, 5}, d.Config(4))
	d.State.StoreConfig(3, []byte{9, 8})
	d.State.StoreConfig(^uint64(0), []byte{9, 8})
	d.State.StoreConfig(4, []byte{9})
	require.Equal(t, []byte{1, 9, 8, 5}, d.Config(4), "across the end")

	d.Start(all)
	require.Eventually(t, func() bool { return e.session.Load() != nil }, time.Minute, time.Millisecond)
	e.session.Load().ConfigChanged()
	require.Equal(t, 1, d.ConfigInterrupt.Count())
}

func TestTheTransportIsResetBeforeTheDriverSeesIt(t *testing.T) {
	mem := virtiotest.NewMemory(1<<32, 1<<20)
	resets := 0
	var s *virtio.State
	s, err := virtio.NewState(virtio.Config{
		Device: &echo{}, Memory: mem, ConfigInterrupt: virtiotest.NewSignal(),
		OnReset: func() { resets++ },
	})
	require.NoError(t, err)
	defer s.Close()
	s.SetStatus(1)
	require.EqualValues(t, 1, s.Status())
	s.SetStatus(0)
	require.Zero(t, s.Status())
	require.Equal(t, 1, resets)
}

func TestMistakesOfADeviceAreRefused(t *testing.T) {
	for _, c := range []virtio.Config{
		{Device: &echo{queues: []int{8}}},
		{Device: &echo{queues: []int{7}}, Kicks: make([]queue.Kick, 1), Interrupts: make([]queue.Interrupt, 1)},
		{Device: &echo{queues: []int{65536}}, Kicks: make([]queue.Kick, 1), Interrupts: make([]queue.Interrupt, 1)},
	} {
		_, err := virtio.NewState(c)
		require.Error(t, err)
	}
}
