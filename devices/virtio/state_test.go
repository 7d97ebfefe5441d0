package virtio_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/huskvm/husk/devices/virtio"
	"github.com/huskvm/husk/devices/virtio/queue"
	"github.com/huskvm/husk/devices/virtio/virtiotest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo is a device that copies the readable part of a request to its writable
// part. It keeps count of what happens to it.
type echo struct {
	queues []int
	// drain, if not nil, keeps Serve from returning until it is closed.
	drain chan struct{}
	// fail, if not nil, is what Serve returns at once.
	fail error

	mu     sync.Mutex
	config []byte
	wce    []uint64 // what Negotiated got

	serving, started atomic.Int64
	session          atomic.Pointer[virtio.Session]
}

func (e *echo) Type() virtio.Type { return virtio.Entropy }
func (e *echo) Features() uint64  { return 1 << 5 }
func (e *echo) QueueSizes() []int { return e.queues }

func (e *echo) Config(p []byte) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return copy(p, e.config)
}

func (e *echo) StoreConfig(off int, p []byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	copy(e.config[off:], p)
}

func (e *echo) Negotiated(features uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.wce = append(e.wce, features)
}

func (e *echo) Serve(ctx context.Context, s *virtio.Session) error {
	if e.serving.Add(1) != 1 {
		panic("served twice at a time")
	}
	defer e.serving.Add(-1)
	e.started.Add(1)
	e.session.Store(s)
	if e.fail != nil {
		return e.fail
	}
	err := s.ServeQueues(ctx, func(ctx context.Context, _ int, q *queue.Queue) error {
		for {
			c, err := q.Take(ctx)
			if err != nil {
				return err
			}
			b := make([]byte, queue.Len(c.Out))
			_, _ = c.Read(b)
			n, _ := c.Write(b)
			q.Push(c, uint32(n))
		}
	})
	if e.drain != nil {
		<-e.drain
	}
	return err
}

func (e *echo) setConfig(b []byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.config = b
}

const all = virtio.FeatIndirectDesc | virtio.FeatEventIdx | virtio.FeatRingReset

func say(t *testing.T, r *virtiotest.Ring, d *virtiotest.Driver, text string) {
	t.Helper()
	got, err := r.Do(d.Context(), virtiotest.Out([]byte(text)), virtiotest.In(len(text)+1))
	require.NoError(t, err)
	require.Equal(t, text, string(got))
}

func TestADeviceIsServedFromDriverOKToReset(t *testing.T) {
	e := &echo{queues: []int{8, 4}}
	d := virtiotest.NewDriver(t, e, nil)
	for range 20 {
		d.Start(all)
		require.Zero(t, d.State.Status()&virtio.StatusNeedsReset)
		say(t, d.Rings[0], d, "first")
		say(t, d.Rings[1], d, "second")
		d.Reset()
		require.Zero(t, e.serving.Load(), "the driver sees 0, so the device rests")
	}
}

func TestFeaturesOfTheQueueAreAddedToTheDevices(t *testing.T) {
	d := virtiotest.NewDriver(t, &echo{}, nil)
	require.EqualValues(t, 1<<5|1<<28|1<<29|1<<32|1<<40, d.Offered())
	d.State.SetDeviceFeatureSelect(2)
	require.Zero(t, d.State.DeviceFeatures())
}

