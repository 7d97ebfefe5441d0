package net

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/devices/ethernet"
	"github.com/huskvm/husk/devices/virtio"
	"github.com/huskvm/husk/devices/virtio/queue"
	"github.com/huskvm/husk/devices/virtio/virtiotest"
)

func FuzzCommand(f *testing.F) {
	for _, p := range [][]byte{
		{0, 0, 1},
		{0, 5, 0},
		{1, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 1, 0, 0, 0, 0},
		{1, 0, 0, 0, 0, 0, 0xab, 0xaa, 0xaa, 0x2a},
		{1, 1, 2, 0, 0, 0, 0, 9},
		{2, 0, 1, 0},
		{4, 0, 2, 0},
		{5, 0, 0x82, 3, 0, 0, 0, 0, 0, 0},
	} {
		f.Add(p, uint64(ctrlAll))
	}
	f.Fuzz(func(t *testing.T, p []byte, features uint64) {
		link := newLink(4)
		d, err := New(link, mac, nil)
		require.NoError(t, err)
		pairs := 0
		ok := d.command(p, features, func(n int) error { pairs = n; return nil })
		require.True(t, pairs >= 0 && pairs <= 4)
		require.True(t, unicast(d.macNow[:]))
		require.Zero(t, link.gives()&^toGuest(features))
		if !ok {
			require.Zero(t, pairs)
			require.Equal(t, d.mac, d.macNow)
			require.Zero(t, link.gives())
		}
	})
}

func FuzzSent(f *testing.F) {
	for _, h := range []ethernet.Header{
		{},
		{Flags: 1, ChecksumStart: 34, ChecksumOffset: 16},
		{Flags: 1, Segment: 1, SegmentSize: 1448, HeaderBytes: 66, ChecksumStart: 34, ChecksumOffset: 16},
		{Flags: 1, Segment: 4 | 0x80, SegmentSize: 1428, HeaderBytes: 86, ChecksumStart: 54, ChecksumOffset: 16},
	} {
		f.Add(newFrame(h, 100), uint16(60000), uint32(allOffloads))
		f.Add(newFrame(h, 100), uint16(0), uint32(allOffloads))
	}
	d, err := New(newLink(1), mac, nil)
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, p []byte, more uint16, may uint32) {
		x := newTransmitter(d, &virtio.Session{}, nil, nil)
		x.may = valid(ethernet.Offloads(may))
		whole := append(bytes.Clone(p), make([]byte, more)...)
		size, err := x.prepare(&queue.Chain{Out: [][]byte{p, make([]byte, more)}})
		if err != nil {
			require.ErrorIs(t, err, ethernet.ErrFrame)
			return
		}
		sent := bytes.Join(x.frame, nil)
		require.Len(t, sent, size+ethernet.HeaderSize)
		require.True(t, size >= ethernet.MinFrame && len(sent) <= ethernet.MaxFrame)
		require.Equal(t, whole[ethernet.HeaderSize:], sent[ethernet.HeaderSize:])
		h := ethernet.ParseHeader(sent)
		require.True(t, h.Flags == 0 || x.may&ethernet.Checksum != 0 && int(h.ChecksumStart)+int(h.ChecksumOffset)+2 <= size)
		if h.Segment != 0 {
			require.True(t, h.Flags == 1 && h.SegmentSize > 0 && int(h.HeaderBytes) <= size && x.may&(ethernet.TSO4|ethernet.TSO6) != 0)
		}
		again, err := checkSent(h, size, x.may)
		require.NoError(t, err)
		require.Equal(t, h, again)
	})
}

// FuzzReceive has frames of any length go into buffers of any cut: two bytes of
// layout are a buffer's size, and every fifth buffer has two more pieces.
func FuzzReceive(f *testing.F) {
	f.Add([]byte{0, 6, 0, 6, 0, 6, 0, 6, 0, 6}, []byte{0, 1, 60, 0, 0, 9}, true)
	f.Add([]byte{12, 0, 13, 0, 0, 6, 100, 0, 0, 1, 1, 1}, []byte{0xff, 0xff, 60, 0}, true)
	f.Add([]byte{0, 6, 0, 6, 0, 1}, []byte{0, 1, 60, 0, 0, 9}, false)
	f.Add([]byte{11, 0}, []byte{60, 0}, true)
	f.Fuzz(func(t *testing.T, layout, lengths []byte, mergeable bool) {
		link := newLink(1)
		d, err := New(link, mac, nil)
		require.NoError(t, err)
		d.patience = 0
		mem := virtiotest.NewMemory(1<<32, 1<<20)
		r := virtiotest.NewRing(mem, 64, queue.Features{IndirectDesc: true})
		r.Indirect = true
		for i := 0; i+1 < len(layout) && i < 128; i += 2 {
			b := []virtiotest.Buffer{virtiotest.In(int(binary.LittleEndian.Uint16(layout[i:]) % 8192))}
			if i%10 == 8 {
				b = append(b, virtiotest.In(i), virtiotest.In(1))
			}
			r.Add(b...)
		}
		r.Publish()
		s := &virtio.Session{Log: slog.New(slog.DiscardHandler)}
		if mergeable {
			s.Features = featMrgRxbuf
		}
		s.Features |= tsoGuest &^ featMrgRxbuf
		d.Negotiated(s.Features)
		ctx, cancel := context.WithCancel(context.Background())
		q, err := queue.New(r.State, queue.Features{IndirectDesc: true}, mem, noMore{cancel}, r.Interrupt)
		require.NoError(t, err)
		sent := map[string]bool{}
		lane := link.lanes[0]
		for i := 0; i+1 < len(lengths) && i < 40; i += 2 {
			p := newFrame(ethernet.Header{}, int(binary.LittleEndian.Uint16(lengths[i:])))
			sent[string(p)] = true
			lane.waiting = append(lane.waiting, p)
		}
		rx := newReceiver(d, s, q, ending{lane, cancel})
		err = rx.serve(ctx)
		require.Error(t, err)
		q.Flush()
		for left := 0; ; {
			u, err := r.Used()
			require.NoError(t, err)
			if u == nil {
				require.Zero(t, left)
				break
			}
			in := r.In(u)
			require.LessOrEqual(t, int(u.Written), len(in))
			got := in[:u.Written]
			if left = int(binary.LittleEndian.Uint16(got[ethernet.HeaderBuffers:])); !mergeable {
				require.Equal(t, 1, left)
			}
			for left--; left > 0; left-- {
				require.Len(t, in, int(u.Written))
				u, err = r.Used()
				require.NoError(t, err)
				require.NotNil(t, u)
				in = r.In(u)
				got = append(got, in[:u.Written]...)
			}
			binary.LittleEndian.PutUint16(got[ethernet.HeaderBuffers:], 1)
			require.True(t, sent[string(got)], "a frame of %d bytes was never sent", len(got))
		}
		state := q.State()
		require.Equal(t, state.NextAvail, state.NextUsed)
	})
}

// ending ends its receiver when there are no more frames.
type ending struct {
	*fakeLane
	end func()
}

func (e ending) Wait(context.Context) error { e.end(); return io.EOF }

// noMore ends its receiver when there are no more buffers.
type noMore struct{ end func() }

func (k noMore) Wait(ctx context.Context, idle func() bool) error {
	if ctx.Err() == nil && idle() {
		k.end()
	}
	return ctx.Err()
}

func (k noMore) Block(ctx context.Context, idle func() bool) error { return k.Wait(ctx, idle) }
