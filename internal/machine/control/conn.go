package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/yamux"
	"golang.org/x/sys/unix"
)

// A Conn is one request, on either side.
type Conn struct {
	session               *yamux.Session
	control               *yamux.Stream
	Stdin, Stdout, Stderr *yamux.Stream

	in *decoder

	mu  sync.Mutex
	out *json.Encoder
}

// helloTime is how long the other side may take for its part of the greeting.
const helloTime = 10 * time.Second

// newConn makes the streams of a session known by their names.
func newConn(s *yamux.Session, next func() (*yamux.Stream, error)) (*Conn, error) {
	c := &Conn{session: s}
	for _, stream := range []**yamux.Stream{&c.control, &c.Stdin, &c.Stdout, &c.Stderr} {
		var err error
		if *stream, err = next(); err != nil {
			_ = s.Close()
			return nil, fmt.Errorf("%w: %w", ErrProtocol, err)
		}
	}
	c.in, c.out = newDecoder(c.control), json.NewEncoder(c.control)
	return c, nil
}

// Dial connects to the process of the machine with that folder and ID. Errors are
// unix.ECONNREFUSED and os.ErrNotExist where there is none, and ErrProtocol.
func Dial(ctx context.Context, folder, id string) (*Conn, error) {
	var conn net.Conn
	err := throughFolder(folder, func(path string) (err error) {
		conn, err = new(net.Dialer).DialContext(ctx, "unix", path)
		return err
	})
	if err != nil {
		return nil, err
	}
	return Client(ctx, conn, id)
}

// Listen makes the socket in a folder, for this user alone. It is the caller's to remove.
func Listen(folder string) (net.Listener, error) {
	var l *net.UnixListener
	err := throughFolder(folder, func(path string) (err error) {
		if l, err = net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"}); err != nil {
			return err
		}
		l.SetUnlinkOnClose(false) // by then the path is another's
		if err = os.Chmod(path, 0o600); err != nil {
			_ = l.Close()
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return l, nil
}

// throughFolder calls f with a short path of the socket in a folder: a socket's address
// has room for 108 bytes (unix(7)), and the folder's path may have more.
func throughFolder(folder string, f func(path string) error) error {
	fd, err := unix.Open(folder, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: folder, Err: err}
	}
	defer unix.Close(fd)
	return f(filepath.Join("/proc/self/fd", strconv.Itoa(fd), Socket))
}

// Client makes a request on a connection, which it owns from then on. The end of ctx closes
// it.
func Client(ctx context.Context, conn net.Conn, id string) (*Conn, error) {
	_ = conn.SetReadDeadline(time.Now().Add(helloTime))
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	var h hello
	err := readHello(conn, &h)
	if !stop() {
		err = context.Cause(ctx)
	}
	switch {
	case err != nil:
	case h.Version != Version:
		err = fmt.Errorf("%w: the machine's process speaks version %d, this husk %d; use the husk that started the machine, or end that with kill %s", ErrProtocol, h.Version, Version, "PID")
	case h.ID != id:
		err = fmt.Errorf("%w: it is that of machine %q, not %s", ErrProtocol, h.ID, id)
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	_ = conn.SetReadDeadline(time.Time{})
	s, err := yamux.Client(conn, config())
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return newConn(s, s.OpenStream)
}

// maxHello bounds a hello in bytes.
const maxHello = 4096

// readHello reads a line byte by byte: what follows is not JSON.
func readHello(r io.Reader, h *hello) error {
	var line []byte
	for b := make([]byte, 1); len(line) < maxHello; line = append(line, b[0]) {
		if _, err := io.ReadFull(r, b); err != nil {
			return err
		}
		if b[0] != '\n' {
			continue
		}
		if err := json.Unmarshal(line, h); err != nil {
			return fmt.Errorf("%w: %w", ErrProtocol, err)
		}
		return nil
	}
	return fmt.Errorf("%w: a hello without an end", ErrProtocol)
}

// Accept takes a request from a connection, which it owns from then on.
func Accept(conn net.Conn, id string) (*Conn, Request, error) {
	var r Request
	_ = conn.SetDeadline(time.Now().Add(helloTime))
	if err := json.NewEncoder(conn).Encode(hello{Version, id}); err != nil {
		_ = conn.Close()
		return nil, r, err
	}
	s, err := yamux.Server(conn, config())
	if err != nil {
		_ = conn.Close()
		return nil, r, err
	}
	c, err := newConn(s, s.AcceptStream)
	if err == nil {
		err = c.in.next(&r)
	}
	if err != nil {
		_ = s.Close()
		return nil, r, err
	}
	_ = conn.SetDeadline(time.Time{})
	return c, r, nil
}

// Ask sends a request, or a steer.
func (c *Conn) Ask(message any) error { return c.send(message) }

// Answer sends a reply.
func (c *Conn) Answer(r Reply) error { return c.send(r) }

func (c *Conn) send(v any) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.out.Encode(v)
}

// Reply waits for a reply. io.EOF is the end.
func (c *Conn) Reply() (r Reply, err error) {
	err = c.in.next(&r)
	return r, err
}

// Steer waits for what a client wants besides.
func (c *Conn) Steer() (s Steer, err error) {
	err = c.in.next(&s)
	return s, err
}

// Finish sends the last reply, and waits a while for the client to take it.
func (c *Conn) Finish(r Reply) {
	r.Last = true
	_, _ = c.Stdout.Close(), c.Stderr.Close()
	if c.Answer(r) == nil {
		select {
		case <-c.Gone():
		case <-time.After(helloTime):
		}
	}
	_ = c.Close()
}

// Gone is closed when the connection is.
func (c *Conn) Gone() <-chan struct{} { return c.session.CloseChan() }

// Close ends the connection.
func (c *Conn) Close() error {
	err := c.session.Close()
	if errors.Is(err, yamux.ErrSessionShutdown) {
		return nil
	}
	return err
}
