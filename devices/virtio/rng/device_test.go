package rng

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/huskvm/husk/devices/virtio"
	"github.com/huskvm/husk/devices/virtio/queue"
	"github.com/huskvm/husk/devices/virtio/virtiotest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const features = virtio.FeatIndirectDesc | virtio.FeatEventIdx

func TestBuffersAreFilled(t *testing.T) {
	d := virtiotest.NewDriver(t, New(nil), nil)
	d.Start(features)
	require.EqualValues(t, 4, d.State.Type())
	seen := map[string]bool{}
	for range 100 {
		got, err := d.Rings[0].Do(d.Context(), virtiotest.In(20), virtiotest.In(12))
		require.NoError(t, err)
		require.Len(t, got, 32)
		require.False(t, seen[string(got)])
		require.False(t, bytes.Contains(got, bytes.Repeat([]byte{0xcc}, 8)), "not filled: %x", got)
		seen[string(got)] = true
	}
}

func TestOddBuffers(t *testing.T) {
	source := io.MultiReader(strings.NewReader("abcdefgh"), bytes.NewReader(make([]byte, 1<<20)))
	d := virtiotest.NewDriver(t, New(source), nil)
	d.Start(0)
	ctx := d.Context()
	got, err := d.Rings[0].Do(ctx, virtiotest.Out([]byte("for the device?")))
	require.NoError(t, err)
	require.Empty(t, got)
	got, err = d.Rings[0].Do(ctx, virtiotest.Out([]byte("?")), virtiotest.In(3), virtiotest.In(0), virtiotest.In(2))
	require.NoError(t, err)
	require.Equal(t, "abcde", string(got))
	got, err = d.Rings[0].Do(ctx, virtiotest.In(1<<20), virtiotest.In(16))
	require.NoError(t, err)
	require.Len(t, got, most, "bounded")
	require.Equal(t, "fgh", string(got[:3]))
}

func TestASourceThatFailsNeedsAReset(t *testing.T) {
	d := virtiotest.NewDriver(t, New(strings.NewReader("ab")), nil)
	d.Start(features)
	got, err := d.Rings[0].Do(d.Context(), virtiotest.In(4))
	require.NoError(t, err)
	require.Equal(t, "ab", string(got))
	<-d.ConfigInterrupt.C()
	require.NotZero(t, d.State.Status()&virtio.StatusNeedsReset)
}

func TestNoQueue(t *testing.T) {
	d := virtiotest.NewDriver(t, New(nil), nil)
	require.True(t, d.Negotiate(features))
	d.Go()
	require.EqualValues(t, 15, d.State.Status())
	d.Reset()
}

// BenchmarkRequests is the cost of a request of 64 bytes from the queue to the
// device and back, with both on one goroutine.
func BenchmarkRequests(b *testing.B) {
	for name, f := range map[string]queue.Features{"plain": {}, "event-idx": {EventIdx: true}, "both": {EventIdx: true, IndirectDesc: true}} {
		b.Run(name, func(b *testing.B) {
			mem := virtiotest.NewMemory(1<<32, 1<<20)
			r := virtiotest.NewRing(mem, 64, f)
			r.Indirect = f.IndirectDesc
			q, err := queue.New(r.State, f, mem, r.Kick, r.Interrupt)
			require.NoError(b, err)
			d := New(zeroes{})
			head := r.Add(virtiotest.In(64)).Head()
			b.ReportAllocs()
			for b.Loop() {
				r.Publish()
				c, ok, err := q.Next()
				if !ok || err != nil {
					b.Fatal(err)
				}
				n, err := d.fill(c.In)
				if err != nil {
					b.Fatal(err)
				}
				q.Push(c, n)
				q.Flush()
				r.Offer(head)
			}
		})
	}
}

type zeroes struct{}

func (zeroes) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