func TestFeaturesAreNegotiated(t *testing.T) {
	var log bytes.Buffer
	e := &echo{queues: []int{8}}
	d := virtiotest.NewDriver(t, e, slog.New(slog.NewTextHandler(&log, nil)))
	require.True(t, d.Negotiate(0))
	require.True(t, d.Negotiate(1<<5))
	require.Equal(t, []uint64{0, 1 << 32, 0, 1<<5 | 1<<32}, e.wce)
	require.Empty(t, log.String())
	require.False(t, d.Negotiate(1<<6), "was not offered")
	require.Contains(t, log.String(), "refused")
	lines := strings.Count(log.String(), "\n")

	accept := func(selector, v uint32) {
		d.State.SetDriverFeatureSelect(selector)
		d.State.SetDriverFeatures(v)
	}
	begin := func() {
		d.Reset()
		d.State.SetStatus(1)
		d.State.SetStatus(3)
	}
	begin()
	accept(0, 1<<5)
	d.State.SetStatus(11)
	require.EqualValues(t, 3, d.State.Status(), "without VERSION_1")
	require.Equal(t, lines, strings.Count(log.String(), "\n"), "the same line, so soon")

	begin()
	accept(1, 1)
	accept(2, 1)
	d.State.SetStatus(11)
	require.EqualValues(t, 3, d.State.Status(), "a bit above 63")

	begin()
	accept(1, 1)
	accept(2, 0)
	d.State.SetStatus(11)
	require.EqualValues(t, 11, d.State.Status())
	accept(0, 1<<5)
	d.State.SetDriverFeatureSelect(0)
	require.Zero(t, d.State.DriverFeatures(), "settled")
}

func TestABadPlaceOfAQueueNeedsAReset(t *testing.T) {
	var log bytes.Buffer
	e := &echo{queues: []int{8}}
	d := virtiotest.NewDriver(t, e, slog.New(slog.NewTextHandler(&log, nil)))
	for name, f := range map[string]func(){
		"nowhere": func() {},
		"too large": func() {
			d.State.SetQueueSize(16)
		},
		"not a power of two": func() { d.State.SetQueueSize(7) },
	} {
		require.True(t, d.Negotiate(0))
		interrupts := d.ConfigInterrupt.Count()
		d.State.SetQueueSelect(0)
		f()
		d.State.EnableQueue()
		d.Go()
		require.EqualValues(t, 15|virtio.StatusNeedsReset, d.State.Status(), name)
		require.Equal(t, interrupts+1, d.ConfigInterrupt.Count(), name)
		require.Zero(t, e.started.Load())
	}
	require.Equal(t, 1, strings.Count(log.String(), "\n"), "one line: %s", log.String())
	d.Start(0)
	say(t, d.Rings[0], d, "good again")
}

func TestABadChainNeedsAReset(t *testing.T) {
	e := &echo{queues: []int{8}}
	d := virtiotest.NewDriver(t, e, nil)
	d.Start(all)
	d.Rings[0].Offer(99)
	d.Rings[0].Publish()
	select {
	case <-d.ConfigInterrupt.C():
	case <-d.Context().Done():
		require.Fail(t, "no interrupt")
	}
	require.NotZero(t, d.State.Status()&virtio.StatusNeedsReset)
	d.State.SetStatus(d.State.Status())
	require.EqualValues(t, 1, e.started.Load(), "nothing starts it but a reset")
	d.Start(all)
	say(t, d.Rings[0], d, "good again")
}

func TestADeviceThatStopsNeedsAReset(t *testing.T) {
	e := &echo{queues: []int{8}, fail: errors.New("broken")}
	d := virtiotest.NewDriver(t, e, nil)
	d.Start(all)
	<-d.ConfigInterrupt.C()
	require.NotZero(t, d.State.Status()&virtio.StatusNeedsReset)
}

// TestAResetIsSeenWhenItIsDone has the device drain longer than the driver's
// access may wait.
func TestAResetIsSeenWhenItIsDone(t *testing.T) {
	e := &echo{queues: []int{8}, drain: make(chan struct{})}
	d := virtiotest.NewDriver(t, e, nil)
	d.Start(all)
	require.Eventually(t, func() bool { return e.serving.Load() == 1 }, time.Minute, time.Millisecond)
	d.State.SetStatus(0)
	require.EqualValues(t, 15, d.State.Status())
	d.State.SetStatus(1)
	d.State.SetQueueSelect(0)
	require.True(t, d.State.QueueState().Enabled, "nothing changes before the reset is done")
	close(e.drain)
	d.Reset()
	d.State.SetQueueSelect(0)
	require.False(t, d.State.QueueState().Enabled)
	e.drain = nil
	d.Start(all)
	say(t, d.Rings[0], d, "good again")
}

