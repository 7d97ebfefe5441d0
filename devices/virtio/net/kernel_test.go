package net

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/devices/ethernet"
	"github.com/huskvm/husk/devices/virtio"
	"github.com/huskvm/husk/devices/virtio/queue"
	"github.com/huskvm/husk/devices/virtio/virtiotest"
)

// A fakeKernel serves queues by waiting, until fail has an error for it.
type fakeKernel struct {
	fail chan error

	mu      sync.Mutex
	serving map[int]ethernet.Descriptor
	turns   map[int]int // by queue, how often it began to
}

func newKernel() *fakeKernel {
	return &fakeKernel{fail: make(chan error, 1), serving: map[int]ethernet.Descriptor{}, turns: map[int]int{}}
}

func (k *fakeKernel) Serve(ctx context.Context, i int, features uint64, q *queue.Queue, lane ethernet.Descriptor) error {
	if features&virtio.FeatVersion1 == 0 {
		return fmt.Errorf("features %#x", features)
	}
	lent := q.Lend()
	k.mu.Lock()
	k.serving[i] = lane
	k.turns[i]++
	k.mu.Unlock()
	defer func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		delete(k.serving, i)
		q.TakeBack(lent.Next)
	}()
	select {
	case err := <-k.fail:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// serves waits until the kernel serves those queues, from their lanes, and no other.
func (c *card) serves(k *fakeKernel, want ...int) {
	c.t.Helper()
	c.eventually(fmt.Sprint("the kernel serves ", want), func() bool {
		k.mu.Lock()
		defer k.mu.Unlock()
		var got []int
		for i, lane := range k.serving {
			if lane == ethernet.Descriptor(c.link.lanes[i/2]) {
				got = append(got, i)
			}
		}
		slices.Sort(got)
		return slices.Equal(got, want)
	})
}

// everything is what a driver takes that the kernel can serve.
const everything = common | featMrgRxbuf | featCsum | featHostTSO4 | guestOffloads | featStatus | featCtrlVQ | featMQ

func TestTheKernelServesTheQueuesInUse(t *testing.T) {
	k := newKernel()
	c := newServedCard(t, 3, k)
	c.Start(everything)
	c.serves(k, 0, 1, 3, 5)
	require.EqualValues(t, ackOK, c.command(6, 4, 0, 3, 0), "the control queue is ours")
	c.serves(k, 0, 1, 2, 3, 4, 5)
	require.EqualValues(t, ackOK, c.command(6, 4, 0, 2, 0))
	c.serves(k, 0, 1, 2, 3, 5)
	require.Equal(t, 2, c.link.attached())
	require.NoError(t, c.State.Pause(c.Context()))
	c.serves(k)
	c.State.Resume()
	c.serves(k, 0, 1, 2, 3, 5)
	c.State.SetQueueSelect(3)
	c.State.DisableQueue()
	c.serves(k, 0, 1, 2, 5)
	c.Reset()
	c.serves(k)
	for _, lane := range c.link.lanes {
		require.Zero(t, lane.calls(), "nobody else receives")
	}
	require.Empty(t, c.log.String())
}

// TestADriverThatTakesLess than the kernel would give is served by us.
func TestADriverThatTakesLess(t *testing.T) {
	k := newKernel()
	c := newServedCard(t, 1, k)
	for _, less := range []uint64{featMrgRxbuf, featGuestCsum, featGuestTSO4, featGuestTSO6, featGuestECN} {
		c.Start(everything &^ (less | featMQ))
		f := newFrame(ethernet.Header{}, 60)
		c.link.lanes[0].give(f)
		c.provide(1, 1526)
		c.received(f, 1)
		c.serves(k)
	}
	require.Contains(t, c.log.String(), "husk serves its queues")
	c.Start(everything &^ featMQ)
	c.serves(k, 0, 1)
}

func TestALinkThatGoesUnderTheKernel(t *testing.T) {
	k := newKernel()
	c := newServedCard(t, 1, k)
	c.Start(everything &^ featMQ)
	c.serves(k, 0, 1)
	c.link.lanes[0].fail(errGone)
	select {
	case <-c.ConfigInterrupt.C():
	case <-time.After(time.Minute):
		t.Fatal("the guest is not told")
	}
	require.Zero(t, c.Config(7)[configStatus]&statusLinkUp)
	c.serves(k, 0, 1)
	k.fail <- queue.ErrBadRing
	c.eventually("one is ours", func() bool { k.mu.Lock(); defer k.mu.Unlock(); return len(k.serving) == 1 })
	k.fail <- queue.ErrBadRing
	c.serves(k)
	c.link.lanes[0].failSends(ethernet.ErrDropped)
	c.send(virtiotest.Out(newFrame(ethernet.Header{}, 60)))
	require.EqualValues(t, 15, c.State.Status(), "the device goes on")
	c.Start(everything &^ featMQ)
	c.send(virtiotest.Out(newFrame(ethernet.Header{}, 60)))
	c.serves(k)
}

func TestARingThatTheKernelCannotFollow(t *testing.T) {
	k := newKernel()
	c := newServedCard(t, 1, k)
	c.Start(everything &^ featMQ)
	c.serves(k, 0, 1)
	k.fail <- queue.ErrBadRing
	<-c.ConfigInterrupt.C()
	require.EqualValues(t, 15|virtio.StatusNeedsReset, c.State.Status())
	c.serves(k)
	c.Start(everything &^ featMQ)
	c.serves(k, 0, 1)
}
