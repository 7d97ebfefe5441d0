package vsock

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/huskvm/husk/devices/virtio/queue"
)

// headerSize is the length of struct virtio_vsock_hdr (virtio 1.2 §5.10.6).
const headerSize = 44

// hostCID is the host's context ID, VMADDR_CID_HOST (§5.10.4).
const hostCID = 2

// typeStream is VIRTIO_VSOCK_TYPE_STREAM (§5.10.6.2), the only type there is
// without VIRTIO_VSOCK_F_SEQPACKET.
const typeStream = 1

// The operations (§5.10.6).
const (
	opRequest       = 1 // VIRTIO_VSOCK_OP_REQUEST
	opResponse      = 2 // VIRTIO_VSOCK_OP_RESPONSE
	opRST           = 3 // VIRTIO_VSOCK_OP_RST
	opShutdown      = 4 // VIRTIO_VSOCK_OP_SHUTDOWN
	opRW            = 5 // VIRTIO_VSOCK_OP_RW
	opCreditUpdate  = 6 // VIRTIO_VSOCK_OP_CREDIT_UPDATE
	opCreditRequest = 7 // VIRTIO_VSOCK_OP_CREDIT_REQUEST
)

// The flags of opShutdown (§5.10.6.5): what its sender does no more.
const (
	shutReceive = 1 // VIRTIO_VSOCK_SHUTDOWN_F_RECEIVE
	shutSend    = 2 // VIRTIO_VSOCK_SHUTDOWN_F_SEND
	shutBoth    = shutReceive | shutSend
)

// A header is that of a packet (§5.10.6). length is the payload's.
type header struct {
	srcCID, dstCID   uint64
	srcPort, dstPort uint32
	length           uint32
	typ, op          uint16
	flags            uint32
	bufAlloc, fwdCnt uint32
}

func (h *header) decode(b *[headerSize]byte) {
	le := binary.LittleEndian
	*h = header{
		srcCID: le.Uint64(b[0:]), dstCID: le.Uint64(b[8:]),
		srcPort: le.Uint32(b[16:]), dstPort: le.Uint32(b[20:]),
		length: le.Uint32(b[24:]),
		typ:    le.Uint16(b[28:]), op: le.Uint16(b[30:]),
		flags:    le.Uint32(b[32:]),
		bufAlloc: le.Uint32(b[36:]), fwdCnt: le.Uint32(b[40:]),
	}
}

func (h *header) encode(b *[headerSize]byte) {
	le := binary.LittleEndian
	le.PutUint64(b[0:], h.srcCID)
	le.PutUint64(b[8:], h.dstCID)
	le.PutUint32(b[16:], h.srcPort)
	le.PutUint32(b[20:], h.dstPort)
	le.PutUint32(b[24:], h.length)
	le.PutUint16(b[28:], h.typ)
	le.PutUint16(b[30:], h.op)
	le.PutUint32(b[32:], h.flags)
	le.PutUint32(b[36:], h.bufAlloc)
	le.PutUint32(b[40:], h.fwdCnt)
}

var (
	// errDrop is a packet that cannot be answered.
	errDrop = errors.New("dropped")
	// errRefuse is a packet whose sender is told RST.
	errRefuse = errors.New("refused")
)

// parse takes the header off the front of a packet that the guest with the
// context ID cid sent, and leaves the payload in c. The header is copied once and
// the copy is checked; when the error is errRefuse, it is complete.
func parse(c *queue.Chain, cid uint64) (h header, err error) {
	var b [headerSize]byte
	if n, _ := c.Read(b[:]); n < headerSize {
		return h, fmt.Errorf("%w: %d bytes, a header has %d", errDrop, n, headerSize)
	}
	h.decode(&b)
	switch {
	case h.srcCID != cid:
		return h, fmt.Errorf("%w: it comes from CID %d, the guest's is %d", errDrop, h.srcCID, cid)
	case h.dstCID != hostCID:
		return h, fmt.Errorf("%w: it goes to CID %d, only the host (2) can be reached", errRefuse, h.dstCID)
	case h.typ != typeStream:
		return h, fmt.Errorf("%w: unknown type %d", errRefuse, h.typ)
	case h.op < opRequest || h.op > opCreditRequest:
		return h, fmt.Errorf("%w: unknown operation %d", errRefuse, h.op)
	case h.op == opRW && uint64(h.length) > queue.Len(c.Out):
		return h, fmt.Errorf("%w: a payload of %d bytes is announced, %d are there", errRefuse, h.length, queue.Len(c.Out))
	}
	return h, nil
}
