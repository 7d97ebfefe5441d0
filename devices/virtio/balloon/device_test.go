package balloon

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

const common = virtio.FeatIndirectDesc | virtio.FeatEventIdx

const base = 1 << 32 // where the driver's RAM begins

// ram is memory that keeps what was discarded.
type ram struct {
	*virtiotest.Memory
	mu  sync.Mutex
	got [][2]uint64
	// hook, if not nil, is called for each Discard.
	hook func()
}

func (r *ram) Discard(gpa, n uint64) error {
	if gpa%PageSize != 0 || n%PageSize != 0 || n == 0 {
		panic("not pages")
	}
	if r.hook != nil {
		r.hook()
	}
	b, err := r.Writable(gpa, n)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(b)
	r.got = append(r.got, [2]uint64{gpa, n})
	return nil
}

// take is what was discarded since the last call.
func (r *ram) take() [][2]uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	got := r.got
	r.got = nil
	return got
}

type guest struct {
	*virtiotest.Driver
	t   testing.TB
	d   *Device
	ram *ram
	log *bytes.Buffer
}

func newGuest(t testing.TB) *guest { return newGuestOf(t, 64<<20) }

func newGuestOf(t testing.TB, size uint64) *guest {
	g := &guest{t: t, ram: &ram{Memory: virtiotest.NewMemory(base, size)}, log: new(bytes.Buffer)}
	g.d = New(g.ram)
	g.Driver = virtiotest.NewDriverIn(t, g.ram.Memory, g.d, slog.New(slog.NewTextHandler(g.log, nil)))
	return g
}

func numbers(pages ...uint32) (p []byte) {
	for _, n := range pages {
		p = binary.LittleEndian.AppendUint32(p, n)
	}
	return p
}

// do has the device do one request.
func (g *guest) do(ring int, b ...virtiotest.Buffer) {
	g.t.Helper()
	got, err := g.Rings[ring].Do(g.Context(), b...)
	require.NoError(g.t, err)
	require.Empty(g.t, got)
}

const page = base / PageSize

func TestTheTargetAndWhatThereIs(t *testing.T) {
	g := newGuest(t)
	require.EqualValues(t, 5, g.State.Type())
	require.NoError(t, g.d.SetTarget(5*PageSize+1))
	g.Start(common)
	<-g.ConfigInterrupt.C()
	require.Equal(t, append([]byte{5}, make([]byte, 15)...), g.Config(16))
	require.NoError(t, g.d.SetTarget(0x10203*PageSize))
	<-g.ConfigInterrupt.C()
	require.Equal(t, []byte{3, 2, 1, 0}, g.Config(4))
	require.EqualValues(t, 0x10203*PageSize, g.d.Target())

	g.State.StoreConfig(4, []byte{0xff, 0xff, 0xff, 0xff})
	require.EqualValues(t, 0xffffffff*PageSize, g.d.Actual())
	g.State.StoreConfig(2, []byte{9, 9, 7})
	require.EqualValues(t, 0xffffff07*PageSize, g.d.Actual())
	require.EqualValues(t, 0x10203*PageSize, g.d.Target(), "the driver can not write it")
	require.ErrorContains(t, g.d.SetTarget(1<<44), "17592186044416")
	require.NoError(t, g.d.SetTarget(1<<44-1))
	g.Reset()
	require.Zero(t, g.d.Actual())
	require.EqualValues(t, uint64(1<<44-PageSize), g.d.Target())
}

func TestAnInflatedBalloonGivesPagesBack(t *testing.T) {
	for _, features := range []uint64{0, common} {
		g := newGuest(t)
		g.Start(features)
		p := uint32(page + 1000)
		g.do(inflateq, virtiotest.Out(numbers(p+9, p+1, p, p+2, p+1)[:10]), virtiotest.Out(numbers(p+9, p+1, p, p+2, p+1)[10:]))
		require.Equal(t, [][2]uint64{{uint64(p) * PageSize, 3 * PageSize}, {uint64(p+9) * PageSize, PageSize}}, g.ram.take())
		g.do(deflateq, virtiotest.Out(numbers(p, p+1)))
		g.do(inflateq, virtiotest.Out([]byte{1, 2, 3}))
		g.do(inflateq, virtiotest.In(16))
		require.Empty(t, g.ram.take())
		require.Equal(t, Counts{Discarded: 4 * PageSize}, g.d.Counts())
	}
}

