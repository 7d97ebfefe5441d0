package load

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

const (
	// tripSize is the length of a request and of its answer, in bytes.
	tripSize = 64
	// chunk is how much a stream gives to, or takes from, the kernel at once.
	chunk = 128 << 10
	// connectTimeout bounds the wait for the server.
	connectTimeout = 20 * time.Second
)

// What the first byte of a connection asks the server for.
const (
	askSink = 's' // takes bytes until the client ends, then tells how many, in 8 bytes
	askPour = 'p' // sends bytes until the client closes
	askEcho = 'e' // sends back tripSize bytes whenever it has got them
)

// ask connects to the host's server.
func ask(what byte) (*net.TCPConn, error) { return askAt(Server, what) }

func askAt(address string, what byte) (*net.TCPConn, error) {
	c, err := net.DialTimeout("tcp4", address, connectTimeout)
	if err != nil {
		return nil, err
	}
	if _, err := c.Write([]byte{what}); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c.(*net.TCPConn), nil
}

func streamOut(limit time.Duration) (Result, error) {
	c, err := ask(askSink)
	if err != nil {
		return Result{}, err
	}
	defer c.Close()
	return pourInto(c, limit)
}

// pourInto writes for limit, and then waits until all has arrived.
func pourInto(c *net.TCPConn, limit time.Duration) (Result, error) {
	var r Result
	p := make([]byte, chunk)
	start := time.Now()
	for deadline := start.Add(limit); r.Ops == 0 || time.Now().Before(deadline); r.Ops++ {
		if _, err := c.Write(p); err != nil {
			return r, err
		}
	}
	if err := c.CloseWrite(); err != nil {
		return r, err
	}
	var total [8]byte
	if _, err := io.ReadFull(c, total[:]); err != nil {
		return r, err
	}
	r.Seconds, r.Bytes = time.Since(start).Seconds(), binary.LittleEndian.Uint64(total[:])
	if want := r.Ops * chunk; r.Bytes != want {
		return r, fmt.Errorf("%d of %d bytes arrived", r.Bytes, want)
	}
	return r, nil
}

func streamIn(limit time.Duration) (Result, error) {
	c, err := ask(askPour)
	if err != nil {
		return Result{}, err
	}
	defer c.Close()
	return drain(c, limit)
}

func drain(c *net.TCPConn, limit time.Duration) (Result, error) {
	var r Result
	p := make([]byte, chunk)
	start := time.Now()
	for deadline := start.Add(limit); r.Ops == 0 || time.Now().Before(deadline); r.Ops++ {
		n, err := c.Read(p)
		if err != nil {
			return r, err
		}
		r.Bytes += uint64(n)
	}
	r.Seconds = time.Since(start).Seconds()
	return r, nil
}

func roundTrips(limit time.Duration) (Result, error) {
	c, err := ask(askEcho)
	if err != nil {
		return Result{}, err
	}
	defer c.Close()
	return trips(c, limit)
}

func trips(c *net.TCPConn, limit time.Duration) (Result, error) {
	var r Result
	p := make([]byte, tripSize)
	start := time.Now()
	for deadline := start.Add(limit); r.Ops == 0 || time.Now().Before(deadline); r.Ops++ {
		if _, err := c.Write(p); err != nil {
			return r, err
		}
		if _, err := io.ReadFull(c, p); err != nil {
			return r, err
		}
	}
	r.Seconds, r.Bytes = time.Since(start).Seconds(), r.Ops*tripSize
	return r, nil
}

// Serve is the host's side: it answers the connections that l takes, until l is
// closed.
func Serve(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			_ = answer(c.(*net.TCPConn)) // the guest tells of what it misses
		}()
	}
}

func answer(c *net.TCPConn) error {
	var what [1]byte
	if _, err := io.ReadFull(c, what[:]); err != nil {
		return err
	}
	p := make([]byte, chunk)
	switch what[0] {
	case askSink:
		total := uint64(0)
		for {
			n, err := c.Read(p)
			total += uint64(n)
			if errors.Is(err, io.EOF) {
				return binary.Write(c, binary.LittleEndian, total)
			}
			if err != nil {
				return err
			}
		}
	case askPour:
		for {
			if _, err := c.Write(p); err != nil {
				return err
			}
		}
	case askEcho:
		for {
			if _, err := io.ReadFull(c, p[:tripSize]); err != nil {
				return err
			}
			if _, err := c.Write(p[:tripSize]); err != nil {
				return err
			}
		}
	}
	return fmt.Errorf("%q is nothing to ask for", what)
}
