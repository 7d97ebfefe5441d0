package vsock

import (
	"context"
	"errors"
	"log/slog"

	"github.com/huskvm/husk/devices/virtio/queue"
)

// flushEvery is after how many packets the guest is told that they are taken,
// while there are more.
const flushEvery = 16

// receive takes the packets that the guest sends: it serves the tx queue. It
// waits for nobody but the guest.
func (d *Device) receive(ctx context.Context, q *queue.Queue, log *slog.Logger) error {
	for n := 1; ; n++ {
		c, err := q.Take(ctx)
		if err != nil {
			return err
		}
		d.packet(c, log)
		q.Push(c, 0)
		if n%flushEvery == 0 {
			q.Flush()
		}
	}
}

// packet deals with one packet.
func (d *Device) packet(chain *queue.Chain, log *slog.Logger) {
	h, err := parse(chain, uint64(d.c.CID))
	if err != nil {
		log.Warn("vsock: a packet of the guest's is not accepted", "err", err)
		if errors.Is(err, errRefuse) {
			d.refuse(&h)
		}
		return
	}
	c := d.find(key{guest: h.srcPort, host: h.dstPort})
	switch {
	case c != nil:
		c.mu.Lock()
		err := c.packet(&h, chain)
		c.mu.Unlock()
		if err != nil {
			log.Warn("vsock: a connection of the guest's is reset, it broke the rules", "err", err, "guest_port", h.srcPort, "host_port", h.dstPort)
		}
	case h.op == opRequest:
		d.request(&h, log)
	default:
		d.refuse(&h)
	}
}

// refuse answers a packet by RST, unless it is one, and ends the connection that
// it may have been of.
func (d *Device) refuse(h *header) {
	if h.dstCID == hostCID {
		if c := d.find(key{guest: h.srcPort, host: h.dstPort}); c != nil {
			c.abort()
			return
		}
	}
	if h.op != opRST {
		d.reset(reset{key{guest: h.srcPort, host: h.dstPort}, h.dstCID, h.typ})
	}
}

// request deals with the guest's wish to connect: to who listens in this process,
// or else by a Unix socket.
func (d *Device) request(h *header, log *slog.Logger) {
	c, err := d.add(d, key{guest: h.srcPort, host: h.dstPort}, requested)
	if err != nil {
		log.Warn("vsock: a connection is refused to the guest", "err", err)
		d.refuse(h)
		return
	}
	c.mu.Lock()
	c.guestRoom, c.guestFwd = h.bufAlloc, h.fwdCnt
	listened, accepted := d.offer(c)
	if accepted {
		c.establish()
	}
	c.mu.Unlock()
	if accepted || !listened && d.unix != nil && d.spawn(func() { d.unix.connect(c) }) {
		return
	}
	_ = c.Close()
}
