package vsock

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// unixDevice returns a device that listens at a path, and a guest.
func unixDevice(t testing.TB, c Config) (*Device, *guest) {
	t.Helper()
	c.Path = socketPath(t)
	d := newDevice(t, c)
	return d, newGuest(t, d, nil)
}

// program connects to a port of the guest as a host program does, and returns the
// host's port.
func program(t testing.TB, d *Device, port uint32) (*net.UnixConn, uint32) {
	t.Helper()
	c, err := net.Dial("unix", d.c.Path)
	require.NoError(t, err)
	_, err = fmt.Fprintf(c, "CONNECT %d\n", port)
	require.NoError(t, err)
	answer, err := bufio.NewReaderSize(io.LimitReader(c, int64(len("OK 1073741824\n"))), 16).ReadString('\n')
	require.NoError(t, err)
	var host uint32
	_, err = fmt.Sscanf(answer, "OK %d\n", &host)
	require.NoError(t, err, answer)
	return c.(*net.UnixConn), host
}

// serve has a host program answer a port of the host.
func serve(t testing.TB, d *Device, port uint32, f func(*net.UnixConn)) {
	t.Helper()
	l, err := net.Listen("unix", fmt.Sprintf("%s_%d", d.c.Path, port))
	require.NoError(t, err)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { f(c.(*net.UnixConn)) })
		}
	})
	t.Cleanup(func() {
		require.NoError(t, l.Close())
		wg.Wait()
	})
}

func fds(t testing.TB) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	return len(d)
}

func TestAHostProgramConnects(t *testing.T) {
	d, g := unixDevice(t, Config{})
	g.listen(7, echoGuest)
	before := fds(t)
	for i := range 3 {
		c, port := program(t, d, 7)
		require.EqualValues(t, firstPort+i, port)
		exchange(t, c, func() { _ = c.CloseWrite() }, text(1<<20))
		require.NoError(t, c.Close())
		quiet(t, d)
	}
	require.Eventually(t, func() bool { return fds(t) == before }, time.Minute, time.Millisecond)
}

func TestTheGuestConnectsToAHostProgram(t *testing.T) {
	d, g := unixDevice(t, Config{})
	serve(t, d, 80, func(c *net.UnixConn) { echo(c) })
	for range 3 {
		c, err := g.dial(80)
		require.NoError(t, err)
		exchange(t, c, func() { c.shutdown(shutSend) }, text(1<<20))
		require.NoError(t, c.Close())
		require.Equal(t, io.EOF, c.closed())
		quiet(t, d)
	}
	_, err := g.dial(81)
	require.Equal(t, errGuestReset, err, "nobody listens")
	stale, err := net.Listen("unix", d.c.Path+"_82")
	require.NoError(t, err)
	stale.(*net.UnixListener).SetUnlinkOnClose(false)
	require.NoError(t, stale.Close())
	_, err = g.dial(82)
	require.Equal(t, errGuestReset, err, "a stale socket")
	quiet(t, d)
}

func TestRequestsThatAreRefused(t *testing.T) {
	d := openDevice(t, Config{CID: guestCID, Path: socketPath(t)}, times{handshake: 100 * time.Millisecond, linger: time.Minute})
	g := newGuest(t, d, nil)
	g.listen(7, echoGuest)
	for _, request := range []string{
		"CONNECT 8\n", // nobody listens
		"CONNECT 4294967296\n", "CONNECT -1\n", "CONNECT\n", "CONNECT 7 7\n", "\n", "GET / HTTP/1.1\r\n",
		strings.Repeat("x", 100),
		"CONNECT 7", // and no more: too late
	} {
		c, err := net.Dial("unix", d.c.Path)
		require.NoError(t, err)
		_, err = c.Write([]byte(request))
		require.NoError(t, err)
		got, _ := io.ReadAll(c)
		require.Empty(t, got, request)
		require.NoError(t, c.Close())
	}
	quiet(t, d)
}

func TestAFullBacklogOfAHostProgram(t *testing.T) {
	d, g := unixDevice(t, Config{})
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	require.NoError(t, unix.Bind(fd, &unix.SockaddrUnix{Name: d.c.Path + "_80"}))
	require.NoError(t, unix.Listen(fd, 0))
	f := os.NewFile(uintptr(fd), "listener")
	l, err := net.FileListener(f)
	require.NoError(t, err)
	require.NoError(t, unix.Listen(fd, 0)) // FileListener makes it longer
	defer f.Close()
	defer l.Close()
	var wg sync.WaitGroup
	for range 5 {
		wg.Go(func() {
			c, err := g.dial(80)
			if err != nil {
				t.Error(err)
				return
			}
			_ = c.Close()
			_ = c.closed()
		})
	}
	for range 5 {
		time.Sleep(retryAfter)
		c, err := l.Accept()
		require.NoError(t, err)
		require.NoError(t, c.Close())
	}
	wg.Wait()
	quiet(t, d)
}

