package virtio

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/huskvm/husk/devices/virtio/queue"
)

// The bits of the device status (virtio 1.2 §2.1).
const (
	StatusAcknowledge = 1
	StatusDriver      = 2
	StatusDriverOK    = 4
	StatusFeaturesOK  = 8
	StatusNeedsReset  = 64
	StatusFailed      = 128
)

// patience is how long a register access waits for a device that is being
// reset. What takes longer is seen by the driver as not done yet.
const patience = 100 * time.Millisecond

// Config is what a State is connected to.
type Config struct {
	Device Device
	Memory queue.Memory
	// Features are those of the transport, such as FeatRingReset.
	Features uint64
	// Kicks and Interrupts are each queue's, by index: where the driver's
	// notifications arrive, and what announces used buffers.
	Kicks      []queue.Kick
	Interrupts []queue.Interrupt
	// ConfigInterrupt announces a change of the configuration.
	ConfigInterrupt queue.Interrupt
	// OnReset, if not nil, puts the transport's own registers back. It is called
	// before the driver sees that a reset is done, without State's lock: from
	// SetStatus, or from the goroutine that served the device. It does not call
	// into State.
	OnReset func()
	// Log is told of faults, with a bounded rate. nil drops them.
	Log *slog.Logger
}

// State is a device as its driver sees it through a transport: the registers
// that PCI (§4.1.4.3) and MMIO (§4.2.2) have in common. It owns the goroutine that
// serves the device.
//
// Its methods may be called from any goroutine, vCPUs among them: none but
// Pause and Close blocks longer than a tenth of a second.
type State struct {
	c       Config
	storer  ConfigStorer // c.Device, or nil
	offered uint64
	log     *slog.Logger

	mu        sync.Mutex
	status    uint8
	acked     uint64
	ackedMore bool // the driver acknowledged a bit above 63

	deviceFeatureSelect, driverFeatureSelect uint32
	queueSelect                              uint32
	queues                                   []virtqueue

	config     [MaxConfig]byte // as the driver saw it last
	configLen  int
	generation uint32

	serving
}

// virtqueue is a queue's registers.
type virtqueue struct {
	queue.State
	max       uint16
	resetting bool // stops, to be reset
}

func (q *virtqueue) reset() {
	*q = virtqueue{max: q.max, State: queue.State{Size: q.max}}
}

// NewState returns a device after its reset. Close ends it. It fails if the
// device asks for what cannot be: a mistake in the device or the transport.
func NewState(c Config) (*State, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	s := &State{
		c:       c,
		offered: c.Device.Features() | c.Features | FeatVersion1 | FeatIndirectDesc | FeatEventIdx,
		log:     limited(c.Log),
	}
	s.storer, _ = c.Device.(ConfigStorer)
	sizes := c.Device.QueueSizes()
	if len(c.Kicks) != len(sizes) || len(c.Interrupts) != len(sizes) {
		return nil, fmt.Errorf("a virtio device with %d queues, but %d kicks and %d interrupts", len(sizes), len(c.Kicks), len(c.Interrupts))
	}
	for i, n := range sizes {
		if n <= 0 || n > queue.MaxSize || n&(n-1) != 0 {
			return nil, fmt.Errorf("a virtio device whose queue %d has size %d: it must be a power of two up to %d", i, n, queue.MaxSize)
		}
		q := virtqueue{max: uint16(n)}
		q.reset()
		s.queues = append(s.queues, q)
	}
	s.refreshConfig()
	return s, nil
}

// Type is the device's.
func (s *State) Type() Type { return s.c.Device.Type() }

// Status is the device status. While a reset is not done, it waits a moment, and
// then still shows the status from before: the driver is to look again
// (§4.1.4.3.2).
func (s *State) Status() uint8 {
	s.mu.Lock()
	defer s.unlock()
	s.awaitReset()
	return s.status
}

// SetStatus takes what the driver writes to the device status. 0 resets the
// device. Other values add bits, each of which needs the one before in the order
// of §3.1.1: what is out of order is ignored, and so is a bit that the driver
// takes away, which it must not (§2.1.1).
func (s *State) SetStatus(v uint8) {
	s.mu.Lock()
	defer s.unlock()
	if v == 0 {
		s.resetting = true
		s.settle()
		s.awaitReset()
		return
	}
	if s.awaitReset(); s.resetting {
		return
	}
	s.status |= v & StatusFailed
	if s.status&StatusFailed == 0 {
		s.advance(v)
	}
	s.settle()
}

