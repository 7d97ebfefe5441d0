package vsock

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// maxPath is the longest path of a Unix socket (unix(7)), in bytes.
	maxPath = 107
	// maxPortSuffix is what a path grows by for the longest port.
	maxPortSuffix = len("_4294967295")
	// maxRequest bounds the line that a host program asks with, in bytes.
	maxRequest = 32
	// pauseAfterError is how long no connection is accepted where that failed:
	// there are too many open files, say.
	pauseAfterError = time.Second
	// retryAfter is how long is waited where a program's backlog is full.
	retryAfter = 10 * time.Millisecond
)

// A unixHost is the host's end on Unix sockets.
type unixHost struct {
	d        *Device
	path     string
	listener *net.UnixListener
	file     os.FileInfo  // the socket, to remove none but our own
	asking   atomic.Int64 // programs that have not got their OK
}

func listenUnix(d *Device, path string) (*unixHost, error) {
	fail := func(format string, args ...any) error {
		return fmt.Errorf("%w: socket %s: %w", ErrConfig, path, fmt.Errorf(format, args...))
	}
	if strings.HasPrefix(path, "@") {
		return nil, fail("a name in the abstract namespace cannot be used: choose a path")
	}
	if limit := maxPath - maxPortSuffix; len(path) > limit {
		return nil, fail("its path has %d bytes, at most %d are possible: choose a shorter one", len(path), limit)
	}
	addr := &net.UnixAddr{Name: path, Net: "unix"}
	l, err := net.ListenUnix("unix", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		if err := removeStale(path); err != nil {
			return nil, fail("%w", err)
		}
		l, err = net.ListenUnix("unix", addr)
	}
	if err != nil {
		return nil, fail("%w", cause(err))
	}
	l.SetUnlinkOnClose(false)
	u := &unixHost{d: d, path: path, listener: l}
	if u.file, err = os.Lstat(path); err != nil {
		_ = l.Close()
		return nil, fail("%w", cause(err))
	}
	return u, nil
}

// removeStale removes a socket that nobody listens to: what is left where a
// machine was killed.
func removeStale(path string) error {
	before, err := os.Lstat(path)
	if err != nil {
		return cause(err)
	}
	if before.Mode().Type() != fs.ModeSocket {
		return errors.New("there is a file that is not a socket: remove it, or choose another path")
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		_ = c.Close()
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return errors.New("somebody listens there already, another machine perhaps: choose another path")
	}
	// It may have been replaced meanwhile by one that is listened to.
	if now, err := os.Lstat(path); err != nil || !os.SameFile(before, now) {
		return errors.New("somebody else is making it: choose another path")
	}
	return cause(os.Remove(path))
}

// cause is err without what package net and os put around it: the path is named
// already.
func cause(err error) error {
	if errno := syscall.Errno(0); errors.As(err, &errno) {
		return errno
	}
	return err
}

// close stops listening and removes the socket, unless that is another's now.
func (u *unixHost) close() error {
	err := u.listener.Close()
	if now, e := os.Lstat(u.path); e == nil && os.SameFile(u.file, now) {
		err = errors.Join(err, os.Remove(u.path))
	}
	return err
}

// serve accepts host programs until close.
func (u *unixHost) serve() {
	for {
		s, err := u.listener.AcceptUnix()
		if u.d.ctx.Err() != nil {
			if err == nil {
				_ = s.Close()
			}
			return
		}
		if err != nil {
			u.d.c.Log.Warn("vsock: a host program's connection cannot be accepted", "socket", u.path, "err", err)
			select {
			case <-time.After(pauseAfterError):
			case <-u.d.ctx.Done():
			}
			continue
		}
		if u.asking.Add(1) > int64(u.d.c.MaxConns) || !u.d.spawn(func() { u.answer(s) }) {
			u.asking.Add(-1)
			_ = s.Close()
		}
	}
}

// answer connects a host program to the port that it asks for.
func (u *unixHost) answer(s *net.UnixConn) {
	defer s.Close()
	defer context.AfterFunc(u.d.ctx, func() { _ = s.Close() })()
	c, err := u.dial(s)
	u.asking.Add(-1)
	if err != nil {
		// The program sees that it is closed. It could fill the log as it likes.
		u.d.c.Log.Debug("vsock: a host program is not connected", "socket", u.path, "err", err)
		return
	}
	bridge(c, s)
}

func (u *unixHost) dial(s *net.UnixConn) (*Conn, error) {
	ctx, cancel := context.WithTimeout(u.d.ctx, u.d.times.handshake)
	defer cancel()
	by, _ := ctx.Deadline()
	if err := s.SetDeadline(by); err != nil {
		return nil, err
	}
	port, err := readRequest(s)
	if err != nil {
		return nil, err
	}
	c, err := u.d.dial(ctx, port)
	if err != nil {
		return nil, err
	}
	if _, err = fmt.Fprintf(s, "OK %d\n", c.key.host); err == nil {
		err = s.SetDeadline(time.Time{})
	}
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// readRequest reads "CONNECT <port>\n", and nothing of what comes after.
func readRequest(r io.Reader) (uint32, error) {
	line := make([]byte, 0, maxRequest)
	for {
		n := len(line)
		if n == maxRequest {
			return 0, fmt.Errorf("a request of more than %d bytes", maxRequest)
		}
		line = line[:n+1]
		if _, err := io.ReadFull(r, line[n:]); err != nil {
			return 0, fmt.Errorf("reading a request: %w", err)
		}
		if line[n] == '\n' {
			return parseRequest(string(line[:n]))
		}
	}
}

func parseRequest(line string) (uint32, error) {
	words := strings.Fields(line)
	if len(words) != 2 || !strings.EqualFold(words[0], "CONNECT") {
		return 0, fmt.Errorf("a request %q: it must be CONNECT and a port", line)
	}
	port, err := strconv.ParseUint(words[1], 10, 32)
	if err != nil {
		return 0, fmt.Errorf("a request %q: the port must be a number up to 4294967295", line)
	}
	return uint32(port), nil
}

// connect connects the guest to the host program that listens at the path for c's
// port.
func (u *unixHost) connect(c *Conn) {
	path := fmt.Sprintf("%s_%d", u.path, c.key.host)
	ctx, cancel := context.WithTimeout(u.d.ctx, u.d.times.handshake)
	defer cancel()
	s, err := dialUnix(ctx, path)
	if err != nil {
		_ = c.Close()
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ECONNREFUSED) {
			u.d.guestLog().Warn("vsock: the guest cannot be connected to a host program", "err", err)
		}
		return
	}
	defer s.Close()
	defer context.AfterFunc(u.d.ctx, func() { _ = s.Close() })()
	bridge(c, s)
}

// dialUnix connects to a program, and waits while its backlog is full: a Unix
// socket that does not block says so at once.
func dialUnix(ctx context.Context, path string) (*net.UnixConn, error) {
	for {
		s, err := new(net.Dialer).DialContext(ctx, "unix", path)
		if err == nil {
			return s.(*net.UnixConn), nil
		}
		if !errors.Is(err, syscall.EAGAIN) {
			return nil, err
		}
		select {
		case <-time.After(retryAfter):
		case <-ctx.Done():
			return nil, err
		}
	}
}