func TestALongRequest(t *testing.T) {
	g := newGuest(t)
	g.Start(common)
	var pages []uint32
	for i := range uint32(3 * atOnce) {
		pages = append(pages, page+4096+3*atOnce-1-i)
	}
	g.do(inflateq, virtiotest.Out(numbers(pages...)))
	require.Len(t, g.ram.take(), 3)
	require.EqualValues(t, 3*atOnce*PageSize, g.d.Counts().Discarded)
}

func TestPagesThatAreNoRAM(t *testing.T) {
	g := newGuest(t)
	g.Start(common)
	end := uint32(page + 64<<20/PageSize)
	g.do(inflateq, virtiotest.Out(numbers(0, 0xffffffff, page-1, end, 0x7fffffff)))
	g.do(inflateq, virtiotest.Out(numbers(page+2000)))
	require.Len(t, g.ram.take(), 1, "the device goes on")
	require.Equal(t, Counts{Discarded: PageSize, Refused: 5 * PageSize}, g.d.Counts())
	g.State.Close()
	require.Equal(t, 1, strings.Count(g.log.String(), "\n"), "one line: %s", g.log)
}

// TestTheRingsThemselves: a guest that puts the device's rings into the balloon
// has broken its queues, at worst until the next reset.
func TestTheRingsThemselves(t *testing.T) {
	g := newGuest(t)
	for range 3 {
		g.Start(common)
		var pages []uint32
		for _, r := range g.Rings {
			for _, gpa := range []uint64{r.State.Desc, r.State.Driver, r.State.Device} {
				pages = append(pages, uint32(gpa/PageSize))
			}
		}
		for range 8 {
			g.Rings[inflateq].Add(virtiotest.Out(numbers(pages...)))
		}
		g.Rings[inflateq].Publish()
		require.Eventually(t, func() bool { return len(g.ram.take()) > 0 }, time.Minute, time.Millisecond)
		g.Kicks[deflateq].Signal()
		g.Reset()
	}
	g.Start(common)
	g.do(inflateq, virtiotest.Out(numbers(page+2000)))
}

func TestAPauseEndsALongRequest(t *testing.T) {
	g := newGuest(t)
	begun, once := make(chan struct{}), sync.Once{}
	goOn := make(chan struct{})
	g.ram.hook = func() { once.Do(func() { close(begun); <-goOn }) }
	g.Start(common)
	many := make([]uint32, 100*atOnce)
	for i := range many {
		many[i] = uint32(page + 4000 + i%4000)
	}
	g.Rings[inflateq].Add(virtiotest.Out(numbers(many...)))
	g.Rings[inflateq].Publish()
	<-begun
	paused := make(chan error)
	go func() { paused <- g.State.Pause(context.Background()) }()
	time.Sleep(10 * time.Millisecond) // so that most runs pause meanwhile; either order is right
	close(goOn)
	require.NoError(t, <-paused)
	g.State.SetQueueSelect(inflateq)
	s := g.State.QueueState()
	require.Equal(t, s.NextAvail, s.NextUsed)
	g.State.Resume()
	_, err := g.Rings[inflateq].Await(g.Context())
	require.NoError(t, err)
}

func TestReportedPagesAreGivenBack(t *testing.T) {
	// Where drivers have the queue: by the standard, and Linux until 2024.
	for _, c := range []struct {
		features uint64
		queue    int
	}{
		{featReporting | featStatsVQ, reportingq},
		{featReporting, reportingq},
		{featReporting | featStatsVQ, 3},
		{featReporting, 2},
	} {
		g := newGuest(t)
		g.Start(common | c.features)
		g.do(c.queue, virtiotest.In(2<<20), virtiotest.In(100), virtiotest.In(PageSize))
		got := g.ram.take()
		require.Len(t, got, 2, "less than a page is left out")
		require.EqualValues(t, 2<<20, got[0][1])
		require.EqualValues(t, PageSize, got[1][1])
		require.EqualValues(t, 2<<20+PageSize, g.d.Counts().Discarded)
	}
}

