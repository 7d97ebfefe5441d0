package fs

import (
	"bytes"
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/huskvm/husk/devices/share"
	"github.com/huskvm/husk/devices/virtio"
	"github.com/huskvm/husk/devices/virtio/queue"
	"github.com/huskvm/husk/devices/virtio/virtiotest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const features = virtio.FeatIndirectDesc | virtio.FeatEventIdx

// An echo answers a request with what stands in it. One that begins with "slow" is so,
// and one with "wait" waits at the gate.
type echo struct {
	gate    chan struct{}
	waiting chan struct{}

	mu     sync.Mutex
	resets int
	done   int
}

func newEcho() *echo {
	return &echo{gate: make(chan struct{}), waiting: make(chan struct{}, 1000)}
}

func (e *echo) Do(in, out [][]byte) uint32 {
	text := bytes.Join(in, nil)
	if bytes.Contains(text, []byte("wait")) {
		e.waiting <- struct{}{}
		<-e.gate
	}
	e.mu.Lock()
	e.done++
	e.mu.Unlock()
	n := 0
	for _, s := range out {
		n += copy(s, text[n:])
	}
	return uint32(n)
}

func (e *echo) Slow(in [][]byte) bool { return bytes.HasPrefix(in[0], []byte("slow")) }

func (e *echo) Reset() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.resets++
}

func (e *echo) count() (resets, done int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.resets, e.done
}

func start(t *testing.T, e Server, f uint64) *virtiotest.Driver {
	t.Helper()
	dev, err := New(Config{Server: e, Tag: "tag", Queues: 2})
	require.NoError(t, err)
	d := virtiotest.NewDriver(t, dev, nil)
	d.Start(f)
	return d
}

func TestConfig(t *testing.T) {
	for tag, want := range map[string]string{
		"": "needed", strings.Repeat("x", 37): "37 bytes", "a\x00b": "NUL",
	} {
		_, err := New(Config{Server: newEcho(), Tag: tag, Queues: 1})
		require.ErrorContains(t, err, want)
	}
	_, err := New(Config{Server: newEcho(), Tag: "t"})
	require.ErrorContains(t, err, "at least one")
	tag := strings.Repeat("x", 36)
	dev, err := New(Config{Server: newEcho(), Tag: tag, Queues: 3})
	require.NoError(t, err)
	d := virtiotest.NewDriver(t, dev, nil)
	require.EqualValues(t, 26, d.State.Type())
	require.Equal(t, append([]byte(tag), 3, 0, 0, 0, 0xff), d.Config(41))
	require.Equal(t, []int{128, 1024, 1024, 1024}, dev.QueueSizes())
}

func TestEveryQueueIsServed(t *testing.T) {
	for _, f := range []uint64{0, features} {
		d := start(t, newEcho(), f)
		for i, r := range d.Rings {
			for range 100 {
				for _, text := range []string{"hello", "slow one"} {
					got, err := r.Do(d.Context(), virtiotest.Out([]byte(text)), virtiotest.In(3), virtiotest.In(100))
					require.NoError(t, err)
					require.Equal(t, text, string(got), i)
				}
				got, err := r.Do(d.Context(), virtiotest.Out([]byte("no answer")))
				require.NoError(t, err)
				require.Empty(t, got)
			}
		}
	}
}

// TestManyAtATime: those that are slow do not keep others waiting, up to the depth; and
// all are done when the device rests.
func TestManyAtATime(t *testing.T) {
	e := newEcho()
	d := start(t, e, features)
	r := d.Rings[1]
	for range depth + 10 {
		r.Add(virtiotest.Out([]byte("slow: wait")), virtiotest.In(100))
	}
	r.Publish()
	for range depth {
		<-e.waiting
	}
	select {
	case <-e.waiting:
		require.Fail(t, "more than the depth")
	case <-time.After(20 * time.Millisecond):
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, d.State.Pause(ctx), context.DeadlineExceeded, "some are under way")
	close(e.gate)
	require.NoError(t, d.State.Pause(d.Context()))
	d.State.Resume()
	for range depth + 10 {
		_, err := r.Await(d.Context())
		require.NoError(t, err)
	}
	resets, done := e.count()
	require.Equal(t, depth+10, done)
	require.Equal(t, 1, resets, "a pause is no reset")
}

