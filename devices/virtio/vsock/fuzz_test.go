package vsock

import (
	"bytes"
	"encoding/binary"
	"errors"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/devices/virtio"
	"github.com/huskvm/husk/devices/virtio/queue"
	"github.com/huskvm/husk/devices/virtio/virtiotest"
)

// FuzzPacket parses a packet that is cut in pieces of the given size.
func FuzzPacket(f *testing.F) {
	h := to(opRW, 1, 2)
	h.length = 5
	f.Add(packet(h, []byte("hello")), uint8(0))
	f.Add(packet(h, []byte("hello")), uint8(7))
	f.Add(packet(h, []byte("hell")), uint8(1))
	f.Add(packet(to(opRequest, 1, 2), nil), uint8(43))
	f.Add(packet(header{srcCID: guestCID, dstCID: 9, op: opRST}, nil), uint8(44))
	f.Fuzz(func(t *testing.T, b []byte, size uint8) {
		c := &queue.Chain{}
		for rest := b; len(rest) > 0; {
			n := len(rest)
			if size > 0 {
				n = min(n, int(size))
			}
			c.Out = append(c.Out, rest[:n])
			rest = rest[n:]
		}
		h, err := parse(c, guestCID)
		if err != nil {
			require.True(t, errors.Is(err, errDrop) != errors.Is(err, errRefuse))
		}
		if len(b) < headerSize {
			require.ErrorIs(t, err, errDrop)
			return
		}
		require.Equal(t, b[:headerSize], packet(h, nil), "nothing of the header is lost")
		require.EqualValues(t, len(b)-headerSize, queue.Len(c.Out))
		if err == nil && h.op == opRW {
			require.LessOrEqual(t, uint64(h.length), queue.Len(c.Out))
		}
	})
}

// rig drives a device step by step, without goroutines.
type rig struct {
	t     *testing.T
	d     *Device
	s     *sender
	ring  *virtiotest.Ring
	conns []*Conn // that the host has
}

func newRig(t *testing.T) *rig {
	d, err := New(Config{CID: guestCID, MaxConns: 8})
	require.NoError(t, err)
	mem := virtiotest.NewMemory(1<<32, 1<<20)
	ring := virtiotest.NewRing(mem, 16, queue.Features{})
	q, err := queue.New(ring.State, queue.Features{}, mem, ring.Kick, ring.Interrupt)
	require.NoError(t, err)
	d.Negotiated(virtio.FeatVersion1)
	return &rig{t: t, d: d, ring: ring, s: &sender{d: d, q: q, log: slog.New(slog.DiscardHandler)}}
}

// pump has the device send what is due, and checks it.
func (r *rig) pump() {
	for r.d.work() {
		for r.ring.Room() > 0 {
			r.ring.Add(virtiotest.In(headerSize + 100))
		}
		r.ring.Publish()
		require.NoError(r.t, r.s.round(r.t.Context()))
		r.s.q.Flush()
		for {
			used, err := r.ring.Used()
			require.NoError(r.t, err)
			if used == nil {
				break
			}
			b := r.ring.In(used)[:used.Written]
			r.ring.Free(used)
			require.GreaterOrEqual(r.t, len(b), headerSize)
			var h header
			h.decode((*[headerSize]byte)(b))
			require.EqualValues(r.t, guestCID, h.dstCID)
			require.EqualValues(r.t, len(b)-headerSize, h.length)
			require.True(r.t, h.op >= opRequest && h.op <= opCreditRequest)
			require.True(r.t, h.op == opRW == (h.length > 0))
		}
	}
}

func (r *rig) check() {
	r.d.mu.Lock()
	defer r.d.mu.Unlock()
	require.LessOrEqual(r.t, r.d.held, 8)
	require.LessOrEqual(r.t, len(r.d.conns), r.d.held)
	for k, c := range r.d.conns {
		require.Equal(r.t, k, c.key)
		require.NotEqual(r.t, gone, c.state)
		require.LessOrEqual(r.t, c.in.n, c.window)
		require.LessOrEqual(r.t, len(c.in.chunks)*chunkSize, c.window+2*chunkSize)
	}
}

