package virtio_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/devices/virtio"
	"github.com/huskvm/husk/devices/virtio/virtiotest"
)

// level is an interrupt line that remembers.
type level struct {
	high    bool
	changes int
}

func (l *level) Set(high bool) {
	l.high = high
	l.changes++
}

func TestISRHoldsTheLineUpWhileABitIs(t *testing.T) {
	var l level
	isr := virtio.NewISR(&l)
	q, c := isr.Interrupt(virtio.ISRQueue), isr.Interrupt(virtio.ISRConfig)
	require.Zero(t, isr.Take())
	require.Zero(t, l.changes)
	q.Signal()
	q.Signal()
	c.Signal()
	require.True(t, l.high)
	require.Equal(t, 1, l.changes)
	require.EqualValues(t, 3, isr.Bits())
	isr.Clear(virtio.ISRQueue)
	require.True(t, l.high, "the other is still up")
	isr.Clear(virtio.ISRConfig | 1<<31)
	require.False(t, l.high)
	c.Signal()
	require.True(t, l.high)
	require.EqualValues(t, virtio.ISRConfig, isr.Take())
	require.False(t, l.high)
	require.Zero(t, isr.Bits())
	require.Equal(t, 4, l.changes)
}

func TestTogetherEndsWithTheFirst(t *testing.T) {
	broken := errors.New("broken")
	waits := func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	}
	err := virtio.Together(context.Background(), waits, func(context.Context) error { return broken }, waits)
	require.ErrorIs(t, err, broken)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	require.ErrorIs(t, virtio.Together(ctx, waits, waits), context.Canceled)
	require.ErrorIs(t, virtio.Together(ctx), context.Canceled, "nothing to run, but that takes as long")
}

// TestAGuestCannotFloodTheLog breaks a device again and again.
func TestAGuestCannotFloodTheLog(t *testing.T) {
	var log lockedBuffer
	e := &echo{queues: []int{8}}
	d := virtiotest.NewDriver(t, e, slog.New(slog.NewTextHandler(&log, nil)))
	for range 50 {
		d.Start(all)
		d.Rings[0].SetAvail(1000)
		d.Kicks[0].Signal()
		<-d.ConfigInterrupt.C()
		e.session.Load().Log.With("a", 1).WithGroup("b").Warn("something else", "n", 1)
	}
	d.Reset()
	// The log comes last, after the interrupt.
	require.Eventually(t, func() bool { return strings.Count(log.String(), "\n") >= 2 }, time.Minute, time.Millisecond)
	require.Equal(t, 2, strings.Count(log.String(), "\n"), log.String())
	require.Contains(t, log.String(), "needs a reset")
	require.Contains(t, log.String(), "available index")
	require.Contains(t, log.String(), "something else")
}

// lockedBuffer is a log that may be read while it is written.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// lazy pushes one chain, and leaves the flush to whoever stops it.
type lazy struct{ echo }

func (l *lazy) Serve(ctx context.Context, s *virtio.Session) error {
	c, err := s.Queues[0].Take(ctx)
	if err != nil {
		return err
	}
	s.Queues[0].Push(c, 0)
	l.started.Add(1)
	<-ctx.Done()
	return nil
}

func TestWhatWasPushedIsSeenAfterAStop(t *testing.T) {
	l := &lazy{echo{queues: []int{8}}}
	d := virtiotest.NewDriver(t, l, nil)
	d.Start(all)
	r := d.Rings[0]
	r.Add(virtiotest.In(1))
	r.Publish()
	require.Eventually(t, func() bool { return l.started.Load() == 1 }, time.Minute, time.Millisecond)
	require.NoError(t, d.State.Pause(d.Context()))
	q, err := r.Used()
	require.NoError(t, err)
	require.NotNil(t, q)
	require.EqualValues(t, 15, d.State.Status(), "to end without an error is fine, too")
}
