// Package net is the network device (virtio 1.2 §5.1). Frames go between the
// guest's buffers and the link without a copy, or past this process (Kernel).
//
// It has no filter: the control queue's commands about what the driver wants to
// hear are taken and change nothing, and the driver drops what it does not want,
// as it must anyway (§5.1.6.5.1: they are best-effort).
package net

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/huskvm/husk/devices/ethernet"
	"github.com/huskvm/husk/devices/virtio"
	"github.com/huskvm/husk/devices/virtio/queue"
)

// A Link is what the card is plugged into.
//
// SetOffloads says which of Info().Gives the guest takes: none, at first.
// SetQueues says that the guest listens to the first n queues only: one, at first.
// While it is called, no queue from the nth on is in use but for Send.
type Link interface {
	Info() ethernet.Info
	Queue(i int) ethernet.Queue
	SetOffloads(ethernet.Offloads) error
	SetQueues(n int) error
}

const (
	queueSize = 256
	// burst is how many frames the driver does not hear of at most.
	burst = 32
	// patience is how long a frame waits for the rest of the buffers it takes. A
	// driver that has given all it has would let it wait forever.
	patience = 100 * time.Millisecond

	// The MTUs that the driver can be told of (§5.1.4.1).
	minMTU = 68
	maxMTU = 65535
	// maxPairs is the most pairs of queues that there can be (§5.1.4.1).
	maxPairs = 0x8000

	// The configuration space (§5.1.4).
	configMAC    = 0
	configStatus = 6
	configPairs  = 8
	configMTU    = 10
	configSpeed  = 12
	configDuplex = 16
	configSize   = 17

	statusLinkUp = 1 // VIRTIO_NET_S_LINK_UP
	duplexFull   = 1
	// speed is for drivers that need one, as for bonding; the link has none. In
	// Mb/s.
	speed = 10_000
)

// A Device is one network card. Its methods may be called from any goroutine.
type Device struct {
	link     Link
	kernel   Kernel // or nil
	info     ethernet.Info
	mac      [6]byte
	features uint64
	patience time.Duration

	failed  atomic.Bool   // the link, for good
	changed chan struct{} // has a token if the driver is to hear of that
	takes   atomic.Uint32 // ethernet.Offloads that the guest takes now
	stats   counters

	// What the driver asked for on the control queue.
	mu     sync.Mutex
	macNow [6]byte
	pairs  int
}

// New returns a card with a unicast address on a link. kernel, if not nil, serves its
// queues where the driver has negotiated what that takes. Whoever opened link and
// kernel closes them, after the device.
func New(link Link, mac net.HardwareAddr, kernel Kernel) (*Device, error) {
	info := link.Info()
	if info.Queues < 1 || info.Queues > maxPairs {
		return nil, fmt.Errorf("virtio-net: a link with %d queues; a card has 1 to %d", info.Queues, maxPairs)
	}
	if len(mac) != 6 || !unicast(mac) {
		return nil, fmt.Errorf("virtio-net: %q is not the address of a card: give six bytes, not all zero, the first of them even", mac)
	}
	d := &Device{
		link: link, kernel: kernel, info: info, mac: [6]byte(mac), features: offered(info),
		patience: patience, changed: make(chan struct{}, 1),
	}
	d.Negotiated(0)
	return d, nil
}

func unicast(mac []byte) bool {
	for _, b := range mac {
		if b != 0 {
			return mac[0]&1 == 0
		}
	}
	return false
}

// Type implements virtio.Device.
func (*Device) Type() virtio.Type { return virtio.Net }

// Features implements virtio.Device.
func (d *Device) Features() uint64 { return d.features }

// QueueSizes implements virtio.Device: receiveq and transmitq of each pair, and
// controlq, which a driver that has not negotiated MQ looks for behind the first
// pair (§5.1.2).
func (d *Device) QueueSizes() []int {
	sizes := make([]int, 2*d.info.Queues+1)
	for i := range sizes {
		sizes[i] = queueSize
	}
	return sizes
}

// Config implements virtio.Device.
func (d *Device) Config(p []byte) int {
	p = p[:configSize]
	clear(p)
	d.mu.Lock()
	copy(p[configMAC:], d.macNow[:])
	d.mu.Unlock()
	if !d.failed.Load() {
		binary.LittleEndian.PutUint16(p[configStatus:], statusLinkUp)
	}
	binary.LittleEndian.PutUint16(p[configPairs:], uint16(d.info.Queues))
	if d.features&featMTU != 0 {
		binary.LittleEndian.PutUint16(p[configMTU:], uint16(d.info.MTU))
	}
	binary.LittleEndian.PutUint32(p[configSpeed:], speed)
	p[configDuplex] = duplexFull
	return configSize
}

// StoreConfig implements virtio.ConfigStorer: nothing is the driver's to write
// (§5.1.4.2).
func (*Device) StoreConfig(int, []byte) {}

// Negotiated implements virtio.ConfigStorer. It puts back what a driver before
// has set.
func (d *Device) Negotiated(features uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.macNow, d.pairs = d.mac, 1
	d.takes.Store(uint32(toGuest(features)))
}

// Serve implements virtio.Device. A link that fails is a cable pulled out: the
// device goes on.
func (d *Device) Serve(ctx context.Context, s *virtio.Session) error {
	if err := d.link.SetOffloads(ethernet.Offloads(d.takes.Load())); err != nil {
		d.fail(s, err)
	}
	// A driver that comes after this one may not take what it took.
	defer d.link.SetOffloads(0) //nolint:errcheck // the link failed, or will say so next time
	change := make(chan pairsChange)
	byKernel := d.byKernel(s)
	fs := []func(context.Context) error{
		func(ctx context.Context) error { return d.tell(ctx, s) },
		func(ctx context.Context) error { return d.receive(ctx, s, change, byKernel) },
		func(ctx context.Context) error {
			return s.ServeQueues(ctx, func(ctx context.Context, i int, q *queue.Queue) error {
				switch control := d.controlQueue(s.Features); {
				case i == control && s.Has(featCtrlVQ):
					return d.control(ctx, s, q, change)
				case i < control && i%2 == 1:
					return d.serveQueue(ctx, s, i, q, byKernel)
				default: // a receiveq, or what the driver has no use for
					<-ctx.Done()
					return ctx.Err()
				}
			})
		},
	}
	if byKernel {
		fs = append(fs, func(ctx context.Context) error { return d.check(ctx, s) })
	}
	return virtio.Together(ctx, fs...)
}

// controlQueue is the index of controlq (§5.1.2).
func (d *Device) controlQueue(features uint64) int {
	if features&featMQ != 0 {
		return 2 * d.info.Queues
	}
	return 2
}

// fail takes note that the link is no more.
func (d *Device) fail(s *virtio.Session, err error) {
	if d.failed.Swap(true) {
		return
	}
	s.Log.Error("virtio-net: the network failed; the guest sees its cable pulled out", "err", err)
	d.changed <- struct{}{}
}

// tell tells the driver when the link fails.
func (d *Device) tell(ctx context.Context, s *virtio.Session) error {
	for {
		select {
		case <-d.changed:
			s.ConfigChanged()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
