package vsock

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/devices/virtio"
)

// echo gives back what it reads, and closes when that ends.
func echo(c io.ReadWriteCloser) {
	_, _ = io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c})
	_ = c.Close()
}

func echoGuest(c *guestConn) { echo(c) }

// exchange writes text and reads it back, to the end.
func exchange(t testing.TB, c io.ReadWriter, closeWrite func(), text []byte) {
	t.Helper()
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := c.Write(text); err != nil {
			t.Error(err)
		}
		closeWrite()
	})
	got, err := io.ReadAll(c)
	wg.Wait()
	require.NoError(t, err)
	require.True(t, bytes.Equal(text, got), "%d bytes of %d, or others", len(got), len(text))
}

func text(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}

func TestIdentity(t *testing.T) {
	d := newDevice(t, Config{CID: 0xfffffffe})
	g := newGuest(t, newDevice(t, Config{}), nil)
	require.EqualValues(t, virtio.Socket, g.driver.State.Type())
	require.Equal(t, []byte{guestCID, 0, 0, 0, 0, 0, 0, 0}, g.driver.Config(8))
	require.EqualValues(t, 1, d.Features())
	for _, cid := range []uint32{0, 1, 2, 0xffffffff} {
		_, err := New(Config{CID: cid})
		require.ErrorIs(t, err, ErrConfig)
	}
}

func TestHostToGuest(t *testing.T) {
	d := newDevice(t, Config{})
	_, err := d.Dial(t.Context(), 7)
	require.ErrorIs(t, err, ErrNotReady)
	g := newGuest(t, d, nil)
	g.listen(7, echoGuest)
	c, err := d.Dial(t.Context(), 7)
	require.NoError(t, err)
	require.Equal(t, "vsock:42:7", c.RemoteAddr().String())
	require.Equal(t, Addr{CID: 2, Port: firstPort}, c.LocalAddr())
	exchange(t, c, func() { _ = c.(*Conn).CloseWrite() }, text(3<<20))
	require.NoError(t, c.Close())
	require.ErrorIs(t, c.Close(), net.ErrClosed)
	quiet(t, d)
}

func TestGuestToHost(t *testing.T) {
	d := newDevice(t, Config{})
	g := newGuest(t, d, nil)
	l, err := d.Listen(80)
	require.NoError(t, err)
	_, err = d.Listen(80)
	require.ErrorIs(t, err, ErrConfig)
	require.Equal(t, "vsock:2:80", l.Addr().String())
	var wg sync.WaitGroup
	wg.Go(func() {
		c, err := l.Accept()
		if err == nil {
			echo(c)
		}
	})
	c, err := g.dial(80)
	require.NoError(t, err)
	exchange(t, c, func() { c.shutdown(shutSend) }, text(3<<20))
	require.NoError(t, c.Close())
	require.Equal(t, io.EOF, c.closed())
	wg.Wait()
	quiet(t, d)
	require.NoError(t, l.Close())
	_, err = l.Accept()
	require.ErrorIs(t, err, net.ErrClosed)
	_, err = g.dial(80)
	require.Equal(t, errGuestReset, err)
}

func TestRefused(t *testing.T) {
	d := newDevice(t, Config{MaxConns: 2})
	g := newGuest(t, d, nil)
	for range 5 { // more than there may be
		_, err := d.Dial(t.Context(), 7)
		require.ErrorIs(t, err, ErrRefused)
		_, err = g.dial(80)
		require.Equal(t, errGuestReset, err)
	}
	g.listen(7, echoGuest)
	_, err := d.Listen(80)
	require.NoError(t, err)
	a, err := d.Dial(t.Context(), 7)
	require.NoError(t, err)
	_, err = d.Dial(t.Context(), 7)
	require.NoError(t, err)
	_, err = d.Dial(t.Context(), 7)
	require.ErrorIs(t, err, ErrLimit)
	_, err = g.dial(80)
	require.Equal(t, errGuestReset, err)
	require.NoError(t, a.Close())
	require.Eventually(t, func() bool { _, err := g.dial(80); return err == nil }, time.Minute, time.Millisecond)
}

