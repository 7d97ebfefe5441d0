package user

import (
	"encoding/binary"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/huskvm/husk/devices/ethernet"
)

// cut makes frames with headers, of at most the packet's MSS each and with all
// checksums, from a TCP segment of a connection that began when the guest took
// large ones, and does not any more.
func cut(pkt *stack.PacketBuffer) [][]byte {
	whole := make([]byte, 0, pkt.Size())
	for _, s := range pkt.AsSlices() {
		whole = append(whole, s...)
	}
	l3 := header.EthernetMinimumSize
	l4 := l3 + int(pkt.GSOOptions.L3HdrLen)
	headers := l4 + int(header.TCP(whole[l4:]).DataOffset())
	payload := whole[headers:]
	mss := max(int(pkt.GSOOptions.MSS), 1)
	var frames [][]byte
	for off := 0; off == 0 || off < len(payload); off += mss {
		part := payload[off:min(off+mss, len(payload))]
		p := make([]byte, ethernet.HeaderSize, ethernet.HeaderSize+headers+len(part))
		ethernet.Header{}.Put(p)
		p = append(append(p, whole[:headers]...), part...)
		frame := p[ethernet.HeaderSize:]

		ip := header.IPv4(frame[l3:])
		ip.SetTotalLength(uint16(len(ip)))
		ip.SetID(ip.ID() + uint16(off/mss))
		ip.SetChecksum(0)
		ip.SetChecksum(^ip.CalculateChecksum())

		tcp := header.TCP(frame[l4:])
		binary.BigEndian.PutUint32(tcp[header.TCPSeqNumOffset:], tcp.SequenceNumber()+uint32(off))
		flags := tcp.Flags()
		if off+mss < len(payload) {
			flags &^= header.TCPFlagFin | header.TCPFlagPsh
		}
		if off > 0 {
			flags &^= header.TCPFlagCwr
		}
		tcp[header.TCPFlagsOffset] = byte(flags)
		pseudo := header.PseudoHeaderChecksum(header.TCPProtocolNumber, ip.SourceAddress(), ip.DestinationAddress(), uint16(len(tcp)))
		tcp.SetChecksum(0)
		tcp.SetChecksum(^checksum.Checksum(tcp, pseudo))
		frames = append(frames, p)
	}
	return frames
}
