package queue_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/devices/virtio/queue"
	"github.com/huskvm/husk/devices/virtio/virtiotest"
)

// FuzzQueue lets its input be the guest's memory: the descriptor table, both
// rings and the tables of indirect descriptors. Whatever stands there, a chain
// lies in RAM and is bounded, and the queue keeps its count.
func FuzzQueue(f *testing.F) {
	const size, ringBytes = 8, 512
	desc := func(b []byte, i int, d virtiotest.Descriptor) { virtiotest.PutDescriptor(b[16*i:], d) }
	seed := make([]byte, ringBytes)
	desc(seed, 0, virtiotest.Descriptor{Addr: ram + 0x100, Len: 16, Flags: next1, Next: 1})
	desc(seed, 1, virtiotest.Descriptor{Addr: ram + 0x110, Len: 32, Flags: next1 | write, Next: 2})
	desc(seed, 2, virtiotest.Descriptor{Addr: ram + 0x130, Len: 1, Flags: write})
	desc(seed, 3, virtiotest.Descriptor{Addr: ram + 0x180, Len: 48, Flags: indir})
	desc(seed[0x180:], 0, virtiotest.Descriptor{Addr: ram + 0x100, Len: 16, Flags: next1, Next: 2})
	desc(seed[0x180:], 2, virtiotest.Descriptor{Addr: ram + 0x100, Len: 16, Flags: write})
	copy(seed[16*size:], []byte{0, 0, 2, 0, 0, 0, 3, 0})
	f.Add(seed, byte(3))
	f.Add(seed, byte(2))
	f.Add(seed[:200], byte(0))
	f.Fuzz(func(t *testing.T, image []byte, features byte) {
		mem := virtiotest.NewMemory(ram, 4096)
		all := mem.At(ram, 4096)
		copy(all, image)
		feat := queue.Features{IndirectDesc: features&1 != 0, EventIdx: features&2 != 0}
		s := queue.State{Enabled: true, Size: size, Desc: ram, Driver: ram + 16*size, Device: ram + 16*size + 32}
		q, err := queue.New(s, feat, mem, virtiotest.NewSignal(), virtiotest.NewSignal())
		require.NoError(t, err)
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		var held []*queue.Chain
		for i := range 20 {
			c, ok, err := q.Next()
			if err != nil {
				require.False(t, ok)
				break
			}
			if !ok {
				require.Error(t, q.Wait(ended))
				break
			}
			require.LessOrEqual(t, len(c.Out)+len(c.In), 1024+size)
			for _, s := range append(append([][]byte{}, c.Out...), c.In...) {
				require.NotEmpty(t, s)
				require.LessOrEqual(t, len(s), len(all))
			}
			for _, s := range c.In {
				s[0]++ // perhaps the rings themselves
			}
			switch i % 4 {
			case 0:
				q.Push(c, uint32(queue.Len(c.In)))
			case 1:
				q.Push(c, 0)
				q.Flush()
			case 2:
				held = append(held, c)
			case 3:
				q.Return(c)
			}
		}
		for _, c := range held {
			q.Push(c, 0)
		}
		q.Flush()
	})
}
