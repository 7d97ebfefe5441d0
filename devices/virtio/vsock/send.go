package vsock

import (
	"context"
	"log/slog"

	"github.com/huskvm/husk/devices/virtio/queue"
)

// quantum is how many packets a connection may send before it is the turn of the
// next one.
const quantum = 16

// A sender sends packets to the guest: it serves the rx queue.
type sender struct {
	d   *Device
	q   *queue.Queue
	log *slog.Logger

	chain *queue.Chain // the next buffer to fill, or nil
	room  uint64       // in it
}

func (d *Device) send(ctx context.Context, q *queue.Queue, log *slog.Logger) error {
	s := &sender{d: d, q: q, log: log}
	defer func() {
		if s.chain != nil {
			q.Return(s.chain)
		}
	}()
	for {
		if err := s.awaitWork(ctx); err != nil {
			return err
		}
		if err := s.round(ctx); err != nil {
			return err
		}
	}
}

// round sends a RST and what one connection has to send, if these are due. They
// are taken from the table when there is a buffer: until then they may change,
// and they outlive a pause.
func (s *sender) round(ctx context.Context) error {
	if err := s.awaitBuffer(ctx); err != nil {
		return err
	}
	if r, ok := s.d.nextReset(); ok {
		h := header{op: opRST, typ: r.typ, srcCID: r.cid, srcPort: r.host, dstPort: r.guest}
		s.put(&h, nil)
	}
	if err := s.awaitBuffer(ctx); err != nil {
		return err
	}
	if c := s.d.nextReady(); c != nil {
		s.turn(c)
	}
	return nil
}

func (s *sender) awaitWork(ctx context.Context) error {
	for !s.d.work() {
		s.q.Flush()
		select {
		case <-s.d.wake:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return ctx.Err()
}

// awaitBuffer waits for a buffer with room for a byte of data at least.
func (s *sender) awaitBuffer(ctx context.Context) error {
	for s.chain == nil {
		c, err := s.q.Take(ctx)
		if err != nil {
			return err
		}
		s.hold(c)
	}
	return nil
}

func (s *sender) hold(c *queue.Chain) {
	if s.room = queue.Len(c.In); s.room > headerSize {
		s.chain = c
		return
	}
	s.log.Warn("vsock: a receive buffer of the guest's is too small for a packet", "bytes", s.room)
	s.q.Push(c, 0)
}

// put sends a packet in the buffer at hand, which has room for it.
func (s *sender) put(h *header, payload []byte) {
	h.dstCID, h.length = uint64(s.d.c.CID), uint32(len(payload))
	var b [headerSize]byte
	h.encode(&b)
	_, _ = s.chain.Write(b[:])
	_, _ = s.chain.Write(payload)
	s.q.Push(s.chain, uint32(headerSize+len(payload)))
	s.chain = nil
}

// turn sends what c has to send, but not for too long.
func (s *sender) turn(c *Conn) {
	defer s.q.Flush()
	c.mu.Lock()
	defer c.mu.Unlock()
	for range quantum {
		if s.chain == nil {
			next, ok, err := s.q.Next()
			if err != nil || !ok {
				break // the next Take says so, too
			}
			if s.hold(next); s.chain == nil {
				continue
			}
		}
		if !s.packet(c) {
			return
		}
	}
	c.schedule()
}

// packet sends the next packet of c, if there is one.
func (s *sender) packet(c *Conn) bool {
	h := header{
		typ: typeStream, srcCID: hostCID, srcPort: c.key.host, dstPort: c.key.guest,
		bufAlloc: uint32(c.window), fwdCnt: c.fwd,
	}
	done := due(0)
	var payload []byte
	switch {
	case c.todo&dueRequest != 0:
		h.op, done = opRequest, dueRequest
	case c.todo&dueResponse != 0:
		h.op, done = opResponse, dueResponse
	case c.hasData():
		h.op = opRW
		payload = c.out[:min(uint64(len(c.out)), uint64(c.credit()), s.room-headerSize)]
	case c.todo&dueShutdown != 0:
		h.op, h.flags, done = opShutdown, c.shut, dueShutdown
	case c.todo&dueCreditRequest != 0:
		h.op, done = opCreditRequest, dueCreditRequest
	case c.todo&dueCreditUpdate != 0:
		h.op = opCreditUpdate
	default:
		return false
	}
	s.put(&h, payload)
	c.todo &^= done | dueCreditUpdate // every packet carries the credit
	c.told = c.fwd
	if len(payload) > 0 {
		c.sent += uint32(len(payload))
		if c.out = c.out[len(payload):]; len(c.out) == 0 {
			c.canWrite.Signal()
		} else {
			c.askForCredit()
		}
	}
	return true
}
