package console

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/huskvm/husk/devices/virtio"
	"github.com/huskvm/husk/devices/virtio/virtiotest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const features = virtio.FeatIndirectDesc | virtio.FeatEventIdx | featSize

// terminal takes output. It blocks while gate is not nil and gives no token.
type terminal struct {
	mu     sync.Mutex
	buf    bytes.Buffer
	writes int
	err    error
	gate   chan struct{}
	waits  chan struct{}
}

func (o *terminal) Write(p []byte) (int, error) {
	if o.gate != nil {
		o.waits <- struct{}{}
		<-o.gate
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.writes++
	if o.err != nil {
		return 0, o.err
	}
	return o.buf.Write(p)
}

func (o *terminal) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

func start(t testing.TB, c Config, features uint64) (*Device, *virtiotest.Driver) {
	t.Helper()
	dev := New(c)
	d := virtiotest.NewDriver(t, dev, nil)
	d.Start(features)
	return dev, d
}

func send(t testing.TB, d *virtiotest.Driver, pieces ...string) {
	t.Helper()
	var buffers []virtiotest.Buffer
	for _, p := range pieces {
		buffers = append(buffers, virtiotest.Out([]byte(p)))
	}
	_, err := d.Rings[transmitq].Do(d.Context(), buffers...)
	require.NoError(t, err)
}

func TestOutput(t *testing.T) {
	for _, f := range []uint64{0, features} {
		var out terminal
		dev, d := start(t, Config{Out: &out}, f)
		var want strings.Builder
		for range 1000 {
			send(t, d, "hello ", "", "world\n")
			want.WriteString("hello world\n")
		}
		big := strings.Repeat("0123456789abcdef", 5*outletSize/16)
		send(t, d, big, "!")
		want.WriteString(big + "!")
		require.NoError(t, dev.Flush(d.Context()))
		require.Equal(t, want.String(), out.String())
	}
}

// TestOutputGathers has the guest send much while a terminal is slow: that is
// written at once.
// TestTheLastWordsAreTaken: what the driver has added when the device is stopped comes
// out, whether the device has been woken for it or not.
func TestTheLastWordsAreTaken(t *testing.T) {
	for range 100 {
		var out terminal
		dev, d := start(t, Config{Out: &out}, features)
		send(t, d, "hello, ")
		r := d.Rings[transmitq]
		r.Add(virtiotest.Out([]byte("good ")))
		r.Add(virtiotest.Out([]byte("bye")))
		r.Publish()
		require.NoError(t, d.State.Pause(d.Context()))
		require.NoError(t, dev.Flush(d.Context()))
		require.Equal(t, "hello, good bye", out.String())
	}
}

func TestOutputGathers(t *testing.T) {
	out := terminal{gate: make(chan struct{}), waits: make(chan struct{}, 10)}
	dev, d := start(t, Config{Out: &out}, features)
	send(t, d, "a")
	<-out.waits
	for range 1000 {
		send(t, d, "b")
	}
	close(out.gate)
	require.NoError(t, dev.Flush(d.Context()))
	require.Equal(t, "a"+strings.Repeat("b", 1000), out.String())
	require.Equal(t, 2, out.writes)
}

// TestAStuckTerminalHoldsTheGuestButNotTheDevice fills all there is to fill, and
// pauses and resets meanwhile. Nothing is lost or doubled by a pause.
func TestAStuckTerminalHoldsTheGuestButNotTheDevice(t *testing.T) {
	out := terminal{gate: make(chan struct{}), waits: make(chan struct{}, 1000)}
	dev, d := start(t, Config{Out: &out}, features)
	r := d.Rings[transmitq]
	piece := strings.Repeat("x", outletSize/2) + "\n"
	sent := 0
	for r.Room() > 0 && sent < 16 {
		r.Add(virtiotest.Out([]byte(piece)))
		sent++
	}
	r.Publish()
	<-out.waits
	used := 0
	for range 20 {
		require.NoError(t, d.State.Pause(d.Context()))
		d.State.Resume()
	}
	for q, err := r.Used(); q != nil; q, err = r.Used() {
		require.NoError(t, err)
		used++
	}
	require.Less(t, used, 5, "the guest has to wait")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	require.ErrorIs(t, dev.Flush(ctx), context.Canceled)
	close(out.gate)
	for ; used < sent; used++ {
		_, err := r.Await(d.Context())
		require.NoError(t, err)
	}
	require.NoError(t, dev.Flush(d.Context()))
	require.Equal(t, strings.Repeat(piece, sent), out.String())
}

func TestAResetWithAStuckTerminal(t *testing.T) {
	out := terminal{gate: make(chan struct{}), waits: make(chan struct{}, 1000)}
	dev, d := start(t, Config{Out: &out}, features)
	r := d.Rings[transmitq]
	r.Add(virtiotest.Out(make([]byte, 10*outletSize)))
	r.Publish()
	<-out.waits
	d.Reset()
	close(out.gate)
	d.Start(features)
	send(t, d, "again")
	require.NoError(t, dev.Flush(d.Context()))
	require.True(t, strings.HasSuffix(out.String(), "again"))
}

func TestOutputThatFailsIsDroppedAndToldOnce(t *testing.T) {
	var log bytes.Buffer
	out := terminal{err: errors.New("gone")}
	dev, d := start(t, Config{Out: &out, Log: slog.New(slog.NewTextHandler(&log, nil))}, features)
	for range 5 {
		send(t, d, "lost")
		require.NoError(t, dev.Flush(d.Context()))
	}
	out.mu.Lock()
	out.err = nil
	out.mu.Unlock()
	send(t, d, "back")
	require.NoError(t, dev.Flush(d.Context()))
	require.Equal(t, "back", out.String())
	require.Equal(t, 1, strings.Count(log.String(), "\n"), log.String())
}

func TestInputIsTakenAsTheGuestHasRoom(t *testing.T) {
	dev, d := start(t, Config{}, features)
	text := strings.Repeat("the quick brown fox ", 50)
	given := make(chan error)
	go func() {
		n, err := dev.Input(d.Context(), []byte(text))
		if err == nil && n != len(text) {
			err = errors.New("not all of it")
		}
		given <- err
	}()
	var got []byte
	for room := 1; len(got) < len(text); room++ {
		in, err := d.Rings[receiveq].Do(d.Context(), virtiotest.In(room%7), virtiotest.In(room%3))
		require.NoError(t, err)
		got = append(got, in...)
	}
	require.NoError(t, <-given)
	require.Equal(t, text, string(got))
}

func TestInputWaitsForAGuest(t *testing.T) {
	dev := New(Config{})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	n, err := dev.Input(ctx, []byte("nobody"))
	require.ErrorIs(t, err, context.Canceled)
	require.Zero(t, n)
	n, err = dev.Input(ctx, nil)
	require.NoError(t, err)
	require.Zero(t, n)

	// A buffer that was taken for input is there after a pause and gone after
	// a reset.
	d := virtiotest.NewDriver(t, dev, nil)
	d.Start(features)
	r := d.Rings[receiveq]
	r.Add(virtiotest.In(8))
	r.Publish()
	for range 10 {
		time.Sleep(time.Millisecond) // so that it is most likely held
		require.NoError(t, d.State.Pause(d.Context()))
		d.State.Resume()
	}
	_, err = dev.Input(d.Context(), []byte("paused"))
	require.NoError(t, err)
	q, err := r.Await(d.Context())
	require.NoError(t, err)
	require.Equal(t, "paused", string(r.In(q)[:q.Written]))
	r.Add(virtiotest.In(8))
	r.Publish()
	d.Start(features)
	n, err = dev.Input(ctx, []byte("lost?"))
	require.ErrorIs(t, err, context.Canceled)
	require.Zero(t, n)
}

func TestResizeIsToldToTheDriver(t *testing.T) {
	dev := New(Config{})
	dev.Resize(80, 25)
	d := virtiotest.NewDriver(t, dev, nil)
	size := func() [2]uint16 {
		p := d.Config(configSize)
		return [2]uint16{binary.LittleEndian.Uint16(p), binary.LittleEndian.Uint16(p[2:])}
	}
	require.Equal(t, [2]uint16{80, 25}, size())
	d.Start(features)
	<-d.ConfigInterrupt.C() // it may have read another size before
	generation := d.State.ConfigGeneration()
	dev.Resize(132, 43)
	<-d.ConfigInterrupt.C()
	require.NotEqual(t, generation, d.State.ConfigGeneration())
	require.Equal(t, [2]uint16{132, 43}, size())
	interrupts := d.ConfigInterrupt.Count()
	dev.Resize(132, 43)
	require.Empty(t, dev.resized, "nothing new")
	require.Equal(t, interrupts, d.ConfigInterrupt.Count())
}

// FuzzQueues gives both queues chains that are cut by the input, and looks that
// what goes in comes out.
func FuzzQueues(f *testing.F) {
	f.Add([]byte("hello, world"), byte(3), byte(8))
	f.Add([]byte("\x00\xff"), byte(0), byte(1))
	f.Add(bytes.Repeat([]byte("long "), 300), byte(255), byte(0))
	f.Fuzz(func(t *testing.T, text []byte, cut, room byte) {
		text = text[:min(len(text), 4096)]
		var out terminal
		dev := New(Config{Out: &out})
		d := virtiotest.NewDriverIn(t, virtiotest.NewMemory(1<<32, 256<<10), dev, nil)
		d.Start(features)
		var buffers []virtiotest.Buffer
		for rest := text; len(rest) > 0 && len(buffers) < 100; {
			n := min(len(rest), int(cut)+1)
			buffers = append(buffers, virtiotest.Out(rest[:n]))
			rest = rest[n:]
		}
		sent := text[:min(len(text), 100*(int(cut)+1))]
		if len(buffers) > 0 {
			_, err := d.Rings[transmitq].Do(d.Context(), buffers...)
			require.NoError(t, err)
		}
		require.NoError(t, dev.Flush(d.Context()))
		require.Equal(t, string(sent), out.String())

		r := d.Rings[receiveq]
		r.Add(virtiotest.In(int(room)), virtiotest.In(1))
		r.Publish()
		n, err := dev.Input(d.Context(), sent[:min(len(sent), int(room)+1)])
		require.NoError(t, err)
		if n > 0 {
			q, err := r.Await(d.Context())
			require.NoError(t, err)
			require.EqualValues(t, n, q.Written)
			require.Equal(t, string(sent[:n]), string(r.In(q)[:n]))
		}
		d.Reset()
	})
}