// What a program sends right behind its request belongs to the connection.
func TestDataBehindTheRequest(t *testing.T) {
	d, g := unixDevice(t, Config{})
	g.listen(7, echoGuest)
	c, err := net.Dial("unix", d.c.Path)
	require.NoError(t, err)
	_, err = c.Write([]byte("connect 7\nhello"))
	require.NoError(t, err)
	require.NoError(t, c.(*net.UnixConn).CloseWrite())
	got, err := io.ReadAll(c)
	require.NoError(t, err)
	require.Equal(t, fmt.Sprintf("OK %d\nhello", firstPort), string(got))
	require.NoError(t, c.Close())
	quiet(t, d)
}

func TestHalfCloseOfAHostProgram(t *testing.T) {
	d, g := unixDevice(t, Config{})
	conns := make(chan *guestConn, 1)
	g.listen(7, func(c *guestConn) { conns <- c })

	// The program ends its output, and reads on.
	h, _ := program(t, d, 7)
	c := <-conns
	_, err := h.Write([]byte("question"))
	require.NoError(t, err)
	require.NoError(t, h.CloseWrite())
	got, err := io.ReadAll(c)
	require.NoError(t, err)
	require.Equal(t, "question", string(got))
	_, err = c.Write([]byte("answer"))
	require.NoError(t, err)
	b := make([]byte, 6)
	_, err = io.ReadFull(h, b)
	require.NoError(t, err)
	require.Equal(t, "answer", string(b))
	// It ends: the guest is told so, without writing.
	require.NoError(t, h.Close())
	require.Equal(t, io.EOF, c.closed())
	quiet(t, d)

	// The guest ends its output, and reads on.
	h, _ = program(t, d, 7)
	c = <-conns
	c.shutdown(shutSend)
	got, err = io.ReadAll(h)
	require.NoError(t, err)
	require.Empty(t, got)
	_, err = h.Write([]byte("more"))
	require.NoError(t, err)
	_, err = io.ReadFull(c, b[:4])
	require.NoError(t, err)
	require.NoError(t, h.Close())
	require.NoError(t, c.Close())
	require.Equal(t, io.EOF, c.closed())
	quiet(t, d)

	// The guest reads no more: the program hears it when it writes.
	h, _ = program(t, d, 7)
	c = <-conns
	c.shutdown(shutReceive)
	require.Eventually(t, func() bool { _, err := h.Write([]byte("x")); return err != nil }, time.Minute, time.Millisecond)
	_, err = c.Write([]byte("still"))
	require.NoError(t, err)
	_, err = io.ReadFull(h, b[:5])
	require.NoError(t, err)
	require.NoError(t, h.Close())
	require.Equal(t, io.EOF, func() error { _ = c.Close(); return c.closed() }())
	quiet(t, d)
}

// A host program that is gone in mid-transfer does not take the guest's others
// with it.
func TestAHostProgramIsGone(t *testing.T) {
	d, g := unixDevice(t, Config{})
	g.listen(7, echoGuest)
	other, _ := program(t, d, 7)
	defer other.Close()
	serve(t, d, 80, func(c *net.UnixConn) {
		_, _ = io.ReadFull(c, make([]byte, 100<<10))
		_, _ = c.Write(text(100))
		_ = c.Close() // with more to read
	})
	for range 10 {
		c, err := g.dial(80)
		require.NoError(t, err)
		_, err = c.Write(text(10 << 20))
		require.Error(t, err)
		_ = c.Close()
		require.Error(t, c.closed())
	}
	exchange(t, other, func() { _ = other.CloseWrite() }, text(100<<10))
	require.NoError(t, other.Close())
	quiet(t, d)
}

// A reader that sleeps, on either side, holds up its own connection alone.
func TestASlowReaderStopsNobodyElse(t *testing.T) {
	d, g := unixDevice(t, Config{})
	wake := make(chan struct{})
	serve(t, d, 80, func(c *net.UnixConn) {
		<-wake
		echo(c)
	})
	serve(t, d, 81, func(c *net.UnixConn) { echo(c) })
	g.listen(6, func(c *guestConn) {
		<-wake
		echo(c)
	})
	g.listen(7, echoGuest)

	want := text(1 << 20)
	var wg sync.WaitGroup
	slow, err := g.dial(80)
	require.NoError(t, err)
	wg.Go(func() { exchange(t, slow, func() { slow.shutdown(shutSend) }, want) })
	h, _ := program(t, d, 6)
	wg.Go(func() { exchange(t, h, func() { _ = h.CloseWrite() }, want) })

	for range 3 {
		c, err := g.dial(81)
		require.NoError(t, err)
		exchange(t, c, func() { c.shutdown(shutSend) }, want)
		require.NoError(t, c.Close())
		p, _ := program(t, d, 7)
		exchange(t, p, func() { _ = p.CloseWrite() }, want)
		require.NoError(t, p.Close())
	}
	d.mu.Lock()
	conns := make([]*Conn, 0, len(d.conns))
	for _, c := range d.conns {
		conns = append(conns, c)
	}
	d.mu.Unlock()
	for _, c := range conns {
		c.mu.Lock()
		require.LessOrEqual(t, c.in.n, c.window)
		c.mu.Unlock()
	}
	close(wake)
	wg.Wait()
	require.NoError(t, slow.Close())
	require.NoError(t, h.Close())
	quiet(t, d)
}