// advance takes the steps of §3.1.1 that v asks for.
func (s *State) advance(v uint8) {
	s.status |= v & StatusAcknowledge
	if s.status&StatusAcknowledge != 0 {
		s.status |= v & StatusDriver
	}
	if v&^s.status&StatusFeaturesOK != 0 && s.status&StatusDriver != 0 {
		if s.acked&^s.offered != 0 || s.ackedMore || s.acked&FeatVersion1 == 0 {
			s.lines = append(s.lines, line{
				slog.LevelWarn, "virtio: the driver's features are refused: they must be among those offered, with VERSION_1",
				[]any{"offered", fmt.Sprintf("%#x", s.offered), "accepted", fmt.Sprintf("%#x", s.acked)},
			})
			return
		}
		s.status |= StatusFeaturesOK
		if s.storer != nil {
			s.storer.Negotiated(s.acked)
		}
	}
	if s.status&StatusFeaturesOK != 0 {
		s.status |= v & StatusDriverOK
	}
}

// clear puts all registers back.
func (s *State) clear() {
	s.status, s.acked, s.ackedMore = 0, 0, false
	s.deviceFeatureSelect, s.driverFeatureSelect, s.queueSelect = 0, 0, 0
	for i := range s.queues {
		s.queues[i].reset()
	}
	if s.storer != nil {
		s.storer.Negotiated(0)
	}
	s.refreshConfig()
}

// fault says that the device cannot go on until it is reset.
func (s *State) fault(err error) {
	s.status |= StatusNeedsReset
	if s.status&StatusDriverOK != 0 {
		s.tell = true // §2.1.2
	}
	level := slog.LevelError
	if errors.Is(err, queue.ErrBadChain) || errors.Is(err, queue.ErrBadRing) {
		level = slog.LevelWarn
	}
	s.lines = append(s.lines, line{level, "virtio: the device needs a reset by its driver", []any{"err", err}})
}

// configChanged is Session.ConfigChanged.
func (s *State) configChanged() {
	s.mu.Lock()
	defer s.unlock()
	s.refreshConfig()
	s.tell = s.status&StatusDriverOK != 0
}

// unlock releases mu, and does what is due: not under the lock, because the
// interrupt may lead through the transport, and the log may be stuck.
func (s *State) unlock() {
	tell, lines := s.tell, s.lines
	s.tell, s.lines = false, nil
	s.mu.Unlock()
	if tell {
		s.c.ConfigInterrupt.Signal()
	}
	for _, l := range lines {
		s.log.Log(context.Background(), l.level, l.message, l.args...)
	}
}

// ConfigGeneration changes whenever the driver might have seen the configuration
// half old and half new (§2.5).
func (s *State) ConfigGeneration() uint32 {
	s.mu.Lock()
	defer s.unlock()
	return s.generation
}

// LoadConfig loads from the device's configuration space. Behind its end there
// are ones.
func (s *State) LoadConfig(off uint64, p []byte) {
	s.mu.Lock()
	defer s.unlock()
	s.refreshConfig()
	n := 0
	if off < uint64(s.configLen) {
		n = copy(p, s.config[off:s.configLen])
	}
	for i := range p[n:] {
		p[n+i] = 0xff
	}
}

// StoreConfig stores to the device's configuration space. What does not lie in
// it, or does not exist for the driver to write, is dropped.
func (s *State) StoreConfig(off uint64, p []byte) {
	s.mu.Lock()
	defer s.unlock()
	if s.storer == nil || s.resetting || off > uint64(s.configLen) || uint64(len(p)) > uint64(s.configLen)-off {
		return
	}
	s.storer.StoreConfig(int(off), p)
	s.refreshConfig()
}

// refreshConfig asks the device for its configuration. The generation changes
// with it, before the driver sees the new one.
func (s *State) refreshConfig() {
	var now [MaxConfig]byte
	n := s.c.Device.Config(now[:])
	if n != s.configLen || !bytes.Equal(now[:n], s.config[:n]) {
		s.config, s.configLen = now, n
		s.generation++
	}
}
