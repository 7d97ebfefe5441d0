package pci

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/devices/virtio/queue"
)

// FD implements pci.Descriptors.
func (s *sink) FD(vector int) int { return 100 + vector }

// TestAnInterruptIsFollowed through all that moves it: the queue's vector, masks,
// and the reset of queue and device.
func TestAnInterruptIsFollowed(t *testing.T) {
	g, r := start(t, mode{})
	mask := func(vector uint64, v byte) { r.mmio.Store(msixHome+16*vector+12, []byte{v, 0, 0, 0}) }
	vector := func(v uint32) {
		r.put(0x16, 2, 1)
		r.put(0x1a, 2, v)
	}
	var direct queue.Direct = queueInterrupt{r.Device, 1, nil}
	var heard []int
	stop := direct.Follow(func(fd int) { heard = append(heard, fd) })
	now := func(want ...int) {
		t.Helper()
		require.Equal(t, want, append([]int(nil), heard...))
		heard = nil
	}
	now(102) // as the driver has set it
	mask(2, 1)
	mask(2, 1)
	now(-1)
	mask(2, 0)
	now(102)
	mask(1, 1)
	mask(1, 0)
	now()
	vector(1)
	now(101)
	vector(noVector)
	now(-1)
	vector(2)
	now(102)
	g.ResetQueue(1)
	now(-1)
	vector(2)
	now(102)
	g.Reset()
	now(-1)
	stop()
	vector(2)
	now()
}

// TestWithoutMSIX there is no eventfd that would do.
func TestWithoutMSIX(t *testing.T) {
	_, r := start(t, mode{intx: true})
	stop := queueInterrupt{r.Device, 1, nil}.Follow(func(fd int) { require.Equal(t, -1, fd) })
	stop()
}
