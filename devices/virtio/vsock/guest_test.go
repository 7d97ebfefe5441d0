package vsock

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/huskvm/husk/devices/virtio"
	"github.com/huskvm/husk/devices/virtio/virtiotest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	guestCID  = 42
	rxSize    = headerSize + 4096 // as Linux gives them
	rxBuffers = 128
	features  = virtio.FeatIndirectDesc | virtio.FeatEventIdx
)

// A guest is a driver with as much of a socket layer as Linux has around it.
type guest struct {
	t      testing.TB
	d      *Device
	driver *virtiotest.Driver

	ctx    context.Context
	stop   context.CancelFunc
	served sync.WaitGroup // receive
	apps   sync.WaitGroup // what listeners run

	tx sync.Mutex // the tx ring

	mu        sync.Mutex
	conns     map[key]*guestConn
	listeners map[uint32]func(*guestConn) // run in a goroutine of its own
	window    uint32                      // of new connections
	nextPort  uint32
	stray     chan header // packets of no connection
}

// newDevice returns a device without a path that is closed when t ends.
func newDevice(t testing.TB, c Config) *Device {
	t.Helper()
	if c.CID == 0 {
		c.CID = guestCID
	}
	return openDevice(t, c, times{handshake: time.Minute, linger: time.Minute})
}

func openDevice(t testing.TB, c Config, wait times) *Device {
	t.Helper()
	d, err := open(c, wait)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	return d
}

// socketPath is short enough for a Unix socket.
func socketPath(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "vsock")
	require.NoError(t, err)
	t.Cleanup(func() {
		// Closed before: what is left now was left behind.
		left, err := os.ReadDir(dir)
		require.NoError(t, err)
		for _, f := range left {
			require.NotEqual(t, "v", f.Name(), "the socket is removed")
		}
		require.NoError(t, os.RemoveAll(dir))
	})
	return filepath.Join(dir, "v")
}

func newGuest(t testing.TB, d *Device, log *slog.Logger) *guest {
	t.Helper()
	g := &guest{t: t, d: d, driver: virtiotest.NewDriver(t, d, log), window: 64 << 10, listeners: map[uint32]func(*guestConn){}}
	g.start()
	t.Cleanup(g.end)
	return g
}

// start starts the driver, after a reset if it runs.
func (g *guest) start() {
	g.t.Helper()
	g.driver.Start(features)
	g.ctx, g.stop = context.WithCancel(g.driver.Context())
	g.conns, g.stray = map[key]*guestConn{}, make(chan header, 1<<16)
	rx := g.driver.Rings[rxQueue]
	for range rxBuffers {
		rx.Add(virtiotest.In(rxSize))
	}
	rx.Publish()
	g.served.Go(func() { g.receive(rx) })
}

// end stops the guest's side, as when it hangs.
func (g *guest) end() {
	g.stop()
	g.served.Wait()
	g.mu.Lock()
	for _, c := range g.conns {
		c.finish(errGuestReset)
	}
	g.mu.Unlock()
	g.apps.Wait()
}

func (g *guest) receive(rx *virtiotest.Ring) {
	for {
		r, err := rx.Await(g.ctx)
		if err != nil {
			if !errors.Is(err, context.Canceled) {
				g.t.Error(err)
			}
			return
		}
		b := rx.In(r)[:r.Written]
		rx.Free(r)
		g.packet(b)
		rx.Add(virtiotest.In(rxSize))
		rx.Publish()
	}
}

// send gives a packet to the device.
func (g *guest) send(h header, payload []byte) {
	h.srcCID, h.dstCID, h.typ, h.length = guestCID, hostCID, typeStream, uint32(len(payload))
	var b [headerSize]byte
	h.encode(&b)
	g.sendRaw(b[:], payload)
}

func (g *guest) sendRaw(parts ...[]byte) {
	g.tx.Lock()
	defer g.tx.Unlock()
	tx := g.driver.Rings[txQueue]
	for {
		r, err := tx.Used()
		if r == nil && err == nil && tx.Room() < 2 {
			r, err = tx.Await(g.ctx)
		}
		if err != nil {
			if g.ctx.Err() == nil {
				g.t.Error(err)
			}
			return
		}
		if r == nil {
			break
		}
		tx.Free(r)
	}
	buffers := make([]virtiotest.Buffer, len(parts))
	for i, p := range parts {
		buffers[i] = virtiotest.Out(p)
	}
	tx.Add(buffers...)
	tx.Publish()
}

var errGuestReset = errors.New("reset, as the guest sees it")

// A guestConn is the guest's end.
type guestConn struct {
	g   *guest
	key key

	changed  *sync.Cond // on g.mu
	up       bool
	err      error
	eof      bool // the host sends no more
	deaf     bool // the host receives no more
	shut     uint32
	in       bytes.Buffer
	window   uint32
	fwd      uint32
	told     uint32
	sent     uint32
	hostFwd  uint32
	hostRoom uint32
	maxIn    int
	requests int // CREDIT_REQUESTs
}

// conn makes a connection; g.mu is held.
func (g *guest) conn(k key) *guestConn {
	c := &guestConn{g: g, key: k, changed: sync.NewCond(&g.mu), window: g.window}
	g.conns[k] = c
	return c
}

// op sends a packet without data; g.mu is held.
func (c *guestConn) op(op uint16, flags uint32) {
	c.told = c.fwd
	c.g.send(header{srcPort: c.key.guest, dstPort: c.key.host, op: op, flags: flags, bufAlloc: c.window, fwdCnt: c.fwd}, nil)
}

