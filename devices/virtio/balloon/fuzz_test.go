package balloon

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/devices/virtio/queue"
	"github.com/huskvm/husk/devices/virtio/virtiotest"
)

func FuzzRequests(f *testing.F) {
	p := uint32(page + 200)
	f.Add(numbers(p+2, p, p+1, p+1, 0, 0xffffffff, p+9), uint8(inflateq))
	f.Add(numbers(0xffffffff, 0xfffffffe, 0), uint8(inflateq))
	f.Add(figures(uint64(Free), 1, uint64(Total), 2), uint8(statsq))
	f.Add(make([]byte, 2*PageSize), uint8(reportingq))
	f.Fuzz(func(t *testing.T, b []byte, ring uint8) {
		b = b[:min(len(b), 100<<10)]
		require.LessOrEqual(t, len(readStats(&queue.Chain{Out: [][]byte{bytes.Clone(b)}})), int(numStats))
		g := newGuestOf(t, 1<<20)
		g.Start(common | featReporting)
		i := int(ring) % numQueues
		g.do(i, virtiotest.Out(b), virtiotest.In(len(b)))
		want := map[uint64]bool{}
		switch i {
		case inflateq:
			for p := b[:len(b)&^3]; len(p) > 0; p = p[4:] {
				want[uint64(binary.LittleEndian.Uint32(p))] = true
			}
		case deflateq:
		default:
			require.LessOrEqual(t, g.d.Counts().Discarded, uint64(len(b)))
			return
		}
		all := uint64(0)
		for _, r := range g.ram.take() {
			for at := r[0]; at < r[0]+r[1]; at += PageSize {
				require.True(t, want[at/PageSize], "%#x was not asked for", at)
				all++
			}
		}
		c := g.d.Counts()
		require.Equal(t, all*PageSize, c.Discarded)
		if len(b) <= 4*atOnce {
			require.EqualValues(t, len(want)*PageSize, c.Discarded+c.Refused)
		}
	})
}
