package vsock

import (
	"bytes"
	"io"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/devices/virtio/virtiotest"
)

// packet is a whole one, as its sender wants it.
func packet(h header, payload []byte) []byte {
	var b [headerSize]byte
	h.encode(&b)
	return append(b[:], payload...)
}

// to is a header to a port of the host's.
func to(op uint16, guest, host uint32) header {
	return header{srcCID: guestCID, dstCID: hostCID, srcPort: guest, dstPort: host, typ: typeStream, op: op}
}

func TestWhatHasNoConnectionIsReset(t *testing.T) {
	d := newDevice(t, Config{})
	g := newGuest(t, d, nil)
	for i, tt := range []struct {
		name   string
		change func(*header)
		answer bool
	}{
		{"response", func(h *header) { h.op = opResponse }, true},
		{"shutdown", func(h *header) { h.op, h.flags = opShutdown, shutBoth }, true},
		{"data", func(h *header) { h.op = opRW }, true},
		{"credit", func(h *header) { h.op = opCreditUpdate }, true},
		{"credit request", func(h *header) { h.op = opCreditRequest }, true},
		{"a giant length", func(h *header) { h.op, h.length = opRW, ^uint32(0) }, true},
		{"operation 0", func(h *header) { h.op = 0 }, true},
		{"operation 8", func(h *header) { h.op = 8 }, true},
		{"another type", func(h *header) { h.typ = 2 }, true},
		{"to nobody", func(h *header) { h.dstCID = 77 }, true},
		{"to the host's CID in 32 bits", func(h *header) { h.dstCID = 1<<32 | hostCID }, true},
		{"rst", func(h *header) { h.op = opRST }, false},
		{"rst to nobody", func(h *header) { h.op, h.dstCID = opRST, 77 }, false},
		{"from somebody else", func(h *header) { h.srcCID = 77 }, false},
		{"from the guest's CID in 32 bits", func(h *header) { h.srcCID |= 1 << 32 }, false},
	} {
		h := to(opRequest, 1000+uint32(i), 80)
		tt.change(&h)
		g.sendRaw(packet(h, nil))
		if !tt.answer {
			continue // the next answer is the next one's
		}
		got := <-g.stray
		require.Equal(t, header{
			srcCID: h.dstCID, dstCID: guestCID, srcPort: 80, dstPort: h.srcPort, typ: h.typ, op: opRST,
		}, got, tt.name)
	}
	g.sendRaw([]byte("short"))
	g.sendRaw([]byte{})
	g.sendRaw(packet(to(opRW, 5, 80), nil))
	require.EqualValues(t, 5, (<-g.stray).dstPort)
	require.Empty(t, g.stray)
	quiet(t, d)
}

func TestAHeaderInPieces(t *testing.T) {
	d := newDevice(t, Config{})
	g := newGuest(t, d, nil)
	l, err := d.Listen(80)
	require.NoError(t, err)
	c, err := g.dial(80)
	require.NoError(t, err)
	h := to(opRW, c.key.guest, 80)
	h.length = 5
	p := packet(h, []byte("hello, and what is not counted"))
	g.sendRaw(p[:1], p[1:20], p[20:43], p[43:46], p[46:])
	s, err := l.Accept()
	require.NoError(t, err)
	b := make([]byte, 100)
	n, err := s.Read(b)
	require.NoError(t, err)
	require.Equal(t, "hello", string(b[:n]))
	require.NoError(t, s.Close())
}

