package net

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/devices/ethernet"
	"github.com/huskvm/husk/devices/virtio"
	"github.com/huskvm/husk/devices/virtio/virtiotest"
)

// provide gives the device n buffers to receive into, each made of pieces.
func (c *card) provide(n int, pieces ...int) {
	for range n {
		var b []virtiotest.Buffer
		for _, p := range pieces {
			b = append(b, virtiotest.In(p))
		}
		c.Rings[0].Add(b...)
	}
	c.Rings[0].Publish()
}

// receive takes a frame from the buffers that the device has used, as a driver
// does, and how many those were.
func (c *card) receive() (frame []byte, buffers int) {
	c.t.Helper()
	for want := 1; buffers < want; buffers++ {
		q, err := c.Rings[0].Await(c.Context())
		require.NoError(c.t, err)
		in := c.Rings[0].In(q)
		frame = append(frame, in[:q.Written]...)
		if want == 1 {
			want = int(binary.LittleEndian.Uint16(frame[ethernet.HeaderBuffers:]))
			require.Positive(c.t, want)
		}
		if buffers+1 < want {
			require.Len(c.t, in, int(q.Written), "all but the last are full")
		}
		c.Rings[0].Free(q)
	}
	return frame, buffers
}

// received checks that the next frame is that, in so many buffers.
func (c *card) received(frame []byte, buffers int) {
	c.t.Helper()
	got, n := c.receive()
	require.Equal(c.t, buffers, n)
	binary.LittleEndian.PutUint16(got[ethernet.HeaderBuffers:], 1)
	require.True(c.t, bytes.Equal(frame, got), "%d bytes, got %d", len(frame), len(got))
}

// rests pauses the device and checks that it holds no buffer.
func (c *card) rests() {
	c.t.Helper()
	require.NoError(c.t, c.State.Pause(c.Context()))
	c.State.SetQueueSelect(0)
	s := c.State.QueueState()
	require.Equal(c.t, s.NextUsed, s.NextAvail, "what was not used was given back")
	c.State.Resume()
}

const tsoGuest = featMrgRxbuf | featGuestCsum | featGuestTSO4 | featGuestTSO6

func TestAFrameTakesAsManyBuffersAsItFills(t *testing.T) {
	for _, features := range []uint64{0, common} {
		c := newCard(t, 1)
		c.Start(features | tsoGuest)
		c.provide(100, 1526)
		lane := c.link.lanes[0]
		small, exact := newFrame(ethernet.Header{}, 60), newFrame(ethernet.Header{}, 2*1526-ethernet.HeaderSize)
		big := newFrame(ethernet.Header{Flags: 1, Segment: ethernet.SegmentTCP6, SegmentSize: 1440}, ethernet.MaxFrame-ethernet.HeaderSize)
		lane.give(small, exact, big, small)
		c.received(small, 1)
		c.received(exact, 2)
		c.received(big, 43)
		c.received(small, 1)
		c.rests()
		lane.give(small)
		c.received(small, 1)
		require.EqualValues(t, 5, c.d.Stats().RxFrames)
		require.Zero(t, c.d.Stats().RxDropped)
	}
}

func TestWithoutMergeableBuffersAFrameTakesOne(t *testing.T) {
	c := newCard(t, 1)
	c.Start(common)
	c.provide(3, 12, 600, 914)
	lane := c.link.lanes[0]
	fits, long := newFrame(ethernet.Header{}, 1514), newFrame(ethernet.Header{}, 1515)
	lane.give(fits, long, fits)
	c.received(fits, 1)
	c.received(fits, 1)
	require.EqualValues(t, 1, c.d.Stats().RxDropped)
	c.rests()
}

func TestABufferInSmallPieces(t *testing.T) {
	c := newCard(t, 1)
	c.Start(common | tsoGuest)
	ones := make([]int, 1024)
	for i := range ones {
		ones[i] = 1
	}
	c.provide(3, ones...)
	c.provide(1, 2000)
	f := newFrame(ethernet.Header{}, 3000)
	c.link.lanes[0].give(f, newFrame(ethernet.Header{}, 1500))
	c.received(f, 3)
	c.received(newFrame(ethernet.Header{}, 1500), 1)
}

