package blk

import (
	"context"
	"log/slog"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/devices/virtio/queue"
	"github.com/huskvm/husk/devices/virtio/virtiotest"
)

func addRead(r *virtiotest.Ring, sector uint64) {
	r.Add(virtiotest.Out(header(typeIn, sector)), virtiotest.In(sectorSize), virtiotest.In(1))
}

// TestDepthRequestsAreUnderWay finds as many reads in the disk as the depth
// allows, and no more, though they come one by one.
func TestDepthRequestsAreUnderWay(t *testing.T) {
	disk := newDisk(8)
	disk.gate, disk.waiting = make(chan struct{}), make(chan struct{}, 100)
	d := start(t, Config{Disk: disk, Size: 4096, Depth: 4}, features)
	r := d.Rings[0]
	for range 11 {
		addRead(r, 1)
		r.Publish()
	}
	for range 4 {
		<-disk.waiting
	}
	select {
	case <-disk.waiting:
		require.Fail(t, "more than the depth")
	case <-time.After(20 * time.Millisecond):
	}
	close(disk.gate)
	for range 11 {
		q, err := r.Await(d.Context())
		require.NoError(t, err)
		require.EqualValues(t, sectorSize+1, q.Written)
	}
}

// TestHugeRequestsAreFewAtATime: who stops the device waits for what is under way,
// so that is bounded in bytes; and what is longer than a driver may make a request
// is refused.
func TestHugeRequestsAreFewAtATime(t *testing.T) {
	const huge = 16 << 20
	disk := newDisk(huge / sectorSize)
	disk.gate, disk.waiting = make(chan struct{}), make(chan struct{}, 100)
	mem := virtiotest.NewMemory(1<<32, 256<<20)
	dev, err := New(Config{Disk: disk, Size: huge, Depth: 64})
	require.NoError(t, err)
	d := virtiotest.NewDriverIn(t, mem, dev, nil)
	d.Start(features & d.Offered())
	r := d.Rings[0]
	for range 10 {
		r.Add(virtiotest.Out(header(typeIn, 0)), virtiotest.In(huge), virtiotest.In(1))
	}
	r.Publish()
	for range 2 { // that is maxAtWork
		<-disk.waiting
	}
	select {
	case <-disk.waiting:
		require.Fail(t, "more than maxAtWork is under way")
	case <-time.After(20 * time.Millisecond):
	}
	paused := make(chan error)
	go func() { paused <- d.State.Pause(context.Background()) }()
	for open := true; open; { // one or two more may begin before the pause does
		select {
		case disk.gate <- struct{}{}:
		case err := <-paused:
			require.NoError(t, err)
			open = false
		}
	}
	d.State.Resume()
	close(disk.gate)
	for range 10 {
		used, err := r.Await(d.Context())
		require.NoError(t, err)
		require.EqualValues(t, huge+1, used.Written)
	}
}

// TestTwoRequestsAtATimeAreBothUnderWay has a slow disk and a guest that keeps two
// reads going: each may come when the other is in the disk.
func TestTwoRequestsAtATimeAreBothUnderWay(t *testing.T) {
	disk := newDisk(8)
	disk.gate, disk.waiting = make(chan struct{}), make(chan struct{}, 100)
	d := start(t, Config{Disk: disk, Size: 4096}, features)
	r := d.Rings[0]
	ctx := d.Context()
	send := func() {
		addRead(r, 0)
		r.Publish()
	}
	reached := func() {
		t.Helper()
		select {
		case <-disk.waiting:
		case <-ctx.Done():
			require.Fail(t, "the disk waits for nothing")
		}
	}
	send()
	reached()
	for range handOver / 2 {
		send()
		reached() // beside the other
		disk.gate <- struct{}{}
		_, err := r.Await(ctx)
		require.NoError(t, err)
	}
	close(disk.gate)
	_, err := r.Await(ctx)
	require.NoError(t, err)
}

