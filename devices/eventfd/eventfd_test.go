package eventfd_test

import (
	"context"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/devices/eventfd"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newEvent(t testing.TB) *eventfd.Event {
	t.Helper()
	e, err := eventfd.New()
	require.NoError(t, err)
	t.Cleanup(func() { _ = e.Close() })
	return e
}

func idle() bool { return true }

// A way is to wait in Go's poller, or to block the thread.
type way func(e *eventfd.Event, ctx context.Context, idle func() bool) error

func bothWays(t *testing.T, test func(t *testing.T, wait way)) {
	t.Run("Wait", func(t *testing.T) { test(t, (*eventfd.Event).Wait) })
	t.Run("Block", func(t *testing.T) { test(t, (*eventfd.Event).Block) })
	t.Run("in turn", func(t *testing.T) {
		var n atomic.Int64
		test(t, func(e *eventfd.Event, ctx context.Context, idle func() bool) error {
			if n.Add(1)%2 == 0 {
				return e.Block(ctx, idle)
			}
			return e.Wait(ctx, idle)
		})
	})
}

func TestWaitReturnsAtOnceIfNotIdle(t *testing.T) {
	bothWays(t, func(t *testing.T, wait way) {
		e := newEvent(t)
		require.NoError(t, wait(e, context.Background(), func() bool { return false }))
	})
}

func TestASignalWhileGettingReadyIsNotLost(t *testing.T) {
	bothWays(t, func(t *testing.T, wait way) {
		e := newEvent(t)
		for range 100 {
			require.NoError(t, wait(e, context.Background(), func() bool { e.Signal(); return true }))
		}
	})
}

// TestNoSignalIsLost has a signal answered before the next is sent.
func TestNoSignalIsLost(t *testing.T) {
	bothWays(t, func(t *testing.T, wait way) {
		there, back := newEvent(t), newEvent(t)
		var ping, pong atomic.Int64
		const rounds = 5000
		var wg sync.WaitGroup
		defer wg.Wait()
		wg.Go(func() {
			for i := int64(1); i <= rounds; i++ {
				for ping.Load() < i {
					if err := wait(there, context.Background(), func() bool { return ping.Load() < i }); err != nil {
						return
					}
				}
				pong.Store(i)
				back.Signal()
			}
		})
		for i := int64(1); i <= rounds; i++ {
			ping.Store(i)
			there.Signal()
			for pong.Load() < i {
				require.NoError(t, wait(back, context.Background(), func() bool { return pong.Load() < i }))
			}
		}
	})
}

func TestAContextEndsTheWait(t *testing.T) {
	bothWays(t, func(t *testing.T, wait way) {
		e := newEvent(t)
		for range 50 {
			ctx, cancel := context.WithCancel(context.Background())
			var err error
			for err == nil { // what was signalled before may end a wait
				err = wait(e, ctx, func() bool {
					go cancel()
					return true
				})
			}
			require.ErrorIs(t, err, context.Canceled)
			// The ended context is not the next wait's.
			ctx, cancel = context.WithCancel(context.Background())
			require.NoError(t, wait(e, ctx, func() bool { go e.Signal(); return true }))
			cancel()
			require.ErrorIs(t, wait(e, ctx, idle), context.Canceled)
		}
	})
}

// lateEnd is a context that ends when it was looked at once.
type lateEnd struct {
	context.Context
	looks int
}

func (c *lateEnd) Err() error {
	if c.looks++; c.looks > 1 {
		return context.Canceled
	}
	return nil
}

// TestAnEndBeforeThePollerListens comes with a signal that it does not hear of.
func TestAnEndBeforeThePollerListens(t *testing.T) {
	e := newEvent(t)
	asked := false
	err := e.Wait(&lateEnd{Context: context.Background()}, func() bool { asked = true; return true })
	require.ErrorIs(t, err, context.Canceled)
	require.False(t, asked)
}

func TestCloseEndsTheWait(t *testing.T) {
	bothWays(t, func(t *testing.T, wait way) {
		e := newEvent(t)
		err := wait(e, context.Background(), func() bool {
			go func() { _ = e.Close() }()
			return true
		})
		require.ErrorIs(t, err, os.ErrClosed)
		require.ErrorIs(t, wait(e, context.Background(), idle), os.ErrClosed)
	})
}

func TestTheKernelCanSignalIt(t *testing.T) {
	bothWays(t, func(t *testing.T, wait way) {
		e := newEvent(t)
		err := wait(e, context.Background(), func() bool {
			go func() { _, _ = unix.Write(e.FD(), []byte{1, 0, 0, 0, 0, 0, 0, 0}) }()
			return true
		})
		require.NoError(t, err)
	})
}

func TestBlockForAnotherDescriptor(t *testing.T) {
	e := newEvent(t)
	var pipe [2]int
	require.NoError(t, unix.Pipe2(pipe[:], unix.O_CLOEXEC))
	defer unix.Close(pipe[0]) //nolint:errcheck // of the test
	defer unix.Close(pipe[1]) //nolint:errcheck // of the test
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(time.Millisecond, e.Signal)
	require.NoError(t, e.BlockFor(ctx, pipe[0]), "a signal")
	time.AfterFunc(time.Millisecond, func() { _, _ = unix.Write(pipe[1], []byte{1}) })
	require.NoError(t, e.BlockFor(ctx, pipe[0]), "something to read")
	require.NoError(t, e.BlockFor(ctx, pipe[0]), "that is still there")
	var b [1]byte
	_, err := unix.Read(pipe[0], b[:])
	require.NoError(t, err)
	time.AfterFunc(time.Millisecond, cancel)
	require.ErrorIs(t, e.BlockFor(ctx, pipe[0]), context.Canceled)
	time.AfterFunc(time.Millisecond, func() { _ = e.Close() })
	require.ErrorIs(t, e.BlockFor(t.Context(), pipe[0]), os.ErrClosed)
	require.ErrorIs(t, e.Close(), os.ErrClosed)
}

func TestNothingIsAllocatedForAWait(t *testing.T) {
	bothWays(t, func(t *testing.T, wait way) {
		e := newEvent(t)
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		signal := func() bool { e.Signal(); return true }
		require.NoError(t, wait(e, ctx, signal))
		require.Zero(t, testing.AllocsPerRun(100, func() {
			if err := wait(e, ctx, signal); err != nil {
				panic(err)
			}
		}))
	})
}

// BenchmarkRoundTrip is two goroutines that wake each other in turn.
func BenchmarkRoundTrip(b *testing.B) {
	b.Run("Wait", func(b *testing.B) { roundTrips(b, (*eventfd.Event).Wait) })
	b.Run("Block", func(b *testing.B) { roundTrips(b, (*eventfd.Event).Block) })
}

func roundTrips(b *testing.B, wait way) {
	there, back := newEvent(b), newEvent(b)
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	var ping, pong atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := int64(1); ; i++ {
			for ping.Load() < i {
				if wait(there, ctx, func() bool { return ping.Load() < i }) != nil {
					return
				}
			}
			pong.Store(i)
			back.Signal()
		}
	}()
	for i := int64(1); i <= int64(b.N); i++ {
		ping.Store(i)
		there.Signal()
		for pong.Load() < i {
			if err := wait(back, ctx, func() bool { return pong.Load() < i }); err != nil {
				b.Fatal(err)
			}
		}
	}
	cancel()
	<-done
}
