package user

import (
	"errors"
	"io"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/waiter"
)

// chunks are the buffers between the guest's connections and the host's, of 64 KiB:
// the largest UDP datagram, and a large write for TCP. A connection that waits holds
// none.
var chunks = sync.Pool{New: func() any { return new([1 << 16]byte) }}

// A socket is one of the stack's: the guest's side of a connection.
type socket struct {
	ep tcpip.Endpoint
	wq *waiter.Queue
}

// errGuest is an error of the stack's.
type errGuest struct{ err tcpip.Error }

func (e errGuest) Error() string { return "guest: " + e.err.String() }

// receive gives what the guest sends to sink, piece by piece or datagram by
// datagram, until the guest says that it was all (nil), an error, or stop.
func (s socket) receive(stop <-chan struct{}, sink func([]byte, tcpip.FullAddress) error) error {
	entry, ready := waiter.NewChannelEntry(waiter.ReadableEvents | waiter.EventHUp | waiter.EventErr)
	s.wq.EventRegister(&entry)
	defer s.wq.EventUnregister(&entry)
	for {
		err := s.receiveOne(sink)
		var g errGuest
		switch {
		case err == nil:
			continue
		case errors.Is(err, io.EOF):
			return nil
		case !errors.As(err, &g):
			return err
		}
		if _, wait := g.err.(*tcpip.ErrWouldBlock); !wait {
			return err
		}
		select {
		case <-ready:
		case <-stop:
			return io.ErrClosedPipe
		}
	}
}

func (s socket) receiveOne(sink func([]byte, tcpip.FullAddress) error) error {
	p := chunks.Get().(*[1 << 16]byte)
	defer chunks.Put(p)
	w := tcpip.SliceWriter(p[:])
	got, err := s.ep.Read(&w, tcpip.ReadOptions{NeedRemoteAddr: true})
	if err != nil {
		if _, end := err.(*tcpip.ErrClosedForReceive); end {
			return io.EOF
		}
		return errGuest{err}
	}
	s.ep.ModerateRecvBuf(got.Count)
	return sink(p[:got.Count], got.RemoteAddr)
}

// send gives all of a piece of a stream to the guest, as fast as it takes it.
func (s socket) send(stop <-chan struct{}, p []byte) error {
	var ready chan struct{}
	r := &payload{p}
	for len(r.p) > 0 {
		_, err := s.ep.Write(r, tcpip.WriteOptions{})
		if err == nil {
			continue
		}
		if _, wait := err.(*tcpip.ErrWouldBlock); !wait {
			return errGuest{err}
		}
		if ready == nil {
			// Room that came before this is found by one more write.
			var entry waiter.Entry
			entry, ready = waiter.NewChannelEntry(waiter.WritableEvents | waiter.EventHUp | waiter.EventErr)
			s.wq.EventRegister(&entry)
			defer s.wq.EventUnregister(&entry)
			continue
		}
		select {
		case <-ready:
		case <-stop:
			return io.ErrClosedPipe
		}
	}
	return nil
}

// sendTo gives one datagram to the guest, to the peer of the socket or the one
// named. What has no room is lost.
func (s socket) sendTo(p []byte, to ...tcpip.FullAddress) error {
	var o tcpip.WriteOptions
	if len(to) > 0 {
		o.To = &to[0]
	}
	if _, err := s.ep.Write(&payload{p}, o); err != nil {
		return errGuest{err}
	}
	return nil
}

// A payload is bytes as the stack reads them.
type payload struct{ p []byte }

func (r *payload) Read(p []byte) (int, error) {
	n := copy(p, r.p)
	r.p = r.p[n:]
	if n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return n, nil
}

func (r *payload) Len() int { return len(r.p) }

// fromHost gives what comes from one of the host's sockets to sink until its end
// (nil), an error, or the socket's read deadline. It takes a buffer when there is
// something to read, not before.
func fromHost(conn syscall.Conn, stream bool, sink func([]byte) error) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	for {
		var p *[1 << 16]byte
		var n int
		var rerr error
		err := raw.Read(func(fd uintptr) bool {
			if p == nil {
				p = chunks.Get().(*[1 << 16]byte)
			}
			for {
				if n, rerr = unix.Read(int(fd), p[:]); rerr != unix.EINTR {
					break
				}
			}
			if rerr == unix.EAGAIN {
				chunks.Put(p)
				p = nil
				return false
			}
			return true
		})
		if err == nil {
			err = rerr
		}
		end := err != nil || stream && n == 0
		if !end {
			err = sink(p[:n])
		}
		if p != nil {
			chunks.Put(p)
		}
		if end || err != nil {
			return err
		}
	}
}
