package user

import (
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/huskvm/husk/devices/ethernet"
)

// depth is how many frames wait for the guest, at most.
const depth = 4096

// maxIP is the largest IP packet.
const maxIP = 1<<16 - 1

// An endpoint is the stack's side of the wire. It adds to channel's what depends on
// the guest: whether it takes large segments, and whether the checksum of the frame
// that is being delivered can be taken for right.
type endpoint struct {
	*channel.Endpoint
	offloads atomic.Uint32 // ethernet.Offloads that the guest takes
	// trusted is of the frame that Send delivers. The stack asks for it in
	// the call that delivers, and only there.
	trusted atomic.Bool
}

func newEndpoint(mtu int) *endpoint {
	// ethernet.Endpoint takes its header's size off the MTU.
	return &endpoint{Endpoint: channel.New(depth, uint32(mtu+header.EthernetMinimumSize), tcpip.LinkAddress(gatewayMAC))}
}

func (e *endpoint) Capabilities() stack.LinkEndpointCapabilities {
	if e.trusted.Load() {
		return stack.CapabilityRXChecksumOffload
	}
	return 0
}

func (e *endpoint) takes(o ethernet.Offloads) bool {
	return ethernet.Offloads(e.offloads.Load())&o == o
}

// SupportedGSO says whether a connection that is made now may send large segments.
// It may outlive the answer: queue.Receive cuts them if it does.
func (e *endpoint) SupportedGSO() stack.SupportedGSO {
	if e.takes(ethernet.Checksum | ethernet.TSO4) {
		return stack.HostGSOSupported
	}
	return stack.GSONotSupported
}

func (e *endpoint) GSOMaxSize() uint32 { return maxIP }

// header makes the header for a packet of the stack's. whole is false if the guest
// does not take the packet as it is.
func (e *endpoint) header(pkt *stack.PacketBuffer) (h ethernet.Header, whole bool) {
	gso := pkt.GSOOptions
	if gso.Type == stack.GSONone || !gso.NeedsCsum {
		return h, true
	}
	if !e.takes(ethernet.Checksum) {
		return h, false
	}
	h.Flags = ethernet.HeaderNeedsChecksum
	h.ChecksumStart = header.EthernetMinimumSize + gso.L3HdrLen
	h.ChecksumOffset = gso.CsumOffset
	if pkt.Data().Size() > int(gso.MSS) {
		if !e.takes(ethernet.TSO4) {
			return h, false
		}
		h.Segment = ethernet.SegmentTCP4
		h.SegmentSize = gso.MSS
		h.HeaderBytes = uint16(pkt.HeaderSize())
	}
	return h, true
}