func TestPoisonedPagesStay(t *testing.T) {
	g := newGuest(t)
	require.True(t, g.Negotiate(common|featReporting|featPagePoison))
	g.State.StoreConfig(configPoison, []byte{0xaa, 0xaa, 0xaa, 0xaa})
	g.Rings = make([]*virtiotest.Ring, numQueues)
	g.EnableQueue(reportingq, common)
	g.Go()
	in, err := g.Rings[reportingq].Do(g.Context(), virtiotest.In(PageSize))
	require.NoError(t, err)
	require.Empty(t, in)
	require.Empty(t, g.ram.take())
	g.State.StoreConfig(configPoison, []byte{0, 0, 0, 0})
	g.do(reportingq, virtiotest.In(PageSize))
	require.Len(t, g.ram.take(), 1)
}

func TestWithoutTheFeatureNothingIsServed(t *testing.T) {
	g := newGuest(t)
	g.Start(common)
	for _, i := range []int{statsq, 3, reportingq} {
		g.Rings[i].Add(virtiotest.In(PageSize))
		g.Rings[i].Publish()
	}
	g.do(inflateq, virtiotest.Out(numbers(page+2000)))
	require.Len(t, g.ram.take(), 1)
	for _, i := range []int{statsq, 3, reportingq} {
		q, err := g.Rings[i].Used()
		require.NoError(t, err)
		require.Nil(t, q)
	}
}

// figures is what a driver says: tag, value, tag, value.
func figures(v ...uint64) (p []byte) {
	for i := 0; i < len(v); i += 2 {
		p = binary.LittleEndian.AppendUint16(p, uint16(v[i]))
		p = binary.LittleEndian.AppendUint64(p, v[i+1])
	}
	return p
}

func TestStatistics(t *testing.T) {
	g := newGuest(t)
	g.Start(common | featStatsVQ)
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	_, err := g.d.Stats(ctx)
	require.ErrorIs(t, err, ErrNoStats, "the driver has given no buffer yet")
	require.ErrorIs(t, err, context.DeadlineExceeded)

	r := g.Rings[statsq]
	r.Add(virtiotest.Out(figures(uint64(Free), 1)))
	r.Publish()
	ask := func() chan Stats {
		c := make(chan Stats)
		go func() {
			s, err := g.d.Stats(g.Context())
			if err != nil && !errors.Is(err, ErrNoStats) {
				panic(err)
			}
			c <- s
		}()
		return c
	}
	for i := range uint64(3) {
		answer := ask()
		_, err := r.Await(g.Context())
		require.NoError(t, err)
		r.Add(virtiotest.Out(figures(uint64(Free), 100+i, 999, 7)), virtiotest.Out(figures(uint64(DirectReclaims), 1<<63)), virtiotest.Out([]byte{4, 0, 1}))
		r.Publish()
		require.Equal(t, Stats{Free: 100 + i, DirectReclaims: 1 << 63}, <-answer)
	}

	require.NoError(t, g.State.Pause(g.Context()))
	g.State.SetQueueSelect(statsq)
	s := g.State.QueueState()
	require.Equal(t, s.NextUsed, s.NextAvail, "the buffer was given back")
	g.State.Resume()

	answer := ask()
	_, err = r.Await(g.Context())
	require.NoError(t, err)
	g.Reset()
	require.Nil(t, <-answer, "the device was stopped")
}

func BenchmarkInflate(b *testing.B) {
	pages := make([]uint32, 256)
	for b.Loop() {
		for i := range pages {
			pages[i] = uint32(1<<20 + 256 - i)
		}
		n := 0
		for range ranges(pages) {
			n++
		}
		if n != 1 {
			b.Fatal(n)
		}
	}
}
