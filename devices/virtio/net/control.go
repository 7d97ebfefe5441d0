package net

import (
	"context"
	"encoding/binary"

	"github.com/huskvm/husk/devices/virtio"
	"github.com/huskvm/husk/devices/virtio/queue"
)

// The classes of commands, and the commands (virtio 1.2 §5.1.6.5).
const (
	classRx       = 0 // VIRTIO_NET_CTRL_RX
	classMAC      = 1 // VIRTIO_NET_CTRL_MAC
	classVLAN     = 2 // VIRTIO_NET_CTRL_VLAN
	classMQ       = 4 // VIRTIO_NET_CTRL_MQ
	classOffloads = 5 // VIRTIO_NET_CTRL_GUEST_OFFLOADS

	rxAllMulti = 1 // VIRTIO_NET_CTRL_RX_ALLMULTI
	rxNoBcast  = 5 // VIRTIO_NET_CTRL_RX_NOBCAST, the last of RX_EXTRA's

	macTableSet = 0 // VIRTIO_NET_CTRL_MAC_TABLE_SET
	macAddrSet  = 1 // VIRTIO_NET_CTRL_MAC_ADDR_SET

	vlanDel = 1 // VIRTIO_NET_CTRL_VLAN_DEL

	mqPairsSet  = 0 // VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET
	offloadsSet = 0 // VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET

	ackOK  = 0 // VIRTIO_NET_OK
	ackErr = 1 // VIRTIO_NET_ERR
)

// maxCommand is the longest command that is read, in bytes: a table of ten
// thousand addresses.
const maxCommand = 64 << 10

// control serves controlq.
func (d *Device) control(ctx context.Context, s *virtio.Session, q *queue.Queue, change chan<- pairsChange) error {
	setPairs := func(n int) error {
		c := pairsChange{n: n, done: make(chan error, 1)}
		select {
		case change <- c:
		case <-ctx.Done():
			return ctx.Err()
		}
		select {
		case err := <-c.done:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for {
		c, err := q.Take(ctx)
		if err != nil {
			return err
		}
		ack := byte(ackErr)
		if n := queue.Len(c.Out); n <= maxCommand {
			p := make([]byte, n)
			n, _ := c.Read(p)
			if d.command(p[:n], s.Features, setPairs) {
				ack = ackOK
			} else {
				s.Log.Warn("virtio-net: a command of the guest's is refused", "command", p[:min(n, 16)])
			}
		}
		n, _ := c.Write([]byte{ack})
		q.Push(c, uint32(n))
	}
}

// command does what a command says, and tells whether it could. p is its class, its
// number, and its data.
func (d *Device) command(p []byte, features uint64, setPairs func(int) error) bool {
	if len(p) < 2 {
		return false
	}
	class, command, data := p[0], p[1], p[2:]
	has := func(feature uint64) bool { return features&feature != 0 }
	switch class {
	case classRx:
		known := command <= rxAllMulti && has(featCtrlRx) || command <= rxNoBcast && has(featCtrlRxExtra)
		return known && len(data) == 1 && data[0] <= 1
	case classMAC:
		switch command {
		case macTableSet:
			return has(featCtrlRx) && isTable(data)
		case macAddrSet:
			return has(featCtrlMACAddr) && d.setMAC(data)
		}
	case classVLAN:
		return command <= vlanDel && has(featCtrlVLAN) && len(data) == 2 && binary.LittleEndian.Uint16(data) < 4096
	case classMQ:
		if command == mqPairsSet && has(featMQ) && len(data) == 2 {
			n := int(binary.LittleEndian.Uint16(data))
			return n >= 1 && n <= d.info.Queues && setPairs(n) == nil
		}
	case classOffloads:
		if command == offloadsSet && has(featCtrlGuestOffloads) && len(data) == 8 {
			return d.setOffloads(binary.LittleEndian.Uint64(data), features)
		}
	}
	return false
}

// isTable tells whether data is two tables of addresses, unicast and multicast
// (§5.1.6.5.2).
func isTable(data []byte) bool {
	for range 2 {
		if len(data) < 4 {
			return false
		}
		n := uint64(binary.LittleEndian.Uint32(data)) * 6
		if data = data[4:]; n > uint64(len(data)) {
			return false
		}
		data = data[n:]
	}
	return len(data) == 0
}

func (d *Device) setMAC(mac []byte) bool {
	if len(mac) != 6 || !unicast(mac) {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	copy(d.macNow[:], mac)
	return true
}

// setOffloads has the driver take the offloads whose features are in bits, of
// those it negotiated.
func (d *Device) setOffloads(bits, negotiated uint64) bool {
	if bits&^(negotiated&guestOffloads) != 0 {
		return false
	}
	o := toGuest(bits)
	if d.link.SetOffloads(o) != nil {
		return false
	}
	d.takes.Store(uint32(o))
	return true
}
