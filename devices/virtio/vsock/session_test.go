package vsock

import (
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/devices/virtio"
	"github.com/huskvm/husk/devices/virtio/virtiotest"
)

func TestConnectionsGoOnAfterAPause(t *testing.T) {
	d, g := unixDevice(t, Config{})
	g.listen(7, echoGuest)
	serve(t, d, 80, func(c *net.UnixConn) { echo(c) })
	want := text(8 << 20)
	var wg sync.WaitGroup
	h, _ := program(t, d, 7)
	wg.Go(func() { exchange(t, h, func() { _ = h.CloseWrite() }, want) })
	c, err := g.dial(80)
	require.NoError(t, err)
	wg.Go(func() { exchange(t, c, func() { c.shutdown(shutSend) }, want) })
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	for over := false; !over; {
		require.NoError(t, g.driver.State.Pause(t.Context()))
		dialled := make(chan error, 1)
		go func() {
			c, err := d.Dial(t.Context(), 7) // waits for the guest
			if err == nil {
				err = c.Close()
			}
			dialled <- err
		}()
		time.Sleep(time.Millisecond)
		g.driver.State.Resume()
		require.NoError(t, <-dialled)
		select {
		case <-done:
			over = true
		default:
		}
	}
	require.NoError(t, h.Close())
	require.NoError(t, c.Close())
	quiet(t, d)
}

func TestAResetOfTheDriverResetsConnections(t *testing.T) {
	d, g := unixDevice(t, Config{})
	serve(t, d, 80, func(c *net.UnixConn) { echo(c) })
	for range 3 {
		g.listen(7, func(*guestConn) {})
		program1, _ := program(t, d, 7)
		inProcess, err := d.Dial(t.Context(), 7)
		require.NoError(t, err)
		c, err := g.dial(80)
		require.NoError(t, err)
		var wg sync.WaitGroup
		wg.Go(func() { // in mid-transfer
			_, err := inProcess.Write(text(1 << 20))
			require.ErrorIs(t, err, ErrReset)
		})
		wg.Go(func() {
			_, err := c.Write(text(10 << 20))
			require.ErrorIs(t, err, errGuestReset)
		})
		time.Sleep(time.Millisecond)
		g.end()
		g.driver.Reset()
		wg.Wait()
		_, err = inProcess.Read(make([]byte, 1))
		require.ErrorIs(t, err, ErrReset)
		require.NoError(t, inProcess.Close())
		_, err = io.ReadAll(program1)
		require.NoError(t, err)
		require.NoError(t, program1.Close())
		_, err = d.Dial(t.Context(), 7)
		require.ErrorIs(t, err, ErrNotReady)
		quiet(t, d)

		g.start()
		g.listen(7, echoGuest)
		again, _ := program(t, d, 7)
		exchange(t, again, func() { _ = again.CloseWrite() }, text(100<<10))
		require.NoError(t, again.Close())
		quiet(t, d)
	}
}

// A driver that breaks a queue needs a reset, and nobody on the host waits for
// that.
func TestABrokenQueueResetsConnections(t *testing.T) {
	for _, q := range []int{rxQueue, txQueue} {
		d := newDevice(t, Config{})
		g := newGuest(t, d, nil)
		g.window = 1 << 30 // so it is buffers that run out
		g.listen(7, func(*guestConn) {})
		c, err := d.Dial(t.Context(), 7)
		require.NoError(t, err)
		g.end()
		r := g.driver.Rings[q]
		r.SetAvail(^uint16(0) / 2)
		r.Kick.Signal()
		_, err = c.Write(text(1 << 20))
		require.ErrorIs(t, err, ErrReset)
		<-g.driver.ConfigInterrupt.C()
		require.NotZero(t, g.driver.State.Status()&virtio.StatusNeedsReset)
		require.NoError(t, c.Close())
		quiet(t, d)
	}
}

func TestQueuesThatAreNotThere(t *testing.T) {
	d := newDevice(t, Config{})
	r := virtiotest.NewDriver(t, d, nil)
	require.True(t, r.Negotiate(features))
	r.Go()
	require.EqualValues(t, 15, r.State.Status())
	r.Reset()
}