func TestAQueueIsResetAlone(t *testing.T) {
	e := &echo{queues: []int{8, 8}}
	d := virtiotest.NewDriver(t, e, nil)
	d.Start(all)
	say(t, d.Rings[0], d, "first")
	say(t, d.Rings[1], d, "second")
	d.State.SetQueueSelect(1)
	d.State.ResetQueue()
	require.Eventually(t, func() bool { return !d.State.QueueResetting() }, time.Minute, time.Millisecond)
	require.Equal(t, queue.State{Size: 8}, d.State.QueueState())
	require.Eventually(t, func() bool { return e.started.Load() == 2 }, time.Minute, time.Millisecond)
	require.Nil(t, e.session.Load().Queues[1])
	say(t, d.Rings[0], d, "the first goes on")
	d.EnableQueue(1, all)
	say(t, d.Rings[1], d, "a new one")
	say(t, d.Rings[0], d, "the first goes on")

	d.Start(all &^ virtio.FeatRingReset)
	d.State.SetQueueSelect(1)
	d.State.ResetQueue()
	require.True(t, d.State.QueueState().Enabled, "was not negotiated")
	d.State.DisableQueue()
	require.False(t, d.State.QueueState().Enabled, "MMIO may always")
	d.State.EnableQueue()
	require.False(t, d.State.QueueState().Enabled, "too late without RING_RESET")
}

func TestPauseIsNotNoticed(t *testing.T) {
	e := &echo{queues: []int{8}}
	d := virtiotest.NewDriver(t, e, nil)
	d.Start(all)
	for range 20 {
		require.NoError(t, d.State.Pause(d.Context()))
		require.Zero(t, e.serving.Load())
		r := d.Rings[0]
		r.Add(virtiotest.Out([]byte("while paused")), virtiotest.In(16))
		r.Publish()
		used, err := r.Used()
		require.NoError(t, err)
		require.Nil(t, used)
		d.State.Resume()
		used, err = r.Await(d.Context())
		require.NoError(t, err)
		require.EqualValues(t, 12, used.Written)
		r.Free(used)
		say(t, r, d, "on we go")
	}
	require.EqualValues(t, 15, d.State.Status())

	require.NoError(t, d.State.Pause(d.Context()))
	d.Reset()
	d.Start(all)
	require.Zero(t, e.serving.Load(), "paused, whatever the driver does")
	d.State.Resume()
	say(t, d.Rings[0], d, "and now")
}

func TestAPauseThatIsGivenUp(t *testing.T) {
	e := &echo{queues: []int{8}, drain: make(chan struct{})}
	d := virtiotest.NewDriver(t, e, nil)
	d.Start(all)
	require.Eventually(t, func() bool { return e.serving.Load() == 1 }, time.Minute, time.Millisecond)
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	require.ErrorIs(t, d.State.Pause(ctx), context.DeadlineExceeded)
	close(e.drain)
	say(t, d.Rings[0], d, "goes on")
}

// TestResetsAndPausesAtAnyMoment has everybody pull at once.
func TestResetsAndPausesAtAnyMoment(t *testing.T) {
	e := &echo{queues: []int{8, 8}}
	d := virtiotest.NewDriver(t, e, nil)
	ctx, cancel := context.WithCancel(d.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			if d.State.Pause(ctx) == nil {
				d.State.Resume()
			}
			time.Sleep(time.Millisecond) // or it would never get anything done
		}
	})
	wg.Go(func() {
		for ctx.Err() == nil {
			if s := e.session.Load(); s != nil {
				s.ConfigChanged()
			}
			d.Config(4)
			runtime.Gosched()
		}
	})
	for range 30 {
		d.Start(all)
		say(t, d.Rings[0], d, "hello")
		d.State.SetQueueSelect(1)
		d.State.ResetQueue()
		require.Eventually(t, func() bool { return !d.State.QueueResetting() }, time.Minute, time.Millisecond)
		say(t, d.Rings[0], d, "hello")
	}
	cancel()
	wg.Wait()
	require.EqualValues(t, 15, d.State.Status())
}
