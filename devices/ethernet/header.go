package ethernet

import "encoding/binary"

// HeaderSize is the size of virtio_net_hdr_v1 in bytes (virtio 1.2 §5.1.6). It is
// so for every modern device, whatever was negotiated, and for Linux's tap after
// TUNSETVNETHDRSZ.
const HeaderSize = 12

// HeaderBuffers is the offset of num_buffers in the header: 16 bits, little-endian.
const HeaderBuffers = 10

// Flags of a Header (virtio 1.2 §5.1.6).
const (
	HeaderNeedsChecksum = 1 // VIRTIO_NET_HDR_F_NEEDS_CSUM
	HeaderDataValid     = 2 // VIRTIO_NET_HDR_F_DATA_VALID
)

// Kinds of segmentation in a Header (virtio 1.2 §5.1.6).
const (
	SegmentNone = 0    // VIRTIO_NET_HDR_GSO_NONE
	SegmentTCP4 = 1    // VIRTIO_NET_HDR_GSO_TCPV4
	SegmentTCP6 = 4    // VIRTIO_NET_HDR_GSO_TCPV6
	SegmentECN  = 0x80 // VIRTIO_NET_HDR_GSO_ECN, with one of the others
)

// A Header is a virtio_net_hdr_v1 without its number of buffers. Sizes and
// offsets are in bytes, from the frame's Ethernet header on.
type Header struct {
	Flags       byte
	Segment     byte   // gso_type
	HeaderBytes uint16 // hdr_len, a hint: link, network and transport header
	SegmentSize uint16 // gso_size: payload of each segment to be made
	// The checksum over everything from Start on goes to Start+Offset.
	ChecksumStart, ChecksumOffset uint16
}

// ParseHeader reads the header in p, which has at least HeaderSize bytes.
func ParseHeader(p []byte) Header {
	_ = p[HeaderSize-1]
	return Header{
		Flags:          p[0],
		Segment:        p[1],
		HeaderBytes:    binary.LittleEndian.Uint16(p[2:]),
		SegmentSize:    binary.LittleEndian.Uint16(p[4:]),
		ChecksumStart:  binary.LittleEndian.Uint16(p[6:]),
		ChecksumOffset: binary.LittleEndian.Uint16(p[8:]),
	}
}

// Put writes h to p, which has at least HeaderSize bytes, with one buffer.
func (h Header) Put(p []byte) {
	p[0], p[1] = h.Flags, h.Segment
	binary.LittleEndian.PutUint16(p[2:], h.HeaderBytes)
	binary.LittleEndian.PutUint16(p[4:], h.SegmentSize)
	binary.LittleEndian.PutUint16(p[6:], h.ChecksumStart)
	binary.LittleEndian.PutUint16(p[8:], h.ChecksumOffset)
	binary.LittleEndian.PutUint16(p[HeaderBuffers:], 1)
}
