package user

import (
	"context"
	"encoding/binary"
	"fmt"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/huskvm/husk/devices/ethernet"
)

// A queue carries frames between the guest and the stack: one copy each way.
type queue struct {
	link    *Link
	arrived chan struct{}
	// pending is what is left of a large segment that the guest does not take.
	pending [][]byte
	head    [ethernet.HeaderSize]byte
}

func (q *queue) init(l *Link) {
	q.link = l
	q.arrived = make(chan struct{}, 1)
	l.end.AddNotify(q)
}

// WriteNotify implements channel.Notification.
func (q *queue) WriteNotify() {
	select {
	case q.arrived <- struct{}{}:
	default:
	}
}

// Send implements ethernet.Queue.
func (q *queue) Send(frame [][]byte) error {
	if q.link.ctx.Err() != nil {
		return fmt.Errorf("user network: %w", ethernet.ErrClosed)
	}
	size := 0
	for _, s := range frame {
		if size += len(s); size > ethernet.MaxFrame {
			return fmt.Errorf("user network: %w: it has more than %d bytes", ethernet.ErrFrame, ethernet.MaxFrame)
		}
	}
	if size < ethernet.HeaderSize+header.EthernetMinimumSize {
		return fmt.Errorf("user network: %w: it has %d bytes", ethernet.ErrFrame, size)
	}
	view := buffer.NewViewSize(size)
	p := view.AsSlice()
	for _, s := range frame {
		p = p[copy(p, s):]
	}
	h := ethernet.ParseHeader(view.AsSlice())
	view.TrimFront(ethernet.HeaderSize)
	trusted, err := q.link.check(h, view.AsSlice())
	if err != nil {
		view.Release()
		return fmt.Errorf("user network: %w: %w", ethernet.ErrFrame, err)
	}
	if !q.link.concerns(view.AsSlice()) {
		view.Release()
		return nil
	}
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithView(view)})
	defer pkt.DecRef()
	q.link.end.trusted.Store(trusted)
	q.link.end.InjectInbound(0, pkt)
	return nil
}

// check compares a header with its frame, and tells whether the frame's checksums
// need not be checked: they are still to be made, and there was no wire to damage
// the bytes.
func (l *Link) check(h ethernet.Header, frame []byte) (trusted bool, err error) {
	large := false
	switch h.Segment &^ ethernet.SegmentECN {
	case ethernet.SegmentNone:
	case ethernet.SegmentTCP4:
		if large = true; h.SegmentSize == 0 {
			return false, fmt.Errorf("a large segment with gso_size 0")
		}
		if h.Flags&ethernet.HeaderNeedsChecksum == 0 {
			return false, fmt.Errorf("a large segment without VIRTIO_NET_HDR_F_NEEDS_CSUM")
		}
	default:
		return false, fmt.Errorf("gso_type %#x was not offered", h.Segment)
	}
	if most := l.cfg.MTU + header.EthernetMinimumSize; !large && len(frame) > most {
		return false, fmt.Errorf("%d bytes; with the MTU of %d it can have %d", len(frame), l.cfg.MTU, most)
	}
	if h.Flags&ethernet.HeaderNeedsChecksum != 0 {
		if end := int(h.ChecksumStart) + int(h.ChecksumOffset) + 2; end > len(frame) {
			return false, fmt.Errorf("checksum at %d of %d bytes", end-2, len(frame))
		}
		return true, nil
	}
	return false, nil
}

// concerns tells whether the stack should see a frame. It does not see frames for
// others, ARP for addresses that are not its own (it stands for all there are, and
// would take the guest's own from it), and IPv4 from addresses that the network
// does not have.
func (l *Link) concerns(frame []byte) bool {
	eth, packet := header.Ethernet(frame), frame[header.EthernetMinimumSize:]
	if dst := eth.DestinationAddress(); dst != tcpip.LinkAddress(gatewayMAC) && frame[0]&1 == 0 {
		return false
	}
	switch eth.Type() {
	case header.ARPProtocolNumber:
		if len(packet) < header.ARPSize || !header.ARP(packet).IsValid() {
			return false
		}
		target := addr(tcpip.AddrFromSlice(header.ARP(packet).ProtocolAddressTarget()))
		return target == l.addrs.gateway || target == l.addrs.dns
	case header.IPv4ProtocolNumber:
		if len(packet) < header.IPv4MinimumSize {
			return false
		}
		from := addr(header.IPv4(packet).SourceAddress())
		if from.IsUnspecified() {
			return isDHCP(packet)
		}
		return l.cfg.Net.Contains(from) && from != l.addrs.gateway && from != l.addrs.dns
	}
	return false
}

// Receive implements ethernet.Queue.
func (q *queue) Receive(frame [][]byte) (int, error) {
	if q.link.ctx.Err() != nil {
		return 0, fmt.Errorf("user network: %w", ethernet.ErrClosed)
	}
	if len(q.pending) > 0 {
		p := q.pending[0]
		q.pending = q.pending[1:]
		return scatter(frame, p)
	}
	pkt := q.link.end.Read()
	if pkt == nil {
		return 0, nil
	}
	defer pkt.DecRef()
	h, whole := q.link.end.header(pkt)
	if !whole {
		q.pending = cut(pkt)
		p := q.pending[0]
		q.pending = q.pending[1:]
		return scatter(frame, p)
	}
	h.Put(q.head[:])
	return scatter(frame, append([][]byte{q.head[:]}, pkt.AsSlices()...)...)
}

// scatter copies parts to segments, one after the other.
func scatter(segments [][]byte, parts ...[]byte) (int, error) {
	n, room := 0, 0
	for _, p := range parts {
		n += len(p)
	}
	for _, s := range segments {
		room += len(s)
	}
	if n > room {
		return 0, fmt.Errorf("user network: %w: %d bytes, room for %d", ethernet.ErrTooLong, n, room)
	}
	i, off := 0, 0
	for _, p := range parts {
		for len(p) > 0 {
			c := copy(segments[i][off:], p)
			p = p[c:]
			if off += c; off == len(segments[i]) {
				i, off = i+1, 0
			}
		}
	}
	return n, nil
}

// Wait implements ethernet.Queue.
func (q *queue) Wait(ctx context.Context) error {
	for {
		switch {
		case q.link.ctx.Err() != nil:
			return fmt.Errorf("user network: %w", ethernet.ErrClosed)
		case ctx.Err() != nil:
			return ctx.Err()
		case len(q.pending) > 0 || q.link.end.NumQueued() > 0:
			return nil
		}
		select {
		case <-q.arrived:
		case <-ctx.Done():
		case <-q.link.ctx.Done():
		}
	}
}

// isDHCP tells whether an IPv4 packet is for a DHCP server.
func isDHCP(packet []byte) bool {
	ip := header.IPv4(packet)
	n := int(ip.HeaderLength())
	return ip.Protocol() == uint8(header.UDPProtocolNumber) && len(packet) >= n+header.UDPMinimumSize &&
		binary.BigEndian.Uint16(packet[n+2:]) == dhcpServerPort
}