func TestAThousandConnections(t *testing.T) {
	d, g := unixDevice(t, Config{})
	g.window = 4096
	g.listen(7, echoGuest)
	serve(t, d, 80, func(c *net.UnixConn) { echo(c) })
	before := fds(t)
	const half = 500
	want := text(20 << 10)
	var ready, done sync.WaitGroup
	ready.Add(2 * half)
	for range half {
		done.Go(func() {
			c, err := g.dial(80)
			ready.Done()
			if err != nil {
				t.Error(err)
				return
			}
			ready.Wait() // all are open at once
			exchange(t, c, func() { c.shutdown(shutSend) }, want)
			_ = c.Close()
			_ = c.closed()
		})
		c, _ := program(t, d, 7)
		ready.Done()
		done.Go(func() {
			ready.Wait()
			exchange(t, c, func() { _ = c.CloseWrite() }, want)
			_ = c.Close()
		})
	}
	ready.Wait()
	done.Wait()
	quiet(t, d)
	require.Eventually(t, func() bool { return fds(t) == before }, time.Minute, time.Millisecond)
}

func TestTheSocketsPath(t *testing.T) {
	path := socketPath(t)
	d, err := New(Config{CID: 3, Path: path})
	require.NoError(t, err)
	_, err = New(Config{CID: 3, Path: path})
	require.ErrorIs(t, err, ErrConfig)
	require.ErrorContains(t, err, "somebody listens")
	require.NoError(t, d.Close())
	require.NoFileExists(t, path)

	stale, err := net.Listen("unix", path)
	require.NoError(t, err)
	stale.(*net.UnixListener).SetUnlinkOnClose(false)
	require.NoError(t, stale.Close())
	d, err = New(Config{CID: 3, Path: path})
	require.NoError(t, err, "nobody listens there")
	// Another's is left alone.
	require.NoError(t, os.Remove(path))
	require.NoError(t, os.WriteFile(path, []byte("precious"), 0o600))
	require.NoError(t, d.Close())
	require.FileExists(t, path)

	_, err = New(Config{CID: 3, Path: path})
	require.ErrorIs(t, err, ErrConfig)
	require.ErrorContains(t, err, "not a socket")
	require.NoError(t, os.Remove(path))

	for bad, why := range map[string]string{
		"@name": "abstract", "/nowhere/at/all": "no such file", "/" + strings.Repeat("x", 100): "at most 96",
	} {
		_, err = New(Config{CID: 3, Path: bad})
		require.ErrorIs(t, err, ErrConfig)
		require.ErrorContains(t, err, why)
	}
}

// Close does not wait for programs that do nothing.
func TestCloseDoesNotWaitForPrograms(t *testing.T) {
	d, g := unixDevice(t, Config{})
	g.listen(7, func(*guestConn) {})
	asks, err := net.Dial("unix", d.c.Path)
	require.NoError(t, err)
	defer asks.Close()
	idle, _ := program(t, d, 7)
	defer idle.Close()
	accepted := make(chan *net.UnixConn, 1)
	serve(t, d, 80, func(c *net.UnixConn) { accepted <- c })
	c, err := g.dial(80)
	require.NoError(t, err)
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = c.Write(text(10 << 20)) })
	stuck := <-accepted // which does not read
	defer stuck.Close()
	require.NoError(t, d.Close())
	require.Equal(t, errGuestReset, c.closed())
	wg.Wait()
}

func TestReadRequest(t *testing.T) {
	r := strings.NewReader("CONNECT 52\nrest")
	port, err := readRequest(r)
	require.NoError(t, err)
	require.EqualValues(t, 52, port)
	rest, _ := io.ReadAll(r)
	require.Equal(t, "rest", string(rest))
}

func FuzzRequest(f *testing.F) {
	f.Add([]byte("CONNECT 52\n"))
	f.Add([]byte("connect 4294967295\nabc"))
	f.Add([]byte("CONNECT 4294967296\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		port, err := readRequest(bytes.NewReader(b))
		if err != nil {
			return
		}
		line, _, _ := strings.Cut(string(b), "\n")
		require.LessOrEqual(t, len(line), maxRequest)
		require.Contains(t, line, strings.TrimLeft(fmt.Sprint(port), "0"))
	})
}
