package vsock

import (
	"errors"
	"io"
	"net"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// A joint joins a connection with a host program's socket.
type joint struct {
	c    *Conn
	s    *net.UnixConn
	raw  syscall.RawConn
	pool *sync.Pool // of *[]byte
}

// bridge accepts c, if the guest waits for that, and carries bytes between it and
// s until both directions are done. It closes c.
func bridge(c *Conn, s *net.UnixConn) {
	defer c.Close()
	raw, err := s.SyscallConn()
	if err != nil {
		return
	}
	b := &joint{c: c, s: s, raw: raw, pool: &c.d.narrowBlocks}
	if c.window == wideWindow {
		b.pool = &c.d.wideBlocks
	}
	if !c.watchBy(b) {
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.toHost()
	}()
	b.toGuest()
	<-done
}

// watchBy has w hear of the end, and lets the connection begin. It tells whether
// it has not been reset.
func (c *Conn) watchBy(w watcher) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == gone && c.err != nil {
		return false
	}
	c.watch = w
	if c.state == gone || c.guestShut&shutReceive != 0 {
		w.deaf()
	}
	c.establish()
	return true
}

// deaf implements watcher: the host program's writes fail, and toGuest ends.
func (b *joint) deaf() { _ = b.s.CloseRead() }

// broken implements watcher: nothing goes on.
func (b *joint) broken() { _ = b.s.Close() }

// toHost gives the host program what the guest sends.
func (b *joint) toHost() {
	if _, err := b.c.WriteTo(b.s); err != nil {
		// The program does not read any more; if it is gone, toGuest will hear.
		_ = b.c.CloseRead()
		return
	}
	_ = b.s.CloseWrite()
}

// toGuest sends the guest what the host program writes. It is read when the guest
// has room, and not before.
func (b *joint) toGuest() {
	for {
		room, err := b.c.awaitCredit()
		if err == nil {
			err = b.carry(room)
		}
		switch {
		case err == nil:
			continue
		case errors.Is(err, io.EOF):
			_ = b.c.CloseWrite()
		case errors.Is(err, syscall.EPIPE):
			_ = b.s.CloseRead()
		default: // the program is gone, and has not read everything
			b.c.abort()
			return
		}
		b.awaitHangup()
		return
	}
}

// carry waits for bytes from the host program and sends them, as far as there is
// room. It holds a block only while there is something in it.
func (b *joint) carry(room int) error {
	var p *[]byte
	n := 0
	var failed error
	err := b.raw.Read(func(fd uintptr) bool {
		p = b.pool.Get().(*[]byte)
		for {
			n, failed = unix.Read(int(fd), (*p)[:min(room, len(*p))])
			if failed != unix.EINTR {
				break
			}
		}
		if failed == unix.EAGAIN {
			b.pool.Put(p)
			return false
		}
		return true
	})
	if err != nil {
		return err
	}
	defer b.pool.Put(p)
	switch {
	case failed != nil:
		return failed
	case n == 0:
		return io.EOF
	}
	_, err = b.c.Write((*p)[:n])
	return err
}

// awaitHangup waits, when nothing more goes to the guest, until the host program
// does not read any more either, and tells the guest.
func (b *joint) awaitHangup() {
	err := b.raw.Read(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd)}}
		_, err := unix.Poll(p, 0)
		return err != unix.EINTR && p[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
	})
	if err == nil {
		_ = b.c.CloseRead()
	}
}

// blocks makes blocks of n bytes.
func blocks(n int) func() any {
	return func() any {
		b := make([]byte, n)
		return &b
	}
}