func TestAFrameWaitsForTheBuffersItTakes(t *testing.T) {
	c := newCard(t, 1)
	c.d.patience = time.Minute
	c.Start(common | tsoGuest)
	lane := c.link.lanes[0]
	big, small := newFrame(ethernet.Header{}, 5000), newFrame(ethernet.Header{}, 60)
	c.provide(1, 1000)
	lane.give(big, small)
	c.eventually("it begins", func() bool { return lane.calls() > 0 })
	c.provide(2, 3000)
	c.provide(1, 1000)
	c.received(big, 3)
	c.received(small, 1)
}

func TestAFrameThatNeverFitsIsDropped(t *testing.T) {
	c := newCard(t, 1)
	c.d.patience = time.Millisecond
	c.Start(common | tsoGuest)
	big, small := newFrame(ethernet.Header{}, 5000), newFrame(ethernet.Header{}, 60)
	c.provide(2, 1000)
	c.link.lanes[0].give(big, small)
	c.received(small, 1)
	require.Equal(t, Stats{RxFrames: 1, RxBytes: 60, RxDropped: 1}, c.d.Stats())
	c.rests()
}

func TestWithoutBuffersTheDeviceSleeps(t *testing.T) {
	c := newCard(t, 1)
	c.Start(common | tsoGuest)
	lane := c.link.lanes[0]
	f := newFrame(ethernet.Header{}, 60)
	lane.give(f, f, f)
	c.provide(2, 1526)
	c.received(f, 1)
	c.received(f, 1)
	require.Equal(t, 2, lane.calls())
	for range 3 {
		c.Kicks[0].Signal() // about nothing
	}
	c.provide(1, 1526)
	c.received(f, 1)
	require.Equal(t, 3, lane.calls(), "no frame is looked for that nothing could hold")
}

func TestFramesFromBeforeAreDropped(t *testing.T) {
	c := newCard(t, 1)
	c.Start(common | featMrgRxbuf)
	c.provide(10, 1526)
	valid := newFrame(ethernet.Header{Flags: ethernet.HeaderDataValid}, 60)
	c.link.lanes[0].give(
		newFrame(ethernet.Header{Flags: ethernet.HeaderNeedsChecksum}, 60),
		newFrame(ethernet.Header{Segment: ethernet.SegmentTCP4}, 60),
		newFrame(ethernet.Header{Segment: 0x77}, 60),
		newFrame(ethernet.Header{}, 5),
		newFrame(ethernet.Header{}, 60000),
		valid,
	)
	c.received(newFrame(ethernet.Header{}, 60), 1) // without the flag
	require.Equal(t, Stats{RxFrames: 1, RxBytes: 60, RxDropped: 5}, c.d.Stats())
}

func TestABufferWithoutRoomForAHeader(t *testing.T) {
	for _, features := range []uint64{common, common | featMrgRxbuf} {
		c := newCard(t, 1)
		c.Start(features)
		c.provide(1, 11)
		<-c.ConfigInterrupt.C()
		require.NotZero(t, c.State.Status()&virtio.StatusNeedsReset)
		c.Start(features)
		c.provide(1, 1526)
		c.link.lanes[0].give(newFrame(ethernet.Header{}, 60))
		c.received(newFrame(ethernet.Header{}, 60), 1)
	}
}

func TestABurstIsFewInterrupts(t *testing.T) {
	c := newCard(t, 1)
	c.Start(tsoGuest)
	c.provide(200, 1526)
	frames := make([][]byte, 100)
	for i := range frames {
		frames[i] = newFrame(ethernet.Header{}, 60)
	}
	c.link.lanes[0].give(frames...)
	for _, f := range frames {
		c.received(f, 1)
	}
	require.LessOrEqual(t, c.Interrupts[0].Count(), 5)
}