func (c *guestConn) finish(err error) {
	c.err = err
	delete(c.g.conns, c.key)
	c.changed.Broadcast()
}

// packet checks and takes a packet of the device's.
func (g *guest) packet(b []byte) {
	if len(b) < headerSize {
		g.t.Errorf("a packet of %d bytes", len(b))
		return
	}
	var h header
	h.decode((*[headerSize]byte)(b))
	payload := b[headerSize:]
	g.mu.Lock()
	defer g.mu.Unlock()
	k := key{guest: h.dstPort, host: h.srcPort}
	c := g.conns[k]
	switch {
	case h.dstCID != guestCID || int(h.length) != len(payload):
		g.t.Errorf("a header %+v with %d bytes", h, len(payload))
	case h.op != opRW && len(payload) != 0:
		g.t.Errorf("operation %d with %d bytes", h.op, len(payload))
	case c == nil && h.op == opRequest:
		if f := g.listeners[h.dstPort]; f != nil {
			c = g.conn(k)
			c.up, c.hostRoom, c.hostFwd = true, h.bufAlloc, h.fwdCnt
			c.op(opResponse, 0)
			g.apps.Go(func() { f(c) })
			return
		}
		g.send(header{srcPort: h.dstPort, dstPort: h.srcPort, op: opRST}, nil)
	case c == nil:
		select {
		case g.stray <- h:
		default:
		}
		if h.op != opRST {
			g.send(header{srcPort: h.dstPort, dstPort: h.srcPort, op: opRST}, nil)
		}
	default:
		c.hostRoom, c.hostFwd = h.bufAlloc, h.fwdCnt
		c.packet(h, payload)
		c.changed.Broadcast()
	}
}

func (c *guestConn) packet(h header, payload []byte) {
	switch h.op {
	case opResponse:
		c.up = true
	case opRST:
		if c.shut == shutBoth || c.eof {
			c.finish(io.EOF)
		} else {
			c.finish(errGuestReset)
		}
	case opShutdown:
		c.eof = c.eof || h.flags&shutSend != 0
		c.deaf = c.deaf || h.flags&shutReceive != 0
		if c.eof && c.deaf && c.in.Len() == 0 {
			c.op(opRST, 0)
			c.finish(io.EOF)
		}
	case opRW:
		if c.eof {
			c.g.t.Error("data after SHUTDOWN")
		}
		c.in.Write(payload)
		c.maxIn = max(c.maxIn, c.in.Len())
		if c.in.Len() > int(c.window) {
			c.g.t.Errorf("%d bytes, a window of %d", c.in.Len(), c.window)
		}
	case opCreditRequest:
		c.requests++
		c.op(opCreditUpdate, 0)
	case opCreditUpdate:
	default:
		c.g.t.Errorf("operation %d to a connection", h.op)
	}
}

// dial connects to a port of the host.
func (g *guest) dial(port uint32) (*guestConn, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.nextPort++
	c := g.conn(key{guest: g.nextPort, host: port})
	c.op(opRequest, 0)
	for !c.up && c.err == nil {
		c.changed.Wait()
	}
	if c.up { // and perhaps ended already
		return c, nil
	}
	return c, c.err
}

func (g *guest) listen(port uint32, f func(*guestConn)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.listeners[port] = f
}

func (c *guestConn) Read(p []byte) (int, error) {
	c.g.mu.Lock()
	defer c.g.mu.Unlock()
	for c.in.Len() == 0 {
		switch {
		case c.eof:
			return 0, io.EOF
		case c.err != nil:
			return 0, c.err
		}
		c.changed.Wait()
	}
	n, err := c.in.Read(p)
	c.fwd += uint32(n)
	if c.fwd-c.told > c.window/2 && c.err == nil {
		c.op(opCreditUpdate, 0)
	}
	return n, err
}

func (c *guestConn) credit() int { return int(c.hostRoom - (c.sent - c.hostFwd)) }

func (c *guestConn) Write(p []byte) (int, error) {
	c.g.mu.Lock()
	defer c.g.mu.Unlock()
	done := 0
	for done < len(p) {
		switch {
		case c.err != nil:
			return done, c.err
		case c.deaf || c.shut&shutSend != 0:
			return done, io.ErrClosedPipe
		case c.credit() > 0:
			part := p[done:min(len(p), done+c.credit(), done+64<<10)]
			c.told = c.fwd
			c.sent += uint32(len(part))
			done += len(part)
			h := header{srcPort: c.key.guest, dstPort: c.key.host, op: opRW, bufAlloc: c.window, fwdCnt: c.fwd}
			c.g.send(h, part)
		default:
			c.changed.Wait()
		}
	}
	return done, nil
}

// shutdown tells the host what is done no more.
func (c *guestConn) shutdown(flags uint32) {
	c.g.mu.Lock()
	defer c.g.mu.Unlock()
	if c.err == nil && c.shut|flags != c.shut {
		c.shut |= flags
		c.op(opShutdown, c.shut)
	}
}

// Close says that nothing goes on; the host confirms by RST.
func (c *guestConn) Close() error {
	c.shutdown(shutBoth)
	return nil
}

// closed waits until the host knows nothing of the connection, and says why.
func (c *guestConn) closed() error {
	c.g.mu.Lock()
	defer c.g.mu.Unlock()
	for c.err == nil {
		c.changed.Wait()
	}
	return c.err
}

// quiet requires that a device holds nothing of any connection.
func quiet(t testing.TB, d *Device) {
	t.Helper()
	require.Eventually(t, func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.held == 0 && d.wide == 0 && len(d.conns) == 0 && d.ready.first == nil
	}, time.Minute, time.Millisecond)
}
