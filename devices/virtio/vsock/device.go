// Package vsock is the socket device (virtio 1.2 §5.10): stream sockets between
// the guest and the host, without the host kernel's help.
//
// The host's end is this process (Dial and Listen), and Unix sockets by
// Firecracker's convention: a program that connects to Config.Path and writes
// "CONNECT <port>\n" is connected to that port of the guest, and reads
// "OK <port of the host's end>\n" first; what the guest connects to port P of the
// host (CID 2) goes to whoever listens at <Path>_P.
//
// Nothing is buffered beyond the credit of §5.10.6.3: the guest sends what the
// device has room for, and from the host no more is read than the guest has room
// for.
package vsock

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/huskvm/husk/devices/virtio"
	"github.com/huskvm/husk/devices/virtio/queue"
)

const featStream = 1 << 0 // VIRTIO_VSOCK_F_STREAM, virtio 1.2 §5.10.3

// The queues (§5.10.2). The third, for events, is never used: they tell of
// changes of the CID, and there are none.
const (
	rxQueue    = 0
	txQueue    = 1
	queueSize  = 256
	eventsSize = 16
)

// DefaultMaxConns bounds the connections of a guest where Config does not.
const DefaultMaxConns = 2048

var (
	// ErrRefused says that the guest refused a connection: nobody listens there.
	ErrRefused = errors.New("vsock: the guest refused the connection")
	// ErrNotReady says that no driver of the guest works with the device.
	ErrNotReady = errors.New("vsock: the guest has not started its driver")
	// ErrLimit says that there are too many connections.
	ErrLimit = errors.New("vsock: too many connections")
	// ErrReset says that a connection was reset: by the guest, or because the guest
	// or the device ended.
	ErrReset = errors.New("vsock: connection reset")
	// ErrConfig says that a Config cannot be.
	ErrConfig = errors.New("vsock")
)

// Config is what a Device is.
type Config struct {
	// CID is the guest's context ID, from 3 up to 2^32-2 (§5.10.4).
	CID uint32
	// Path is the Unix socket to listen at. Empty means none, neither in the one
	// direction nor the other.
	Path string
	// MaxConns bounds the connections at a time, including those of which only one
	// side is done. 0 means DefaultMaxConns.
	MaxConns int
	// Log is told what goes wrong on the host. nil drops it.
	Log *slog.Logger
}

// A Device is one socket device. Close ends it.
type Device struct {
	c     Config
	times times
	unix  *unixHost // nil without a Path
	table
}

// times are how long is waited.
type times struct {
	handshake time.Duration // for a host's CONNECT, and for the guest's answer to it
	linger    time.Duration // for the guest's next packet, when the host's end is closed
}

// New returns a device, and listens at Path. A socket that is there already is
// removed if nobody listens to it; else, and if it is anything but a socket, New
// refuses with ErrConfig.
func New(c Config) (*Device, error) {
	return open(c, times{handshake: 10 * time.Second, linger: 30 * time.Second})
}

func open(c Config, wait times) (*Device, error) {
	if c.CID <= hostCID || c.CID == 1<<32-1 {
		return nil, fmt.Errorf("%w: guest CID %d is reserved: choose one from 3 to 4294967294", ErrConfig, c.CID)
	}
	if c.MaxConns < 0 {
		return nil, fmt.Errorf("%w: at most %d connections: choose 1 or more, or 0 for %d", ErrConfig, c.MaxConns, DefaultMaxConns)
	}
	if c.MaxConns == 0 {
		c.MaxConns = DefaultMaxConns
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	d := &Device{c: c, times: wait}
	d.init()
	if c.Path != "" {
		u, err := listenUnix(d, c.Path)
		if err != nil {
			return nil, err
		}
		d.unix = u
		d.spawn(u.serve)
	}
	return d, nil
}

// Type implements virtio.Device.
func (*Device) Type() virtio.Type { return virtio.Socket }

// Features implements virtio.Device. A driver that accepts no feature gets
// streams all the same (§5.10.3.2).
func (*Device) Features() uint64 { return featStream }

// QueueSizes implements virtio.Device: rx, tx, event (§5.10.2).
func (*Device) QueueSizes() []int { return []int{queueSize, queueSize, eventsSize} }

// Config implements virtio.Device (§5.10.4).
func (d *Device) Config(p []byte) int {
	binary.LittleEndian.PutUint64(p, uint64(d.c.CID))
	return 8
}

// StoreConfig implements virtio.ConfigStorer: nothing can be changed.
func (*Device) StoreConfig(int, []byte) {}

// Negotiated implements virtio.ConfigStorer. After a reset nothing is left of the
// connections.
func (d *Device) Negotiated(features uint64) {
	if features != 0 {
		d.driverHere()
	} else {
		d.driverGone()
	}
}

// Serve implements virtio.Device. Connections outlive it, unless the driver broke
// a queue.
func (d *Device) Serve(ctx context.Context, s *virtio.Session) error {
	d.setGuestLog(s.Log)
	err := s.ServeQueues(ctx, func(ctx context.Context, i int, q *queue.Queue) error {
		switch i {
		case rxQueue:
			return d.send(ctx, q, s.Log)
		case txQueue:
			return d.receive(ctx, q, s.Log)
		}
		<-ctx.Done()
		return ctx.Err()
	})
	if ctx.Err() == nil {
		d.driverGone()
	}
	return err
}

// Close resets all connections, stops listening and removes the socket. It
// returns when nothing of the device runs but Serve.
func (d *Device) Close() error {
	var err error
	if d.table.close() && d.unix != nil { //nolint:staticcheck // Close would be a step from close
		err = d.unix.close()
	}
	d.dropAll(errClosed, true)
	d.running.Wait()
	return err
}

var _ interface {
	virtio.Device
	virtio.ConfigStorer
} = (*Device)(nil)

// A table is the connections of a device and what is due to the guest. Its lock
// may be taken with that of a Conn held, and not the other way round.
type table struct {
	mu        sync.Mutex
	conns     map[key]*Conn
	listeners map[uint32]*listener
	held      int // connections of which one side at least is not done
	wide      int // those of them with wideWindow
	nextPort  uint32
	live      bool // a driver works with the device, or will again after a pause
	closed    bool
	log       *slog.Logger // the session's

	ready  line    // connections with something to send
	resets []reset // RSTs to send for what is no connection
	wake   chan struct{}

	ctx     context.Context // until Close
	cancel  context.CancelFunc
	running sync.WaitGroup
	chunks  chunks
	// What is read from a host program at once: blocks for the two windows.
	wideBlocks, narrowBlocks sync.Pool
}