func TestAFullBacklogRefuses(t *testing.T) {
	d := newDevice(t, Config{})
	g := newGuest(t, d, nil)
	l, err := d.Listen(80)
	require.NoError(t, err)
	var conns []*guestConn
	for range backlog {
		c, err := g.dial(80)
		require.NoError(t, err)
		conns = append(conns, c)
	}
	_, err = g.dial(80)
	require.Equal(t, errGuestReset, err)
	require.NoError(t, l.Close())
	for _, c := range conns {
		require.Equal(t, errGuestReset, c.closed(), "not accepted")
	}
	quiet(t, d)
}

func TestHalfClose(t *testing.T) {
	d := newDevice(t, Config{})
	g := newGuest(t, d, nil)
	conns := make(chan *guestConn, 1)
	g.listen(7, func(c *guestConn) { conns <- c })
	dial := func() (*Conn, *guestConn) {
		c, err := d.Dial(t.Context(), 7)
		require.NoError(t, err)
		return c.(*Conn), <-conns
	}

	t.Run("the guest sends no more", func(t *testing.T) {
		h, c := dial()
		_, err := c.Write([]byte("last"))
		require.NoError(t, err)
		c.shutdown(shutSend)
		got, err := io.ReadAll(h)
		require.NoError(t, err)
		require.Equal(t, "last", string(got))
		_, err = h.Write([]byte("go on"))
		require.NoError(t, err)
		require.NoError(t, h.Close())
		got, err = io.ReadAll(c)
		require.NoError(t, err)
		require.Equal(t, "go on", string(got))
		require.NoError(t, c.Close())
		require.Equal(t, io.EOF, c.closed())
		quiet(t, d)
	})
	t.Run("the guest receives no more", func(t *testing.T) {
		h, c := dial()
		c.shutdown(shutReceive)
		_, err := c.Write([]byte("x"))
		require.NoError(t, err)
		b := make([]byte, 2)
		n, err := h.Read(b)
		require.NoError(t, err)
		require.Equal(t, 1, n)
		_, err = h.Write(text(1))
		require.ErrorIs(t, err, syscall.EPIPE)
		c.shutdown(shutBoth)
		_, err = h.Read(b)
		require.Equal(t, io.EOF, err)
		require.NoError(t, h.Close())
		quiet(t, d)
	})
	t.Run("the host receives no more", func(t *testing.T) {
		h, c := dial()
		_, err := c.Write(text(100))
		require.NoError(t, err)
		require.NoError(t, h.CloseRead())
		_, err = h.Read(make([]byte, 1))
		require.Equal(t, io.EOF, err)
		_, err = h.Write([]byte("still here"))
		require.NoError(t, err)
		_, err = c.Write(text(10 << 20))
		require.Equal(t, io.ErrClosedPipe, err, "told by SHUTDOWN, though not for want of credit")
		require.NoError(t, h.CloseWrite())
		_, err = h.Write(text(1))
		require.ErrorIs(t, err, net.ErrClosed)
		got, err := io.ReadAll(c)
		require.NoError(t, err)
		require.Equal(t, "still here", string(got))
		require.NoError(t, c.Close())
		require.NoError(t, h.Close())
		quiet(t, d)
	})
}

// What was sent before a close arrives after it.
func TestCloseLosesNothing(t *testing.T) {
	d := newDevice(t, Config{})
	g := newGuest(t, d, nil)
	want := text(50 << 10)
	l, err := d.Listen(80)
	require.NoError(t, err)
	c, err := g.dial(80)
	require.NoError(t, err)
	_, err = c.Write(want)
	require.NoError(t, err)
	require.NoError(t, c.Close())
	require.Equal(t, io.EOF, c.closed(), "confirmed before the host reads")
	h, err := l.Accept()
	require.NoError(t, err)
	got, err := io.ReadAll(h)
	require.NoError(t, err)
	require.True(t, bytes.Equal(want, got))
	_, err = h.Write([]byte("x"))
	require.ErrorIs(t, err, syscall.EPIPE)
	require.NoError(t, h.Close())
	quiet(t, d)
}

// A guest that does not confirm a close is told in the end.
func TestLinger(t *testing.T) {
	d := openDevice(t, Config{CID: guestCID}, times{handshake: time.Minute, linger: time.Millisecond})
	g := newGuest(t, d, nil)
	conns := make(chan *guestConn, 1)
	g.listen(7, func(c *guestConn) { conns <- c })
	h, err := d.Dial(t.Context(), 7)
	require.NoError(t, err)
	_, err = h.Write([]byte("not read"))
	require.NoError(t, err)
	require.NoError(t, h.Close())
	c := <-conns
	require.Error(t, c.closed(), "RST, most likely after SHUTDOWN")
	quiet(t, d)
}