// Whoever breaks the rules loses the connection, and no other.
func TestRulesThatAreBroken(t *testing.T) {
	var log bytes.Buffer
	d := newDevice(t, Config{})
	g := newGuest(t, d, slog.New(slog.NewTextHandler(&log, nil)))
	l, err := d.Listen(80)
	require.NoError(t, err)
	good, err := g.dial(80)
	require.NoError(t, err)
	s, err := l.Accept()
	require.NoError(t, err)
	for name, breach := range map[string]func(k key){
		"more than the credit": func(k key) {
			for range wideWindow / 65536 {
				g.sendRaw(packet(header{srcCID: guestCID, dstCID: hostCID, srcPort: k.guest, dstPort: 80, typ: typeStream, op: opRW, length: 65536}, text(65536)))
			}
			g.sendRaw(packet(header{srcCID: guestCID, dstCID: hostCID, srcPort: k.guest, dstPort: 80, typ: typeStream, op: opRW, length: 1}, text(1)))
		},
		"a giant packet": func(k key) {
			h := to(opRW, k.guest, 80)
			h.length = wideWindow + 1
			g.sendRaw(packet(h, text(wideWindow+1)))
		},
		"less than announced": func(k key) {
			h := to(opRW, k.guest, 80)
			h.length = 10
			g.sendRaw(packet(h, text(9)))
		},
		"a request again":      func(k key) { g.sendRaw(packet(to(opRequest, k.guest, 80), nil)) },
		"a response":           func(k key) { g.sendRaw(packet(to(opResponse, k.guest, 80), nil)) },
		"an unknown operation": func(k key) { g.sendRaw(packet(to(99, k.guest, 80), nil)) },
		"data after the end": func(k key) {
			h := to(opShutdown, k.guest, 80)
			h.flags = shutSend
			g.sendRaw(packet(h, nil))
			h = to(opRW, k.guest, 80)
			h.length = 1
			g.sendRaw(packet(h, text(1)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			bad, err := g.dial(80)
			require.NoError(t, err)
			h, err := l.Accept()
			require.NoError(t, err)
			breach(bad.key)
			require.Error(t, bad.closed())
			require.NoError(t, h.Close())
		})
	}
	var wg sync.WaitGroup
	wg.Go(func() { echo(s) })
	exchange(t, good, func() { good.shutdown(shutSend) }, text(1<<20))
	wg.Wait()
	require.NoError(t, good.Close())
	quiet(t, d)
	g.end()
	g.driver.State.Close()
	require.LessOrEqual(t, strings.Count(log.String(), "\n"), 2, "one line for each sort: %s", log.String())
}

// A guest that lies about its credit gets no more than it has buffers for, and
// none for counters that cannot be.
func TestCreditThatCannotBe(t *testing.T) {
	for _, tt := range []struct {
		room, fwd, sent uint32
		credit          int
	}{
		{0, 0, 0, 0},
		{100, 0, 0, 100},
		{100, 0, 100, 0},
		{100, 0, 150, 0}, // it has shrunk
		{100, 200, 150, 0},
		{100, 150, 100, 0},
		{100, ^uint32(0), 20, 79}, // the counters went round
		{^uint32(0), 0, 0, int(^uint32(0))},
		{^uint32(0), 5, 0, 4},
	} {
		c := &Conn{flow: flow{guestRoom: tt.room, guestFwd: tt.fwd, sent: tt.sent}}
		require.Equal(t, tt.credit, c.credit(), "%+v", tt)
	}
}

// silent is a driver that gives no buffers for what the device sends.
func silent(t *testing.T, d *Device) (*guest, func(buffers ...virtiotest.Buffer)) {
	g := &guest{t: t, d: d, driver: virtiotest.NewDriver(t, d, nil)}
	g.driver.Start(features)
	g.ctx = g.driver.Context()
	return g, func(buffers ...virtiotest.Buffer) {
		rx := g.driver.Rings[rxQueue]
		for _, b := range buffers {
			rx.Add(b)
		}
		rx.Publish()
	}
}

func TestAGuestThatTakesNothing(t *testing.T) {
	d := newDevice(t, Config{MaxConns: 10})
	g, give := silent(t, d)
	l, err := d.Listen(80)
	require.NoError(t, err)
	// What it sends arrives all the same.
	g.sendRaw(packet(to(opRequest, 1, 80), nil))
	h := to(opRW, 1, 80)
	h.length = 5
	g.sendRaw(packet(h, []byte("hello")))
	s, err := l.Accept()
	require.NoError(t, err)
	b := make([]byte, 5)
	_, err = io.ReadFull(s, b)
	require.NoError(t, err)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range uint32(3 * maxResets) {
		g.sendRaw(packet(to(opRequest, 100+i, 80+i%2), nil))
		g.sendRaw(packet(to(opRW, 100+i, 90), nil))
	}
	for i := uint32(0); i < 100; i++ { // connections that come and go
		k := 1 << 20 * (i + 1)
		g.sendRaw(packet(to(opRequest, k, 80), nil))
		g.sendRaw(packet(to(opRST, k, 80), nil))
	}
	h = to(opRW, 1, 80)
	h.length = 2
	g.sendRaw(packet(h, []byte("on")))
	_, err = io.ReadFull(s, b[:2])
	require.NoError(t, err)
	runtime.GC()
	runtime.ReadMemStats(&after)
	require.Less(t, int64(after.HeapAlloc)-int64(before.HeapAlloc), int64(2<<20))
	d.mu.Lock()
	require.Len(t, d.resets, maxResets)
	require.LessOrEqual(t, len(d.conns), 10)
	d.mu.Unlock()
	// Buffers without room are given back unused.
	give(virtiotest.In(headerSize), virtiotest.In(1), virtiotest.Out(text(100)), virtiotest.In(headerSize+1))
	for _, written := range []uint32{0, 0, 0, headerSize} {
		r, err := g.driver.Rings[rxQueue].Await(g.ctx)
		require.NoError(t, err)
		require.Equal(t, written, r.Written)
	}
	require.NoError(t, s.Close())
	g.driver.Reset()
	require.NoError(t, l.Close())
	quiet(t, d)
}

// Connections are served in turn: one with much to send does not stop another.
func TestFairness(t *testing.T) {
	d := newDevice(t, Config{})
	g := newGuest(t, d, nil)
	g.window = 1 << 30
	g.listen(7, func(c *guestConn) { _, _ = io.Copy(io.Discard, struct{ io.Reader }{c}); _ = c.Close() })
	g.listen(8, echoGuest)
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		c, err := d.Dial(t.Context(), 7)
		require.NoError(t, err)
		wg.Go(func() {
			b := text(4 << 20)
			for {
				select {
				case <-stop:
					_ = c.Close()
					return
				default:
					_, _ = c.Write(b)
				}
			}
		})
	}
	c, err := d.Dial(t.Context(), 8)
	require.NoError(t, err)
	for range 20 {
		_, err = c.Write([]byte("ping"))
		require.NoError(t, err)
		_, err = io.ReadFull(c, make([]byte, 4))
		require.NoError(t, err)
	}
	close(stop)
	wg.Wait()
	require.NoError(t, c.Close())
	quiet(t, d)
}