// TestAResetForgets what the driver knew, before the next one is served.
func TestAResetForgets(t *testing.T) {
	e := newEcho()
	d := start(t, e, features)
	for i := range 3 {
		_, err := d.Rings[1].Do(d.Context(), virtiotest.Out([]byte("x")), virtiotest.In(3))
		require.NoError(t, err)
		resets, _ := e.count()
		require.Equal(t, i+1, resets)
		d.Start(features)
	}
}

// TestASharedFolder is a driver's way to a file of the host: INIT, LOOKUP, OPEN, READ.
func TestASharedFolder(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "file"), []byte("on the host"), 0o644))
	s, err := share.Open(share.Config{Path: dir})
	require.NoError(t, err)
	d := start(t, s, features)
	t.Cleanup(func() {
		d.State.Close()
		require.NoError(t, s.Close())
	})
	unique := uint64(0)
	do := func(opcode uint32, node uint64, room int, body ...any) []byte {
		t.Helper()
		unique++
		var b bytes.Buffer
		for _, v := range body {
			require.NoError(t, binary.Write(&b, binary.LittleEndian, v))
		}
		h := make([]byte, 40)
		binary.LittleEndian.PutUint32(h[0:], uint32(40+b.Len()))
		binary.LittleEndian.PutUint32(h[4:], opcode)
		binary.LittleEndian.PutUint64(h[8:], unique)
		binary.LittleEndian.PutUint64(h[16:], node)
		got, err := d.Rings[1].Do(d.Context(), virtiotest.Out(h), virtiotest.Out(b.Bytes()), virtiotest.In(16), virtiotest.In(room))
		require.NoError(t, err)
		require.GreaterOrEqual(t, len(got), 16)
		require.EqualValues(t, len(got), binary.LittleEndian.Uint32(got))
		require.Zero(t, binary.LittleEndian.Uint32(got[4:]), "opcode %d", opcode)
		require.Equal(t, unique, binary.LittleEndian.Uint64(got[8:]))
		return got[16:]
	}
	do(26, 0, 64, uint32(7), uint32(38), uint32(1<<17), ^uint32(0), make([]byte, 48))
	entry := do(1, 1, 128, []byte("file\x00"))
	node := binary.LittleEndian.Uint64(entry)
	fh := binary.LittleEndian.Uint64(do(14, node, 16, make([]byte, 8)))
	got := do(15, node, 4096, fh, uint64(3), uint32(4096), uint32(0), uint64(0), uint64(0))
	require.Equal(t, "the host", string(got))
}

// FuzzRequest gives the device a chain of anything, with a shared folder behind it.
func FuzzRequest(f *testing.F) {
	lookup := append([]byte{45, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 39: 0}, "file\x00"...)
	f.Add(lookup, uint16(144), byte(40), true)
	f.Add(lookup, uint16(16), byte(3), false)
	init := make([]byte, 104)
	copy(init, []byte{104, 0, 0, 0, 26})
	init[40], init[44] = 7, 38
	f.Add(init, uint16(80), byte(40), false)
	f.Add([]byte{}, uint16(0), byte(0), true)
	f.Fuzz(func(t *testing.T, request []byte, room uint16, cut byte, mounted bool) {
		s, err := share.Open(share.Config{Path: t.TempDir(), ReadOnly: true})
		require.NoError(t, err)
		if mounted {
			require.NotZero(t, s.Do([][]byte{init}, [][]byte{make([]byte, 80)}))
		}
		c := &queue.Chain{}
		for n := int(cut) + 1; len(request) > 0; request = request[min(n, len(request)):] {
			c.Out = append(c.Out, request[:min(n, len(request))])
		}
		if room > 0 {
			c.In = [][]byte{make([]byte, room)}
		}
		s.Slow(c.Out)
		require.LessOrEqual(t, s.Do(c.Out, c.In), uint32(room))
		require.NoError(t, s.Close())
	})
}