// serverOf is a server that nobody has started, and the driver's side of its queue.
func serverOf(t *testing.T, disk Disk) (*server, *virtiotest.Ring) {
	t.Helper()
	dev, err := New(Config{Disk: disk, Size: 1 << 20})
	require.NoError(t, err)
	mem := virtiotest.NewMemory(1<<32, 16<<20)
	r := virtiotest.NewRing(mem, queueSize, queue.Features{})
	q, err := queue.New(r.State, queue.Features{}, mem, r.Kick, r.Interrupt)
	require.NoError(t, err)
	return newServer(dev, q, slog.New(slog.DiscardHandler)), r
}

// TestTrialsGrow as long as the thread does not sleep in what it does.
func TestTrialsGrow(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	napped := func() (slow bool) {
		tr := trial{length: 1}
		tr.begin()
		time.Sleep(time.Millisecond)
		slow, _ = tr.went(true)
		return slow
	}
	require.True(t, napped())
	tr := trial{length: longestTrial / 2, begun: true, done: longestTrial/2 - 1, sleeps: threadSleeps() + 1<<30}
	for range 2 {
		_, over := tr.went(true)
		require.True(t, over)
		require.Equal(t, longestTrial, tr.length)
		tr.done, tr.sleeps = longestTrial-1, threadSleeps()+1<<30 // whatever else the thread does
	}
}

// TestQuickDisksNeedNoWorkers: on one that is quick, what comes behind the first
// requests is done one by one; a slow one gets all of them at a time.
func TestQuickDisksNeedNoWorkers(t *testing.T) {
	for _, c := range []struct {
		name string
		disk Disk
		want bool // requests are done where they are taken, in the end
	}{{"quick", nullDisk{}, true}, {"slow", sleepyDisk{}, false}} {
		t.Run(c.name, func(t *testing.T) {
			s, r := serverOf(t, c.disk)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error)
			go func() { done <- s.serve(ctx) }()
			for range 4 * handOver { // by two, so that one waits for the other
				addRead(r, 0)
				addRead(r, 1)
				r.Publish()
				for range 2 {
					u, err := r.Await(ctx)
					require.NoError(t, err)
					r.Free(u)
				}
			}
			cancel()
			require.ErrorIs(t, <-done, context.Canceled)
			require.Equal(t, c.want, s.handing == 0)
			require.Equal(t, c.want, s.next == handOver, "a slow disk is tried less and less often")
		})
	}
}

// TestLongRequestsThatWaitGoToWorkers even where the disk is quick.
func TestLongRequestsThatWaitGoToWorkers(t *testing.T) {
	s, r := serverOf(t, nullDisk{})
	s.handing = 0
	long := &request{kind: typeIn, room: small + sectorSize}
	require.True(t, s.here(long), "nothing waits for it")
	addRead(r, 0)
	r.Publish()
	require.True(t, s.here(long), "the end of one that was cut waits for it")
	addRead(r, 1)
	r.Publish()
	require.True(t, s.here(&request{kind: typeIn, room: small}))
	require.False(t, s.here(long))
	require.False(t, s.here(&request{kind: typeOut, out: [][]byte{make([]byte, small), make([]byte, 1)}}))
}

// TestWhatIsUnderWayIsFinishedBeforeAReset looks for reads after the driver was
// told that the device rests.
func TestWhatIsUnderWayIsFinishedBeforeAReset(t *testing.T) {
	disk := newDisk(8)
	disk.gate, disk.waiting = make(chan struct{}), make(chan struct{}, 100)
	d := start(t, Config{Disk: disk, Size: 4096, Depth: 4}, features)
	r := d.Rings[0]
	for range 3 {
		addRead(r, 0)
	}
	r.Publish()
	for range 3 {
		<-disk.waiting
	}
	paused := make(chan error)
	go func() { paused <- d.State.Pause(context.Background()) }()
	select {
	case err := <-paused:
		require.NoError(t, err)
		require.Fail(t, "paused with reads under way")
	case <-time.After(20 * time.Millisecond):
	}
	close(disk.gate)
	require.NoError(t, <-paused)
	for range 3 {
		q, err := r.Used()
		require.NoError(t, err)
		require.NotNil(t, q, "done and shown")
	}
	addRead(r, 0)
	r.Publish()
	d.State.Resume()
	_, err := r.Await(d.Context())
	require.NoError(t, err)
}

