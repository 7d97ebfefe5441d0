package net

import (
	"bytes"
	"encoding/binary"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/huskvm/husk/devices/ethernet"
	"github.com/huskvm/husk/devices/virtio"
	"github.com/huskvm/husk/devices/virtio/virtiotest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const common = virtio.FeatIndirectDesc | virtio.FeatEventIdx

var mac = []byte{2, 0, 0, 0, 0, 1}

// A log keeps its lines.
type log struct {
	mu sync.Mutex
	bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Buffer.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Buffer.String()
}

type card struct {
	*virtiotest.Driver
	t    testing.TB
	d    *Device
	link *fakeLink
	log  *log
}

func newCard(t testing.TB, queues int) *card { return newServedCard(t, queues, nil) }

func newServedCard(t testing.TB, queues int, kernel Kernel) *card {
	t.Helper()
	c := &card{t: t, link: newLink(queues), log: new(log)}
	var err error
	c.d, err = New(c.link, mac, kernel)
	require.NoError(t, err)
	c.Driver = virtiotest.NewDriver(t, c.d, slog.New(slog.NewTextHandler(c.log, nil)))
	return c
}

// command has the device do a command, and returns its answer.
func (c *card) command(ring int, p ...byte) byte {
	c.t.Helper()
	got, err := c.Rings[ring].Do(c.Context(), virtiotest.Out(p[:2]), virtiotest.Out(p[2:]), virtiotest.In(1))
	require.NoError(c.t, err)
	require.Len(c.t, got, 1)
	return got[0]
}

// send has the device send a frame, and waits until it is done with it.
func (c *card) send(buffers ...virtiotest.Buffer) {
	c.t.Helper()
	got, err := c.Rings[1].Do(c.Context(), buffers...)
	require.NoError(c.t, err)
	require.Empty(c.t, got)
}

func (c *card) eventually(what string, f func() bool) {
	c.t.Helper()
	require.Eventually(c.t, f, time.Minute, time.Millisecond, what)
}

func TestTheConfiguration(t *testing.T) {
	c := newCard(t, 3)
	require.EqualValues(t, 1, c.State.Type())
	require.Equal(t, []byte{2, 0, 0, 0, 0, 1, 1, 0, 3, 0, 0xdc, 5, 0x10, 0x27, 0, 0, 1, 0xff}, c.Config(18))
	require.Equal(t, 7, c.State.NumQueues())
	c.State.StoreConfig(0, []byte{4})
	require.EqualValues(t, 2, c.Config(1)[0], "the driver can not write it")
}

func TestAFrameIsSentFromWhereItIs(t *testing.T) {
	for _, features := range []uint64{0, common} {
		c := newCard(t, 1)
		c.Start(features | featCsum | featHostTSO4)
		f := newFrame(ethernet.Header{Flags: 1 | 2 | 0x80, Segment: ethernet.SegmentTCP4, SegmentSize: 1448, HeaderBytes: 54, ChecksumStart: 34, ChecksumOffset: 16}, 9000)
		c.send(virtiotest.Out(f[:5]), virtiotest.Out(f[5:40]), virtiotest.Out(f[40:]))
		got := <-c.link.lanes[0].sent
		require.Len(t, got, 3)
		require.Equal(t, f[ethernet.HeaderSize:], bytes.Join(got[1:], nil))
		h := ethernet.ParseHeader(got[0])
		require.Equal(t, ethernet.Header{Flags: 1, Segment: ethernet.SegmentTCP4, SegmentSize: 1448, HeaderBytes: 54, ChecksumStart: 34, ChecksumOffset: 16}, h)
		got[2][0] ^= 0xff
		ram := c.Mem.At(1<<32, 64<<20)
		require.GreaterOrEqual(t, bytes.Index(ram, got[2]), 0, "the buffer is the guest's")
		require.Equal(t, Stats{TxFrames: 1, TxBytes: 9000}, c.d.Stats())
	}
}

func TestBadFramesAreDropped(t *testing.T) {
	tso := ethernet.Header{Flags: 1, Segment: ethernet.SegmentTCP4, SegmentSize: 1448, ChecksumStart: 34, ChecksumOffset: 16}
	with := func(f func(h *ethernet.Header)) []byte {
		h := tso
		f(&h)
		return newFrame(h, 100)
	}
	bad := map[string][]byte{
		"no header":         newFrame(ethernet.Header{}, 0)[:11],
		"only a header":     newFrame(ethernet.Header{}, 0),
		"too short":         newFrame(ethernet.Header{}, 13),
		"too long":          newFrame(ethernet.Header{}, ethernet.MaxFrame-ethernet.HeaderSize+1),
		"IPv6":              with(func(h *ethernet.Header) { h.Segment = ethernet.SegmentTCP6 }),
		"ECN":               with(func(h *ethernet.Header) { h.Segment |= ethernet.SegmentECN }),
		"only ECN":          with(func(h *ethernet.Header) { h.Segment = ethernet.SegmentECN }),
		"UDP":               with(func(h *ethernet.Header) { h.Segment = 3 }),
		"nothing known":     with(func(h *ethernet.Header) { h.Segment = 0x7f }),
		"no size":           with(func(h *ethernet.Header) { h.SegmentSize = 0 }),
		"no checksum":       with(func(h *ethernet.Header) { h.Flags = 0 }),
		"checksum outside":  with(func(h *ethernet.Header) { h.ChecksumStart = 84; h.ChecksumOffset = 15 }),
		"checksum wrapping": with(func(h *ethernet.Header) { h.ChecksumStart = 0xffff; h.ChecksumOffset = 0xffff }),
	}
	c := newCard(t, 1)
	c.Start(common | featCsum | featHostTSO4)
	n := uint64(0)
	for name, f := range bad {
		c.send(virtiotest.Out(f))
		n++
		require.Equal(t, Stats{TxDropped: n}, c.d.Stats(), name)
	}
	_, err := c.Rings[1].Do(c.Context(), virtiotest.In(100))
	require.NoError(t, err)
	pieces := []virtiotest.Buffer{virtiotest.Out(newFrame(ethernet.Header{}, 0))}
	for range ethernet.MaxSegments {
		pieces = append(pieces, virtiotest.Out([]byte{1}))
	}
	c.send(pieces...)
	require.Equal(t, Stats{TxDropped: n + 2}, c.d.Stats())
	require.Equal(t, 1, strings.Count(c.log.String(), "dropped"), "one line: %s", c.log)

	c.send(virtiotest.Out(newFrame(tso, 100)))
	require.Len(t, c.link.lanes[0].sent, 1, "the device goes on")
	c.link.lanes[0].failSends(ethernet.ErrDropped)
	c.send(virtiotest.Out(newFrame(tso, 100)))
	require.Equal(t, Stats{TxFrames: 1, TxBytes: 100, TxDropped: n + 3}, c.d.Stats())
	require.EqualValues(t, 1, c.Config(7)[6], "a slow link is no broken one")
}

func TestWithoutTheFeatureAnOffloadIsRefused(t *testing.T) {
	c := newCard(t, 1)
	c.Start(common)
	c.send(virtiotest.Out(newFrame(ethernet.Header{Flags: 1, ChecksumStart: 34, ChecksumOffset: 16}, 100)))
	require.EqualValues(t, 1, c.d.Stats().TxDropped)
}

func TestALinkThatFailsIsACablePulledOut(t *testing.T) {
	c := newCard(t, 2)
	c.Start(common | featStatus | featCtrlVQ | featCtrlRx)
	c.link.lanes[0].fail(errGone)
	c.link.lanes[0].failSends(errGone)
	for range 10 {
		c.Rings[0].Add(virtiotest.In(2000))
	}
	c.Rings[0].Publish()
	<-c.ConfigInterrupt.C()
	require.EqualValues(t, 0, c.Config(7)[6])
	for range 3 {
		c.send(virtiotest.Out(newFrame(ethernet.Header{}, 100)))
	}
	require.EqualValues(t, ackOK, c.command(2, classRx, 0, 1))
	require.EqualValues(t, 15, c.State.Status(), "the device goes on")
	require.Equal(t, 1, strings.Count(c.log.String(), "\n"), "one line: %s", c.log)
	c.Start(common)
	require.EqualValues(t, 0, c.Config(7)[6], "it stays so")
}

func TestTheLinkGetsWhatTheGuestTakes(t *testing.T) {
	c := newCard(t, 1)
	c.Start(common | featGuestCsum | featGuestTSO4 | featGuestECN | featCtrlVQ | featCtrlGuestOffloads)
	want := ethernet.Checksum | ethernet.TSO4 | ethernet.ECN
	c.eventually("offloads", func() bool { return c.link.gives() == want })
	set := func(bits uint64) byte {
		return c.command(2, binary.LittleEndian.AppendUint64([]byte{classOffloads, offloadsSet}, bits)...)
	}
	require.EqualValues(t, ackErr, set(featGuestCsum|featGuestTSO6), "not negotiated")
	require.EqualValues(t, ackErr, set(featMAC))
	require.Equal(t, want, c.link.gives())
	require.EqualValues(t, ackOK, set(featGuestCsum))
	require.Equal(t, ethernet.Checksum, c.link.gives())
	require.NoError(t, c.State.Pause(c.Context()))
	c.State.Resume()
	c.eventually("it is kept", func() bool { return c.link.gives() == ethernet.Checksum })
	c.Reset()
	require.Zero(t, c.link.gives())
}
