package vsock

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// A Conn is the host's end of a connection, a net.Conn. Both directions can be
// closed on their own.
type Conn struct {
	d      *Device
	key    key
	window int // bytes that are buffered for the host: buf_alloc

	// In table.ready; under the table's lock.
	queued     bool
	prev, next *Conn

	reading, writing sync.Mutex // one Read and one Write at a time

	mu                sync.Mutex
	canRead, canWrite sync.Cond
	readBy, writeBy   time.Time // deadlines
	readTimer         *time.Timer
	writeTimer        *time.Timer
	lingerTimer       *time.Timer
	watch             watcher // or nil
	closed            bool    // by the host: Close
	flow
}

// A watcher hears at once what a goroutine that waits for its own side would
// hear late. It is called with the connection's lock: it does not block, and does
// not call back.
type watcher interface {
	// deaf says that the guest will not receive any more.
	deaf()
	// broken says that the connection was reset.
	broken()
}

// An Addr is one end of a connection, a net.Addr.
type Addr struct{ CID, Port uint32 }

// Network implements net.Addr.
func (Addr) Network() string { return "vsock" }

func (a Addr) String() string { return fmt.Sprintf("vsock:%d:%d", a.CID, a.Port) }

// LocalAddr implements net.Conn.
func (c *Conn) LocalAddr() net.Addr { return Addr{hostCID, c.key.host} }

// RemoteAddr implements net.Conn.
func (c *Conn) RemoteAddr() net.Addr { return Addr{c.d.c.CID, c.key.guest} }

var (
	errClosed = fmt.Errorf("vsock: %w", net.ErrClosed)
	errPipe   = fmt.Errorf("vsock: the guest does not receive any more: %w", syscall.EPIPE)
	errWait   = fmt.Errorf("vsock: %w", os.ErrDeadlineExceeded)
)

// Read implements net.Conn. Once the guest has said that it sends no more, and
// all is read, it returns io.EOF; after a reset ErrReset.
func (c *Conn) Read(p []byte) (int, error) {
	c.reading.Lock()
	defer c.reading.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(p) == 0 {
		return 0, nil
	}
	if err := c.awaitInput(); err != nil {
		return 0, err
	}
	n := c.in.read(&c.d.chunks, p)
	c.consumed(n)
	return n, nil
}

// WriteTo implements io.WriterTo: the guest gets credit for what w has taken.
func (c *Conn) WriteTo(w io.Writer) (int64, error) {
	c.reading.Lock()
	defer c.reading.Unlock()
	total := int64(0)
	var b [][]byte
	for {
		c.mu.Lock()
		if err := c.awaitInput(); err != nil {
			c.mu.Unlock()
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return total, err
		}
		b = c.in.peek(b[:0], max(c.window/4, chunkSize))
		c.mu.Unlock()
		v := net.Buffers(b)
		n, err := v.WriteTo(w)
		total += n
		c.mu.Lock()
		if c.shut&shutReceive == 0 { // else it was taken out already
			c.in.discard(&c.d.chunks, int(n))
			c.consumed(int(n))
		}
		c.mu.Unlock()
		if err != nil {
			return total, err
		}
	}
}

// awaitInput waits until there is something to read.
func (c *Conn) awaitInput() error {
	for {
		switch {
		case c.closed:
			return errClosed
		case passed(c.readBy):
			return errWait
		case c.in.n > 0:
			return nil
		case c.shut&shutReceive != 0 || c.guestShut&shutSend != 0:
			return io.EOF
		case c.state == gone && c.err != nil:
			return c.err
		case c.state == gone:
			return io.EOF
		}
		c.canRead.Wait()
	}
}

// Write implements net.Conn. It returns when the guest has taken all of p into
// its buffers: nothing is kept.
func (c *Conn) Write(p []byte) (int, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.sendable(); err != nil || len(p) == 0 {
		return 0, err
	}
	c.out = p
	for len(c.out) > 0 {
		if err := c.sendable(); err != nil {
			n := len(p) - len(c.out)
			c.out = nil
			return n, err
		}
		c.askForCredit()
		c.schedule()
		c.canWrite.Wait()
	}
	return len(p), nil
}

// awaitCredit waits until the guest has room, and returns for how many bytes.
func (c *Conn) awaitCredit() (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		if err := c.sendable(); err != nil {
			return 0, err
		}
		if n := c.credit(); n > 0 && c.state == established {
			return n, nil
		}
		c.askForCredit()
		c.schedule()
		c.canWrite.Wait()
	}
}

// sendable says why nothing more can be sent, if it cannot.
func (c *Conn) sendable() error {
	switch {
	case c.closed || c.shut&shutSend != 0:
		return errClosed
	case c.guestShut&shutReceive != 0:
		return errPipe
	case c.state == gone && c.err != nil:
		return c.err
	case c.state == gone:
		return errPipe
	case passed(c.writeBy):
		return errWait
	}
	return nil
}

// CloseWrite tells the guest that nothing more comes.
func (c *Conn) CloseWrite() error { return c.shutdown(shutSend) }

// CloseRead tells the guest that nothing more is taken. What comes all the same
// is dropped.
func (c *Conn) CloseRead() error { return c.shutdown(shutReceive) }

func (c *Conn) shutdown(flags uint32) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return errClosed
	}
	c.shutDown(flags)
	return nil
}

// shutDown says to the guest what it has not been told yet.
func (c *Conn) shutDown(flags uint32) {
	if c.shut|flags != c.shut {
		c.shut |= flags
		if c.shut&shutReceive != 0 {
			c.fwd += uint32(c.in.n)
			c.in = fifo{}
		}
		if c.state != gone {
			c.todo |= dueShutdown
			c.schedule()
		}
	}
	c.broadcast()
}

// Close implements net.Conn. The connection ends in good order: the guest can
// read what was sent, and confirms. What it has sent is dropped.
func (c *Conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return errClosed
	}
	switch c.state {
	case connecting, requested:
		c.finish(errClosed, true)
	case established:
		c.lingerTimer = time.AfterFunc(c.d.times.linger, c.giveUp)
	}
	c.shutDown(shutBoth)
	c.closed = true
	for _, t := range []*time.Timer{c.readTimer, c.writeTimer} {
		if t != nil {
			t.Stop()
		}
	}
	c.broadcast()
	if c.state == gone {
		c.d.release(c)
	}
	return nil
}

// giveUp ends a connection whose guest does not confirm that it is closed.
func (c *Conn) giveUp() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.finish(ErrReset, true)
}

// abort resets the connection.
func (c *Conn) abort() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.finish(ErrReset, true)
}

// SetDeadline implements net.Conn.
func (c *Conn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

// SetReadDeadline implements net.Conn.
func (c *Conn) SetReadDeadline(t time.Time) error {
	return c.setDeadline(&c.readBy, &c.readTimer, t)
}

// SetWriteDeadline implements net.Conn.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	return c.setDeadline(&c.writeBy, &c.writeTimer, t)
}

func (c *Conn) setDeadline(by *time.Time, timer **time.Timer, t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return errClosed
	}
	if *timer != nil {
		(*timer).Stop()
		*timer = nil
	}
	*by = t
	if !t.IsZero() {
		*timer = time.AfterFunc(time.Until(t), c.look)
	}
	c.broadcast()
	return nil
}

// look has those who wait look again.
func (c *Conn) look() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.broadcast()
}

func (c *Conn) broadcast() {
	c.canRead.Broadcast()
	c.canWrite.Broadcast()
}

func passed(t time.Time) bool { return !t.IsZero() && time.Until(t) <= 0 }