func TestSmallCreditAndBigTransfers(t *testing.T) {
	d := newDevice(t, Config{})
	g := newGuest(t, d, nil)
	g.window = 100 // bytes
	conns := make(chan *guestConn, 1)
	g.listen(7, func(c *guestConn) { conns <- c; echo(c) })
	c, err := d.Dial(t.Context(), 7)
	require.NoError(t, err)
	exchange(t, c, func() { _ = c.(*Conn).CloseWrite() }, text(100<<10))
	require.NoError(t, c.Close())
	require.LessOrEqual(t, (<-conns).maxIn, 100)
	quiet(t, d)
}

// A guest without room is asked for news, once.
func TestCreditRequest(t *testing.T) {
	d := newDevice(t, Config{})
	g := newGuest(t, d, nil)
	conns := make(chan *guestConn, 1)
	g.listen(7, func(c *guestConn) { conns <- c })
	h, err := d.Dial(t.Context(), 7)
	require.NoError(t, err)
	c := <-conns
	want := text(200 << 10)
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = h.Write(want) })
	g.mu.Lock()
	for c.in.Len() < int(c.window) || c.requests == 0 {
		c.changed.Wait()
	}
	g.mu.Unlock()
	time.Sleep(time.Millisecond) // for a second one, if it came
	g.mu.Lock()
	require.Equal(t, 1, c.requests, "though the answer gave no room")
	g.mu.Unlock()
	got := make([]byte, len(want))
	_, err = io.ReadFull(c, got)
	require.NoError(t, err)
	require.True(t, bytes.Equal(want, got))
	wg.Wait()
	require.NoError(t, h.Close())
}

func TestDeadlines(t *testing.T) {
	d := newDevice(t, Config{})
	g := newGuest(t, d, nil)
	g.listen(7, func(*guestConn) {})
	c, err := d.Dial(t.Context(), 7)
	require.NoError(t, err)
	require.NoError(t, c.SetDeadline(time.Now().Add(5*time.Millisecond)))
	_, err = c.Read(make([]byte, 1))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	n, err := c.Write(text(1 << 20))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.LessOrEqual(t, n, 64<<10)
	require.NoError(t, c.SetDeadline(time.Time{}))
	time.AfterFunc(time.Millisecond, func() { _ = c.SetReadDeadline(time.Unix(1, 0)) })
	_, err = c.Read(make([]byte, 1))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	var e net.Error
	require.ErrorAs(t, err, &e)
	require.True(t, e.Timeout())
	time.AfterFunc(time.Millisecond, func() { _ = c.Close() })
	_, err = c.Write(text(1 << 20))
	require.ErrorIs(t, err, net.ErrClosed)
	require.ErrorIs(t, c.SetDeadline(time.Time{}), net.ErrClosed)
}

func TestDialEndsWithItsContext(t *testing.T) {
	d := newDevice(t, Config{})
	g := newGuest(t, d, nil)
	g.end() // takes nothing any more
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancel()
	_, err := d.Dial(ctx, 7)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	quiet(t, d)
}

func TestCloseEndsEverything(t *testing.T) {
	d, err := New(Config{CID: guestCID})
	require.NoError(t, err)
	g := newGuest(t, d, nil)
	g.listen(7, echoGuest)
	l, err := d.Listen(80)
	require.NoError(t, err)
	c, err := d.Dial(t.Context(), 7)
	require.NoError(t, err)
	gc, err := g.dial(80)
	require.NoError(t, err)
	time.AfterFunc(time.Millisecond, func() { _ = d.Close() })
	_, err = c.Read(make([]byte, 1))
	require.ErrorIs(t, err, net.ErrClosed)
	require.Equal(t, errGuestReset, gc.closed())
	_, err = l.Accept()
	require.ErrorIs(t, err, net.ErrClosed)
	require.ErrorIs(t, l.Close(), nil)
	_, err = d.Dial(t.Context(), 7)
	require.ErrorIs(t, err, net.ErrClosed)
	_, err = d.Listen(81)
	require.ErrorIs(t, err, net.ErrClosed)
	_, err = g.dial(80)
	require.Equal(t, errGuestReset, err)
	require.NoError(t, d.Close())
}