// host does something on the host's side, that does not wait.
func (r *rig) host(what, n byte) {
	if what%8 == 0 || len(r.conns) == 0 {
		c, err := r.d.add(r.d, key{guest: uint32(n % 4)}, connecting)
		if err == nil {
			c.mu.Lock()
			c.todo |= dueRequest
			c.schedule()
			c.mu.Unlock()
			r.conns = append(r.conns, c)
		}
		return
	}
	c := r.conns[int(n)%len(r.conns)]
	switch what % 8 {
	case 1:
		_ = c.CloseWrite()
	case 2:
		_ = c.CloseRead()
	case 3:
		_ = c.Close()
	case 4:
		c.abort()
	case 5, 6:
		c.mu.Lock()
		if c.sendable() == nil {
			c.out = make([]byte, 50*int(n))
			c.askForCredit()
			c.schedule()
		}
		c.mu.Unlock()
	case 7:
		c.mu.Lock()
		ready := c.in.n > 0 && !c.closed
		c.mu.Unlock()
		if ready {
			_, err := c.Read(make([]byte, 1+100*int(n)))
			require.NoError(r.t, err)
		}
	}
}

// FuzzSequence does what its input says, eight bytes a step: packets from the
// guest, most of them of connections that there are, things on the host's side,
// and buffers for the device.
func FuzzSequence(f *testing.F) {
	step := func(s ...[]byte) []byte { return bytes.Join(s, nil) }
	guest := func(op, port, host, n, flags byte) []byte { return []byte{0, op, port, host, n, flags, 100, 0} }
	host := func(what, n byte) []byte { return []byte{1, what, n, 0, 0, 0, 0, 0} }
	pump := []byte{2, 0, 0, 0, 0, 0, 0, 0}
	f.Add(step(guest(1, 1, 0, 0, 0), pump, guest(5, 1, 0, 200, 0), host(7, 9), guest(4, 1, 0, 0, 3), pump))
	f.Add(step(host(0, 1), pump, guest(2, 1, 128, 0, 0), host(5, 0), pump, guest(6, 1, 128, 0, 0), pump, host(3, 0), pump, guest(3, 1, 128, 0, 0)))
	f.Add(step(host(0, 1), pump, guest(3, 1, 128, 0, 0), host(0, 2), guest(2, 2, 129, 0, 0), host(1, 1), host(2, 1), pump))
	f.Add(step(guest(1, 1, 0, 0, 0), guest(1, 1, 0, 0, 0), guest(1, 2, 0, 0, 0), guest(5, 2, 0, 255, 0), guest(4, 2, 0, 0, 2), host(7, 0), host(3, 0), pump))
	f.Add(step(guest(1, 1, 0, 0, 0), []byte{3, 0, 0, 0, 0, 0, 0, 0}, guest(1, 1, 0, 0, 0), pump))
	log := slog.New(slog.DiscardHandler)
	f.Fuzz(func(t *testing.T, steps []byte) {
		r := newRig(t)
		l, err := r.d.Listen(80)
		require.NoError(t, err)
		steps = steps[:min(len(steps), 8*500)]
		for ; len(steps) >= 8; steps = steps[8:] {
			b := steps[:8]
			switch b[0] % 4 {
			case 0:
				h := to(uint16(b[1]%10), uint32(b[2]%4), 80)
				if b[3] >= 128 {
					h.dstPort = firstPort + uint32(b[3]-128)
				} else if b[3] > 0 {
					h.dstPort += uint32(b[3])
				}
				payload := make([]byte, 300*int(b[4]))
				h.length = uint32(len(payload))
				h.flags = uint32(b[5])
				h.bufAlloc = uint32(b[6]) << (b[7] % 32)
				h.fwdCnt = uint32(b[7]) * 50
				p := packet(h, payload)
				if b[5]&0x80 != 0 { // a bit is wrong
					i := int(binary.LittleEndian.Uint16(b[6:])) % (8 * headerSize)
					p[i/8] ^= 1 << (i % 8)
				}
				r.d.packet(&queue.Chain{Out: [][]byte{p}}, log)
				for accepted := true; accepted; {
					select {
					case c := <-l.(*listener).conns:
						r.conns = append(r.conns, c)
					default:
						accepted = false
					}
				}
			case 1:
				r.host(b[1], b[2])
			case 2:
				r.pump()
			case 3:
				if b[1] == 0 {
					r.d.Negotiated(0)
					r.d.Negotiated(virtio.FeatVersion1)
				}
			}
			r.check()
		}
		r.pump()
		r.d.Negotiated(0)
		for _, c := range r.conns {
			_ = c.Close()
		}
		require.NoError(t, l.Close())
		require.NoError(t, r.d.Close())
		require.Zero(t, r.d.held)
		require.Zero(t, r.d.wide)
		require.Empty(t, r.d.conns)
		require.Nil(t, r.d.ready.first)
	})
}
