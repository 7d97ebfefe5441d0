package queue_test

import (
	"context"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/huskvm/husk/devices/virtio/queue"
	"github.com/huskvm/husk/devices/virtio/virtiotest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var allFeatures = []queue.Features{{}, {IndirectDesc: true}, {EventIdx: true}, {IndirectDesc: true, EventIdx: true}}

func forAll(t *testing.T, test func(t *testing.T, f queue.Features)) {
	for _, f := range allFeatures {
		t.Run(fmt.Sprintf("%+v", f), func(t *testing.T) { test(t, f) })
	}
}

// pair is both sides of a queue.
func pair(t testing.TB, size int, f queue.Features) (*virtiotest.Ring, *queue.Queue, *virtiotest.Memory) {
	t.Helper()
	mem := virtiotest.NewMemory(1<<32, 16<<20)
	r := virtiotest.NewRing(mem, size, f)
	r.Indirect = f.IndirectDesc
	return r, open(t, r, mem, f), mem
}

func open(t testing.TB, r *virtiotest.Ring, mem queue.Memory, f queue.Features) *queue.Queue {
	t.Helper()
	q, err := queue.New(r.State, f, mem, r.Kick, r.Interrupt)
	require.NoError(t, err)
	return q
}

func timeout(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// next takes a chain that must be there.
func next(t testing.TB, q *queue.Queue) *queue.Chain {
	t.Helper()
	c, ok, err := q.Next()
	require.NoError(t, err)
	require.True(t, ok, "the queue is empty")
	return c
}

func TestAChainGoesThereAndBack(t *testing.T) {
	forAll(t, func(t *testing.T, f queue.Features) {
		r, q, _ := pair(t, 8, f)
		_, ok, err := q.Next()
		require.NoError(t, err)
		require.False(t, ok)

		r.Add(virtiotest.Out([]byte("head")), virtiotest.Out(nil), virtiotest.Out([]byte("er")), virtiotest.In(3), virtiotest.In(5))
		_, ok, err = q.Next()
		require.NoError(t, err)
		require.False(t, ok, "not published yet")

		r.Publish()
		c := next(t, q)
		require.Equal(t, [][]byte{[]byte("head"), []byte("er")}, c.Out, "an empty buffer is left out")
		require.EqualValues(t, 8, queue.Len(c.In))
		all, err := io.ReadAll(c)
		require.NoError(t, err)
		require.Equal(t, "header", string(all))
		n, err := c.Write([]byte("used"))
		require.NoError(t, err)
		q.Push(c, uint32(n))

		used, err := r.Used()
		require.NoError(t, err)
		require.Nil(t, used, "not flushed yet")
		q.Flush()
		used, err = r.Used()
		require.NoError(t, err)
		require.EqualValues(t, 4, used.Written)
		require.Equal(t, "used\xcc\xcc\xcc\xcc", string(r.In(used)))
	})
}

func TestReadAndWriteCrossBuffers(t *testing.T) {
	r, q, _ := pair(t, 8, queue.Features{})
	r.Add(virtiotest.Out([]byte("ab")), virtiotest.Out([]byte("cdef")), virtiotest.In(2), virtiotest.In(2))
	r.Publish()
	c := next(t, q)
	var p [3]byte
	_, err := io.ReadFull(c, p[:])
	require.NoError(t, err)
	require.Equal(t, "abc", string(p[:]))
	require.Equal(t, [][]byte{[]byte("def")}, c.Out)
	_, err = io.ReadFull(c, p[:])
	require.NoError(t, err)
	_, err = c.Read(p[:])
	require.ErrorIs(t, err, io.EOF)
	n, err := c.Write([]byte("12345"))
	require.ErrorIs(t, err, io.ErrShortWrite)
	require.Equal(t, 4, n)
	require.Empty(t, c.In)
}

// TestATableBehindDirectDescriptors is the unusual layout that §2.7.5.3.2 has
// devices accept, with the write flag on the table, which they ignore.
func TestTheAddressesOfBuffers(t *testing.T) {
	forAll(t, func(t *testing.T, f queue.Features) {
		r, q, mem := pair(t, 8, f)
		r.Add(virtiotest.Out([]byte("head")), virtiotest.In(0), virtiotest.In(3), virtiotest.In(5))
		r.Add(virtiotest.In(7))
		r.Publish()
		for range 2 {
			c := next(t, q)
			i := 0
			for gpa, n := range c.InRanges {
				require.Same(t, &c.In[i][0], &mem.At(gpa, n)[0])
				require.EqualValues(t, len(c.In[i]), n)
				i++
			}
			require.Equal(t, len(c.In), i)
			q.Push(c, 0)
		}
	})
}

func TestATableBehindDirectDescriptors(t *testing.T) {
	r, q, mem := pair(t, 4, queue.Features{IndirectDesc: true})
	data, table := mem.Alloc(64), mem.Alloc(64)
	copy(mem.At(data, 4), "abcd")
	putTable(mem, table, virtiotest.Descriptor{Addr: data + 1, Len: 1, Flags: virtiotest.FlagNext, Next: 3},
		virtiotest.Descriptor{}, virtiotest.Descriptor{}, virtiotest.Descriptor{Addr: data + 2, Len: 1, Flags: virtiotest.FlagWrite})
	r.SetDescriptor(2, virtiotest.Descriptor{Addr: data, Len: 1, Flags: virtiotest.FlagNext, Next: 1})
	r.SetDescriptor(1, virtiotest.Descriptor{Addr: table, Len: 64, Flags: virtiotest.FlagIndirect | virtiotest.FlagWrite})
	r.Offer(2)
	r.Publish()
	c := next(t, q)
	require.Equal(t, [][]byte{[]byte("a"), []byte("b")}, c.Out)
	require.Equal(t, [][]byte{[]byte("c")}, c.In)
}

func putTable(mem *virtiotest.Memory, gpa uint64, table ...virtiotest.Descriptor) {
	for i, d := range table {
		virtiotest.PutDescriptor(mem.At(gpa+16*uint64(i), 16), d)
	}
}

func TestIndicesWrapAround(t *testing.T) {
	forAll(t, func(t *testing.T, f queue.Features) {
		r, _, mem := pair(t, 4, f)
		r.StartAt(65_000)
		q := open(t, r, mem, f)
		for i := range 1000 {
			r.Add(virtiotest.Out([]byte{byte(i), byte(i >> 8)}), virtiotest.In(2))
			r.Publish()
			c := next(t, q)
			var p [2]byte
			_, err := io.ReadFull(c, p[:])
			require.NoError(t, err)
			_, err = c.Write(p[:])
			require.NoError(t, err)
			q.Push(c, 2)
			q.Flush()
			used, err := r.Used()
			require.NoError(t, err)
			require.NotNil(t, used)
			if got := r.In(used); got[0] != byte(i) || got[1] != byte(i>>8) {
				require.Fail(t, "wrong data", "round %d: %v", i, got)
			}
			r.Free(used)
		}
	})
}

func TestChainsAreUsedInAnyOrder(t *testing.T) {
	r, q, _ := pair(t, 8, queue.Features{})
	a, b := r.Add(virtiotest.In(1)), r.Add(virtiotest.In(1))
	r.Publish()
	first, second := next(t, q), next(t, q)
	q.Push(second, 1)
	q.Push(first, 0)
	q.Flush()
	for _, want := range []*virtiotest.Request{b, a} {
		got, err := r.Used()
		require.NoError(t, err)
		require.Same(t, want, got)
	}
}

func TestStateIsEnoughToGoOn(t *testing.T) {
	forAll(t, func(t *testing.T, f queue.Features) {
		r, q, mem := pair(t, 8, f)
		for round := range 20 {
			for i := range 4 {
				r.Add(virtiotest.Out([]byte{byte(round), byte(i)}))
			}
			r.Publish()
			for range 2 {
				q.Push(next(t, q), 0)
			}
			held := next(t, q)
			q.Return(held)
			q.Flush()
			r.State = q.State()
			q = open(t, r, mem, f)
			for i := 2; i < 4; i++ {
				c := next(t, q)
				require.Equal(t, []byte{byte(round), byte(i)}, c.Out[0])
				q.Push(c, 0)
			}
			q.Flush()
			for range 4 {
				used, err := r.Used()
				require.NoError(t, err)
				require.NotNil(t, used)
			}
		}
		require.EqualValues(t, 80, q.State().NextUsed)
	})
}

func TestTheDriverIsInterruptedAsItAsks(t *testing.T) {
	forAll(t, func(t *testing.T, f queue.Features) {
		r, q, _ := pair(t, 8, f)
		use := func() {
			r.Add(virtiotest.In(1))
			r.Publish()
			q.Push(next(t, q), 0)
			q.Flush()
			_, err := r.Used()
			require.NoError(t, err)
		}
		r.SetInterrupts(false)
		use()
		use()
		require.Zero(t, r.Interrupt.Count())
		r.SetInterrupts(true)
		use()
		require.Equal(t, 1, r.Interrupt.Count())
		q.Flush()
		require.Equal(t, 1, r.Interrupt.Count(), "nothing new")

		if f.EventIdx {
			use() // the driver did not move its event
			require.Equal(t, 1, r.Interrupt.Count())
			r.SetUsedEvent(5)
			use()
			require.Equal(t, 1, r.Interrupt.Count(), "the sixth was asked for")
			use()
			require.Equal(t, 2, r.Interrupt.Count())
		}
	})
}

func TestABatchIsOneInterrupt(t *testing.T) {
	forAll(t, func(t *testing.T, f queue.Features) {
		r, q, _ := pair(t, 8, f)
		r.SetInterrupts(true)
		for range 8 / 2 {
			r.Add(virtiotest.In(1))
		}
		r.Publish()
		for range 8 / 2 {
			q.Push(next(t, q), 0)
		}
		q.Flush()
		require.Equal(t, 1, r.Interrupt.Count())
	})
}

func TestTheDriverNotifiesOnlyWhoWaits(t *testing.T) {
	forAll(t, func(t *testing.T, f queue.Features) {
		r, q, _ := pair(t, 8, f)
		ctx := timeout(t)
		ended, cancel := context.WithCancel(ctx)
		cancel()
		require.ErrorIs(t, q.Wait(ended), context.Canceled) // asked for a notification
		r.Add(virtiotest.In(1))
		r.Publish()
		kicks := r.Kick.Count()
		if f.EventIdx {
			require.Equal(t, 1, kicks)
		}
		require.NoError(t, q.Wait(ctx), "there is a chain already")
		q.Push(next(t, q), 0)
		for range 4 {
			r.Add(virtiotest.In(1))
			r.Publish()
		}
		require.Equal(t, kicks, r.Kick.Count(), "nobody waits")
	})
}

// TestNoWakeupIsLost has both sides sleep and wake as fast as they can.
func TestNoWakeupIsLost(t *testing.T) {
	forAll(t, func(t *testing.T, f queue.Features) {
		r, q, _ := pair(t, 16, f)
		const requests = 4000
		ctx, cancel := context.WithCancel(timeout(t))
		served := make(chan error)
		go func() {
			for {
				c, err := q.Take(ctx)
				if err != nil {
					served <- err
					return
				}
				var p [4]byte
				if _, err := io.ReadFull(c, p[:]); err != nil {
					panic(err)
				}
				n, _ := c.Write(p[:])
				q.Push(c, uint32(n))
				if p[0]%3 == 0 {
					q.Flush()
				}
			}
		}()
		for sent, got := 0, 0; got < requests; {
			for n := 0; sent < requests && r.Room() >= 2 && n <= sent%7; n++ {
				r.Add(virtiotest.Out([]byte{byte(sent), byte(sent >> 8), byte(sent >> 16), 1}), virtiotest.In(4))
				sent++
			}
			r.Publish()
			used, err := r.Await(ctx)
			require.NoError(t, err, "after %d requests", got)
			b := r.In(used)
			if b[0] != byte(got) || b[1] != byte(got>>8) || b[3] != 1 {
				require.Fail(t, "wrong data", "request %d: %v", got, b)
			}
			r.Free(used)
			got++
		}
		cancel()
		require.ErrorIs(t, <-served, context.Canceled)
	})
}

func TestTakeEndsThoughThereIsWork(t *testing.T) {
	r, q, _ := pair(t, 4, queue.Features{})
	r.Add(virtiotest.In(1))
	r.Publish()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := q.Take(ctx)
	require.ErrorIs(t, err, context.Canceled)
}

// ways counts how a queue waits, and what its pace hears.
type ways struct{ waited, blocked, took, rests int }

func (w *ways) Wait(context.Context, func() bool) error  { w.waited++; return context.Canceled }
func (w *ways) Block(context.Context, func() bool) error { w.blocked++; return context.Canceled }
func (w *ways) Took()                                    { w.took++ }
func (w *ways) Rest()                                    { w.rests++ }

// TestWhoHasAThreadBlocksIt and hears of what it does.
func TestWhoHasAThreadBlocksIt(t *testing.T) {
	mem := virtiotest.NewMemory(ram, 1<<20)
	r := virtiotest.NewRing(mem, 4, queue.Features{})
	var w ways
	q, err := queue.New(r.State, queue.Features{}, mem, &w, r.Interrupt)
	require.NoError(t, err)
	require.ErrorIs(t, q.Wait(timeout(t)), context.Canceled)
	require.Equal(t, ways{waited: 1}, w)
	q.SetPace(&w)
	r.Add(virtiotest.In(1))
	r.Publish()
	q.Push(next(t, q), 0)
	require.ErrorIs(t, q.Wait(timeout(t)), context.Canceled)
	require.Equal(t, ways{waited: 1, blocked: 1, took: 1, rests: 1}, w)
}

func TestNothingIsAllocatedForARequest(t *testing.T) {
	forAll(t, func(t *testing.T, f queue.Features) {
		r, q, _ := pair(t, 8, f)
		// The driver of the test allocates, so it offers the same request again.
		r.Add(virtiotest.Out([]byte("request")), virtiotest.In(512), virtiotest.In(1))
		r.Publish()
		q.Push(next(t, q), 0)
		q.Flush()
		used, err := r.Used()
		require.NoError(t, err)
		head := used.Head()
		ctx := timeout(t)
		allocs := testing.AllocsPerRun(100, func() {
			r.Offer(head)
			r.Publish()
			c, err := q.Take(ctx)
			if err != nil {
				panic(err)
			}
			var p [4]byte
			_, _ = c.Read(p[:])
			_, _ = c.Write(p[:])
			q.Push(c, 4)
			q.Flush()
		})
		require.Zero(t, allocs)
	})
}
