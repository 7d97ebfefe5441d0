package user

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// idlePing is how long replies are waited for.
const idlePing = 10 * time.Second

// A pingKey is what tells one ping of the guest's from another.
type pingKey struct {
	to netip.Addr
	id uint16
}

// A pingTable holds the ping sockets that are open.
type pingTable struct {
	mu    sync.Mutex
	files map[pingKey]*os.File
}

// acceptPing sends an echo request of the guest's on by one of Linux's ping sockets
// (icmp(7)), which need no privilege where net.ipv4.ping_group_range allows them.
// It runs within Send. Requests to the gateway and the name server do not come here:
// the stack answers them.
func (l *Link) acceptPing(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
	h := header.ICMPv4(pkt.TransportHeader().Slice())
	if len(h) < header.ICMPv4MinimumSize || h.Type() != header.ICMPv4Echo || h.Code() != 0 {
		return false
	}
	guest, dst := addr(id.RemoteAddress), addr(id.LocalAddress)
	if dst == l.addrs.gateway || dst == l.addrs.dns {
		return false
	}
	at, ok := l.target(dst)
	if !ok || checksum.Checksum(h, pkt.Data().Checksum()) != 0xffff {
		return true // lost; the stack is not to answer for others
	}
	message := append([]byte(h), pkt.Data().AsRange().ToSlice()...)
	key := pingKey{dst, h.Ident()}
	f, err := l.ping(key, at, guest)
	if err != nil {
		if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
			l.pingRefused.Do(func() {
				l.log.Warn("user network: the guest's pings get no answer: the host does not allow ping sockets; "+
					"sysctl -w net.ipv4.ping_group_range='0 2147483647' does", "error", err)
			})
		} else {
			l.log.Debug("user network: ping", "to", dst, "error", err)
		}
		return true
	}
	f.Write(message) //nolint:errcheck // lost, as pings are
	return true
}

// ping returns the socket for a ping, or makes it.
func (l *Link) ping(key pingKey, at, guest netip.Addr) (*os.File, error) {
	t := &l.pingFlows
	t.mu.Lock()
	defer t.mu.Unlock()
	if f := t.files[key]; f != nil {
		return f, nil
	}
	if !l.pings.take() {
		return nil, fmt.Errorf("more than %d pings at once", maxPings)
	}
	f, err := pingSocket(at)
	if err != nil {
		l.pings.release()
		return nil, err
	}
	ran := l.tasks.run(func() {
		defer l.pings.release()
		l.pongs(f, key, guest)
	})
	if !ran {
		l.pings.release()
		f.Close() //nolint:errcheck // unused
		return nil, os.ErrClosed
	}
	if t.files == nil {
		t.files = map[pingKey]*os.File{}
	}
	t.files[key] = f
	return f, nil
}

func pingSocket(at netip.Addr) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_ICMP)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: at.As4()}); err != nil {
		unix.Close(fd) //nolint:errcheck // unused
		return nil, os.NewSyscallError("connect", err)
	}
	return os.NewFile(uintptr(fd), "ping"), nil
}

// pongs gives replies to the guest until none has come for a while.
func (l *Link) pongs(f *os.File, key pingKey, guest netip.Addr) {
	defer context.AfterFunc(l.ctx, func() { f.Close() })() //nolint:errcheck // nothing is buffered
	for {
		f.SetReadDeadline(time.Now().Add(idlePing)) //nolint:errcheck // the read tells
		err := fromHost(f, false, func(p []byte) error {
			f.SetReadDeadline(time.Now().Add(idlePing)) //nolint:errcheck // the read tells
			if h := header.ICMPv4(p); len(h) >= header.ICMPv4MinimumSize && h.Type() == header.ICMPv4EchoReply {
				// The kernel has put an identifier of its own.
				binary.BigEndian.PutUint16(p[4:], key.id)
				l.pong(p, key.to, guest)
			}
			return nil
		})
		if errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.EHOSTUNREACH) || errors.Is(err, unix.ENETUNREACH) {
			continue // said of one ping; the guest may try further
		}
		break
	}
	l.pingFlows.mu.Lock()
	delete(l.pingFlows.files, key)
	l.pingFlows.mu.Unlock()
	f.Close() //nolint:errcheck // nothing is buffered
}

// pong sends an echo reply to the guest as if from that address.
func (l *Link) pong(message []byte, from, guest netip.Addr) {
	h := header.ICMPv4(message)
	h.SetChecksum(0)
	h.SetChecksum(^checksum.Checksum(message, 0))
	r, err := l.stack.FindRoute(nic, address(from), address(guest), ipv4.ProtocolNumber, false)
	if err != nil {
		return
	}
	defer r.Release()
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{
		ReserveHeaderBytes: int(r.MaxHeaderLength()),
		Payload:            buffer.MakeWithData(message),
	})
	defer pkt.DecRef()
	pkt.TransportProtocolNumber = header.ICMPv4ProtocolNumber
	if _, ok := pkt.TransportHeader().Consume(header.ICMPv4MinimumSize); !ok {
		return
	}
	r.WritePacket(stack.NetworkHeaderParams{Protocol: header.ICMPv4ProtocolNumber, TTL: 64}, pkt) //nolint:errcheck // lost, as pings are
}
