package net

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/devices/ethernet"
	"github.com/huskvm/husk/devices/pace"
	"github.com/huskvm/husk/devices/virtio"
	"github.com/huskvm/husk/devices/virtio/virtiotest"
)

// TestWhenATurnIsOver: patience must make the difference between one frame at a time
// and several.
func TestWhenATurnIsOver(t *testing.T) {
	p := pace.Own()
	defer p.Release()
	if !p.SetPatient(true) {
		t.Skip("the thread is not ours to change")
	}
	for name, c := range map[string]struct {
		before, after int // frames at a time, as the kernel's thread would find them, and with patience
		size          int // of each
		windows       int // of looks rests, until the turn is over
		paid          bool
	}{
		"one at a time anyway":        {1, 1, data, 2, false},
		"several at a time anyway":    {3, 0, data, 1, false},
		"several, by patience":        {1, 2, data, 5, true},
		"several, by patience, a lot": {1, 50, 65000, 5, true},
		"acknowledgements":            {1, 50, 66, 1, false},
	} {
		p.SetPatient(false)
		over := false
		turn := &turnPace{thread: p, end: func() { over = true }}
		windows := 0
		for ; !over; windows++ {
			frames := c.before
			switch {
			case windows == 4: // what was to be sent is
				frames = 1
			case windows > 0:
				frames = c.after
			}
			for range looks {
				require.False(t, over, name)
				for range frames {
					turn.Took()
					turn.sent(c.size)
				}
				turn.Rest()
			}
		}
		require.Equal(t, c.windows, windows, name)
		require.Equal(t, c.paid, turn.paid, name)
	}
}

// TestTurns go on under traffic, and no frame is lost between two of them. The kernel
// here does nothing, so what comes in its turn waits for ours.
func TestTurns(t *testing.T) {
	k := newKernel()
	c := newServedCard(t, 1, k)
	c.d.info.Threads = true
	c.Start(everything &^ featMQ)
	f := newFrame(ethernet.Header{}, 60)
	lane := c.link.lanes[0]
	for range 6 * looks {
		c.send(virtiotest.Out(f))
		require.Equal(t, f[ethernet.HeaderSize:], (<-lane.sent)[1])
	}
	k.mu.Lock()
	require.GreaterOrEqual(t, k.turns[1], 3, "one frame at a time is for the kernel")
	require.Equal(t, 1, k.turns[0], "to receive is always")
	k.mu.Unlock()
	require.NoError(t, c.State.Pause(c.Context()))
	c.serves(k)
	c.State.Resume()
	c.serves(k, 0, 1)
	c.send(virtiotest.Out(f))
	c.Reset()
	c.serves(k)
}

// TestAFaultInATurn is one of the device.
func TestAFaultInATurn(t *testing.T) {
	k := newKernel()
	c := newServedCard(t, 1, k)
	c.d.info.Threads = true
	c.Start(everything &^ featMQ)
	c.serves(k, 0) // our turn
	c.Rings[1].SetDescriptor(0, virtiotest.Descriptor{Addr: 1, Len: 100})
	c.Rings[1].Offer(0)
	c.Rings[1].Publish()
	<-c.ConfigInterrupt.C()
	require.EqualValues(t, 15|virtio.StatusNeedsReset, c.State.Status())
	c.serves(k)
}
