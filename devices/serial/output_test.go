package serial

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve runs Serve until the returned function is called, which gives its error.
func serve(t *testing.T, u *UART) (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- u.Serve(ctx) }()
	t.Cleanup(cancel)
	return func() error {
		cancel()
		return <-done
	}
}

// gate is an Out that takes nothing while it is closed.
type gate struct {
	open chan struct{}
	bytes.Buffer
	writes int
}

func (g *gate) Write(p []byte) (int, error) {
	<-g.open
	g.writes++
	return g.Buffer.Write(p)
}

// failing is an Out whose other end went away after limit bytes.
type failing struct {
	bytes.Buffer
	limit int
}

var errGone = errors.New("gone")

func (f *failing) Write(p []byte) (int, error) {
	n := min(len(p), f.limit-f.Len())
	f.Buffer.Write(p[:n])
	if n < len(p) {
		return n, errGone
	}
	return n, nil
}

func send(u *UART, s string) {
	for i := range len(s) {
		put(u, regData, s[i])
	}
}

func TestOutputIsBatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &gate{open: make(chan struct{})}
		close(out.open)
		u := New(Config{Out: out})
		stop := serve(t, u)
		synctest.Wait()
		send(u, "hello ")
		send(u, "world")
		time.Sleep(linger)
		synctest.Wait()
		require.Equal(t, "hello world", out.String(), "out without waiting for the end")
		require.Equal(t, 1, out.writes)
		require.NoError(t, stop())
	})
}

func TestAllIsOutWhenServeReturns(t *testing.T) {
	var out bytes.Buffer
	u := New(Config{Out: &out})
	send(u, "before, ")
	stop := serve(t, u)
	send(u, "while, ")
	require.NoError(t, stop())
	send(u, "between, ")
	stop = serve(t, u)
	send(u, "again")
	require.NoError(t, stop())
	require.Equal(t, "before, while, between, again", out.String())
	require.Zero(t, u.Dropped())
}

func TestOutputWrapsAround(t *testing.T) {
	var out bytes.Buffer
	u := New(Config{Out: &out})
	want := strings.Repeat("0123456789", outputSize/4)
	for s := want; s != ""; {
		n := min(len(s), outputSize-7)
		send(u, s[:n])
		s = s[n:]
		require.NoError(t, serve(t, u)())
	}
	require.Equal(t, want, out.String())
}

func TestFirstByteIsTold(t *testing.T) {
	n := 0
	u := New(Config{OnFirstByte: func() { n++ }})
	put(u, regMCR, mcrLoop)
	send(u, "x")
	put(u, regMCR, 0)
	require.Zero(t, n, "loopback is not output")
	send(u, "yz")
	require.Equal(t, 1, n)
}

func TestStalledOutput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		var l line
		out := &gate{open: make(chan struct{})}
		u := New(Config{Out: out, Line: &l, Log: slog.New(slog.NewTextHandler(&log, nil))})
		stop := serve(t, u)
		put(u, regMCR, mcrOUT2)

		send(u, strings.Repeat("x", outputSize-fifoSize))
		require.NotZero(t, get(u, regLSR)&lsrTHRE)
		send(u, "y")
		require.Zero(t, get(u, regLSR)&(lsrTHRE|lsrTEMT), "no room for a FIFO")
		put(u, regIER, ierTHRE)
		require.False(t, l.high)
		send(u, strings.Repeat("y", fifoSize-1))

		start := time.Now()
		send(u, "1")
		require.Equal(t, patience, time.Since(start), "waits for room")
		require.EqualValues(t, 1, u.Dropped())
		send(u, strings.Repeat("2", 1000))
		require.Equal(t, patience, time.Since(start), "and not again until there was some")
		require.EqualValues(t, 1001, u.Dropped())

		close(out.open)
		synctest.Wait()
		require.True(t, l.high, "the transmitter is empty again")
		require.NotZero(t, get(u, regLSR)&lsrTHRE)
		send(u, "z")
		require.NoError(t, stop())
		require.Equal(t, strings.Repeat("x", outputSize-fifoSize)+strings.Repeat("y", fifoSize)+"z", out.String())
		require.Equal(t, 1, strings.Count(log.String(), "\n"), log.String())
		require.Contains(t, log.String(), "bytes=1001")
	})
}

// slow is an Out that takes its time.
type slow struct{ bytes.Buffer }

func (s *slow) Write(p []byte) (int, error) {
	time.Sleep(patience / 2)
	return s.Buffer.Write(p)
}

func TestSlowOutputLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out slow
		u := New(Config{Out: &out})
		stop := serve(t, u)
		want := strings.Repeat("0123456789abcdef", 3*outputSize/16)
		send(u, want)
		require.NoError(t, stop())
		require.Equal(t, want, out.String())
		require.Zero(t, u.Dropped())
	})
}

func TestFailingOutput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		out := &failing{limit: 3}
		u := New(Config{Out: out, Log: slog.New(slog.NewTextHandler(&log, nil))})
		stop := serve(t, u)
		send(u, "hello")
		time.Sleep(time.Second)
		require.EqualValues(t, 2, u.Dropped())
		send(u, strings.Repeat("x", 2*outputSize))
		require.ErrorIs(t, stop(), errGone)
		require.Equal(t, "hel", out.String())
		require.EqualValues(t, 2+2*outputSize, u.Dropped())
		require.Equal(t, 1, strings.Count(log.String(), "\n"), log.String())
	})
}

func TestSendingDoesNotAllocate(t *testing.T) {
	u := New(Config{})
	open(u, 0, ierTHRE)
	p := []byte{'x'}
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		u.Load(regLSR, p)
		u.Store(regData, p)
	}))
}

func BenchmarkSend(b *testing.B) {
	u := New(Config{})
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- u.Serve(ctx) }()
	p := []byte{'x'}
	b.ReportAllocs()
	for b.Loop() {
		u.Load(regLSR, p)
		u.Store(regData, p)
	}
	cancel()
	require.NoError(b, <-done)
}
