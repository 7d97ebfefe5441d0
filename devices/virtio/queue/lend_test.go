package queue_test

import (
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/devices/virtio/queue"
	"github.com/huskvm/husk/devices/virtio/virtiotest"
)

// TestAQueueIsLentAndTakenBack: who it is lent to goes on where we were, and we
// where that got.
func TestAQueueIsLentAndTakenBack(t *testing.T) {
	forAll(t, func(t *testing.T, f queue.Features) {
		r, q, mem := pair(t, 8, f)
		for range 3 {
			r.Add(virtiotest.Out([]byte("ours")))
			r.Publish()
			q.Push(next(t, q), 0)
		}
		binary.LittleEndian.PutUint16(mem.At(r.State.Device+2, 2), 77) // a driver that wants to mislead the kernel
		l := q.Lend()
		require.EqualValues(t, 3, l.Next)
		require.Equal(t, 8, l.Size)
		require.EqualValues(t, 3, binary.LittleEndian.Uint16(l.Used[2:]), "what was pushed is shown")
		for name, at := range map[string][2][]byte{
			"descriptors": {l.Desc, mem.At(r.State.Desc, 1)}, "available": {l.Avail, mem.At(r.State.Driver, 1)}, "used": {l.Used, mem.At(r.State.Device, 1)},
		} {
			require.Same(t, &at[1][0], &at[0][0], name)
		}
		require.Same(t, r.Kick, l.Kick)
		require.Same(t, r.Interrupt, l.IRQ)

		for range 3 {
			_, err := r.Used()
			require.NoError(t, err)
		}
		r.Add(virtiotest.Out([]byte("theirs")))
		r.Publish()
		e := l.Used[4+8*3:]
		binary.LittleEndian.PutUint32(e, binary.LittleEndian.Uint32(l.Avail[4+2*3:])&0xffff)
		binary.LittleEndian.PutUint32(e[4:], 0)
		binary.LittleEndian.PutUint16(l.Used[2:], 4)
		q.Flush()
		q.TakeBack(4)
		require.EqualValues(t, 4, q.State().NextAvail)
		require.EqualValues(t, 4, q.State().NextUsed)
		_, err := r.Used()
		require.NoError(t, err)
		_, ok, err := q.Next()
		require.NoError(t, err)
		require.False(t, ok)
		r.Add(virtiotest.Out([]byte("ours again")))
		r.Publish()
		q.Push(next(t, q), 0)
		q.Flush()
		_, err = r.Used()
		require.NoError(t, err)
	})
}