// TestManyRequestsOnManyQueues checks each byte that comes back.
func TestManyRequestsOnManyQueues(t *testing.T) {
	const queues, perQueue, sectors = 4, 2000, 32
	disk := newDisk(queues * sectors)
	d := start(t, Config{Disk: disk, Size: int64(len(disk.bytes)), Queues: queues, Depth: 8}, features)
	ctx := d.Context()
	var wg sync.WaitGroup
	for i, r := range d.Rings {
		wg.Go(func() { exercise(ctx, t, r, uint64(i*sectors), sectors, perQueue/2/sectors) })
	}
	wg.Wait()
	require.EqualValues(t, 15, d.State.Status())
}

// exercise writes sectors of its own and reads them back, several at a time.
func exercise(ctx context.Context, t *testing.T, r *virtiotest.Ring, first, sectors uint64, rounds int) {
	for round := range rounds {
		for s := range sectors {
			r.Add(virtiotest.Out(header(typeOut, first+s)), virtiotest.Out(pattern(sectorSize, byte(s)+byte(round))), virtiotest.In(1))
			if s%3 == 0 {
				r.Publish()
			}
		}
		r.Publish()
		for range sectors {
			q, err := r.Await(ctx)
			if !assert.NoError(t, err) {
				return
			}
			assert.Equal(t, []byte{byte(statusOK)}, r.In(q))
			r.Free(q)
		}
		for s := range sectors {
			got, err := r.Do(ctx, virtiotest.Out(header(typeIn, first+s)), virtiotest.In(sectorSize), virtiotest.In(1))
			if !assert.NoError(t, err) {
				return
			}
			assert.Equal(t, append(pattern(sectorSize, byte(s)+byte(round)), byte(statusOK)), got)
		}
	}
}

// nullDisk does nothing, at once.
type nullDisk struct{}

func (nullDisk) ReadAt([][]byte, int64) error         { return nil }
func (nullDisk) WriteAt([][]byte, int64) error        { return nil }
func (nullDisk) Flush() error                         { return nil }
func (nullDisk) Discard(int64, int64) error           { return nil }
func (nullDisk) WriteZeroes(int64, int64, bool) error { return nil }

// sleepyDisk does nothing, slowly.
type sleepyDisk struct{ nullDisk }

func (sleepyDisk) ReadAt([][]byte, int64) error { time.Sleep(time.Millisecond); return nil }

// bench is a server of one queue with a null disk and depth reads in the ring,
// which are offered again as they are used.
func bench(b *testing.B, depth int) {
	dev, err := New(Config{Disk: nullDisk{}, Size: 1 << 40})
	require.NoError(b, err)
	f := queue.Features{IndirectDesc: true, EventIdx: true}
	mem := virtiotest.NewMemory(1<<32, 16<<20)
	r := virtiotest.NewRing(mem, queueSize, f)
	r.Indirect = true
	q, err := queue.New(r.State, f, mem, r.Kick, r.Interrupt)
	require.NoError(b, err)
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error)
	s := newServer(dev, q, slog.New(slog.DiscardHandler))
	go func() { done <- s.serve(ctx) }()
	var heads []uint16
	for range depth {
		heads = append(heads, r.Add(virtiotest.Out(header(typeIn, 8)), virtiotest.In(4096), virtiotest.In(1)).Head())
	}
	r.Publish()
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		if err := r.AwaitAny(ctx); err != nil {
			b.Fatal(err)
		}
		r.Offer(heads[i%depth])
		r.Publish()
	}
	b.StopTimer()
	cancel()
	require.ErrorIs(b, <-done, context.Canceled)
}

// BenchmarkNullDisk is requests through queue and parser, with the driver on another
// goroutine and 32 of them in the ring, so that hardly anybody sleeps. It says what
// a request costs beside the disk.
func BenchmarkNullDisk(b *testing.B) { bench(b, 32) }
