package vhost_test

import (
	"bytes"
	"encoding/binary"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/devices/ethernet"
	"github.com/huskvm/husk/devices/eventfd"
	"github.com/huskvm/husk/devices/netdev/tap"
	"github.com/huskvm/husk/devices/virtio"
	virtionet "github.com/huskvm/husk/devices/virtio/net"
	"github.com/huskvm/husk/devices/virtio/queue"
	"github.com/huskvm/husk/devices/virtio/vhost"
	"github.com/huskvm/husk/devices/virtio/virtiotest"
)

// What the driver negotiates: MRG_RXBUF, checksums and segmentation both ways, a
// control queue and several pairs (virtio 1.2 §5.1.3).
const driverFeatures = virtio.FeatIndirectDesc | 1<<15 | 1<<0 | 1<<11 | 1<<12 | 1<<13 | 1<<1 | 1<<7 | 1<<8 | 1<<9 | 1<<16 | 1<<17 | 1<<22 | 1<<2

const (
	ramBase = 1 << 32
	ramSize = 16 << 20
)

// A card is a real one: on a tap of the host's, served by the host's kernel, with a
// driver that the test plays.
type card struct {
	*virtiotest.Driver
	t    *testing.T
	link *tap.Link
	host int // a packet socket at the other end
}

func newCard(t *testing.T, pairs int) *card {
	t.Helper()
	mem, before := virtiotest.NewMemory(ramBase, ramSize), kernelThreads(t)
	kernel, err := vhost.Open(vhost.Path, pairs, []vhost.Region{{
		GPA: ramBase, Size: ramSize, HVA: uintptr(unsafe.Pointer(unsafe.SliceData(mem.At(ramBase, ramSize)))),
	}})
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() {
		require.NoError(t, kernel.Close())
		require.Equal(t, before, kernelThreads(t), "the kernel's threads end")
	})
	require.Equal(t, before+pairs, kernelThreads(t))
	link, err := tap.Open("huskvhost%d", pairs, 0)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { require.NoError(t, link.Close()) })
	os.WriteFile("/proc/sys/net/ipv6/conf/"+link.Name()+"/disable_ipv6", []byte("1"), 0) //nolint:errcheck // a kernel without IPv6
	c := &card{t: t, link: link}
	c.host = up(t, link.Name())
	d, err := virtionet.New(link, []byte{2, 0, 0, 0, 0, 1}, kernel)
	require.NoError(t, err)
	c.Driver = virtiotest.NewDriverBy(t, mem, d, slog.New(slog.NewTextHandler(t.Output(), nil)), func(s *virtiotest.Signal) queue.Kick {
		e, err := eventfd.New()
		require.NoError(t, err)
		end := make(chan struct{})
		var relay sync.WaitGroup
		relay.Go(func() { // what KVM does for a doorbell
			for {
				select {
				case <-s.C():
					e.Signal()
				case <-end:
					return
				}
			}
		})
		t.Cleanup(func() { close(end); relay.Wait(); require.NoError(t, e.Close()) })
		return e
	})
	return c
}

// kernelThreads is how many threads of vhost's there are: kernel threads before Linux
// 6.4, and since then threads of this process.
func kernelThreads(t *testing.T) (n int) {
	for _, dir := range []string{"/proc", "/proc/self/task"} {
		all, err := os.ReadDir(dir)
		require.NoError(t, err)
		for _, one := range all {
			b, _ := os.ReadFile(dir + "/" + one.Name() + "/comm")
			if strings.HasPrefix(string(b), "vhost-") {
				n++
			}
		}
	}
	return n
}

// up raises an interface, and returns a packet socket on it for one EtherType.
func up(t *testing.T, name string) int {
	t.Helper()
	i, err := net.InterfaceByName(name)
	require.NoError(t, err)
	const kind = 0xb588 // 0x88b5, for experiments (IEEE 802 §9.2.2), in network order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, kind)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, unix.Close(fd)) })
	raise(t, name, unix.IFF_UP)
	require.NoError(t, unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: kind, Ifindex: i.Index}))
	require.NoError(t, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 30}))
	return fd
}

// raise sets an interface's flags.
func raise(t *testing.T, name string, flags uint16) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	defer unix.Close(fd) //nolint:errcheck // a test
	ifr, err := unix.NewIfreq(name)
	require.NoError(t, err)
	ifr.SetUint16(flags)
	require.NoError(t, unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr))
}

// frame is an Ethernet frame of n bytes.
func frame(n int, seed byte) []byte {
	f := make([]byte, n)
	copy(f, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0x88, 0xb5})
	for i := 14; i < n; i++ {
		f[i] = byte(i)*7 + seed
	}
	return f
}

// sends has the driver send a frame by a transmitq, and the host get it.
func (c *card) sends(ring int, f []byte) {
	c.t.Helper()
	_, err := c.Rings[ring].Do(c.Context(), virtiotest.Out(make([]byte, ethernet.HeaderSize)), virtiotest.Out(f))
	require.NoError(c.t, err)
	got := make([]byte, 2000)
	n, err := unix.Read(c.host, got)
	require.NoError(c.t, err)
	require.True(c.t, bytes.Equal(f, got[:n]))
}

// receives has the host send a frame, and the driver get it by a receiveq, in buffers
// that are smaller than it.
func (c *card) receives(ring int, f []byte) {
	c.t.Helper()
	for c.Rings[ring].Room() > 200 { // of 256
		c.Rings[ring].Add(virtiotest.In(400))
	}
	c.Rings[ring].Publish()
	_, err := unix.Write(c.host, f)
	require.NoError(c.t, err)
	var got []byte
	for want := 1; want > 0; want-- {
		q, err := c.Rings[ring].Await(c.Context())
		require.NoError(c.t, err)
		if got == nil {
			want = int(binary.LittleEndian.Uint16(c.Rings[ring].In(q)[ethernet.HeaderBuffers:]))
		}
		got = append(got, c.Rings[ring].In(q)[:q.Written]...)
		c.Rings[ring].Free(q)
	}
	require.True(c.t, bytes.Equal(f, got[ethernet.HeaderSize:]), "%d bytes, got %d", len(f), len(got))
}

func (c *card) works(seed byte) {
	c.t.Helper()
	c.sends(1, frame(1000, seed))
	c.receives(0, frame(1200, seed))
	c.sends(1, frame(60, seed))
	c.receives(0, frame(60, seed))
}

// TestTheKernelServesACard through pauses, resets of the device and of one queue, and
// changes of the number of pairs.
func TestTheKernelServesACard(t *testing.T) {
	for _, features := range []uint64{driverFeatures, driverFeatures | virtio.FeatEventIdx, driverFeatures &^ virtio.FeatIndirectDesc} {
		c := newCard(t, 2)
		for i := range 3 {
			c.Start(features | virtio.FeatRingReset)
			for j := range 100 {
				c.works(byte(i + j))
			}
			require.NoError(t, c.State.Pause(c.Context()))
			c.Rings[1].Add(virtiotest.Out(make([]byte, ethernet.HeaderSize)), virtiotest.Out(frame(100, 1)))
			c.Rings[1].Publish()
			time.Sleep(10 * time.Millisecond)
			q, err := c.Rings[1].Used()
			require.NoError(t, err)
			require.Nil(t, q, "nothing moves in a pause")
			c.State.Resume()
			q, err = c.Rings[1].Await(c.Context())
			require.NoError(t, err)
			require.NotNil(t, q, "and then it goes on")
			_, err = unix.Read(c.host, make([]byte, 200))
			require.NoError(t, err)
			c.works(77)

			for _, pairs := range []byte{2, 1, 2, 1} {
				got, err := c.Rings[4].Do(c.Context(), virtiotest.Out([]byte{4, 0}), virtiotest.Out([]byte{pairs, 0}), virtiotest.In(1))
				require.NoError(t, err)
				require.Zero(t, got[0])
				c.sends(3, frame(100, pairs))
			}
			c.works(78)
			c.State.SetQueueSelect(1)
			c.State.ResetQueue()
			c.EnableQueue(1, features)
			c.works(79)
		}
	}
}

// TestARingThatTheKernelCannotRead ends in a reset, as any.
func TestARingThatTheKernelCannotRead(t *testing.T) {
	for name, d := range map[string]virtiotest.Descriptor{
		"outside RAM": {Addr: ramBase + ramSize, Len: 100},
		"a loop":      {Addr: ramBase, Len: 1, Flags: virtiotest.FlagNext},
		"to write":    {Addr: ramBase, Len: 100, Flags: virtiotest.FlagWrite},
		"no table":    {Addr: 0, Len: 16, Flags: virtiotest.FlagIndirect},
	} {
		c := newCard(t, 1)
		c.Start(driverFeatures &^ (1 << 22))
		c.Rings[1].SetDescriptor(0, d)
		c.Rings[1].Offer(0)
		c.Rings[1].Publish()
		select {
		case <-c.ConfigInterrupt.C():
		case <-time.After(time.Minute):
			t.Fatal(name, ": nobody noticed")
		}
		require.EqualValues(t, 15|virtio.StatusNeedsReset, c.State.Status(), name)
		c.Start(driverFeatures &^ (1 << 22))
		c.works(1)
	}
}

// TestTheInterfaceGoes while the kernel works there.
func TestTheInterfaceGoes(t *testing.T) {
	c := newCard(t, 1)
	c.Start(driverFeatures &^ (1 << 22))
	c.works(1)
	for range 3 { // down is not gone
		raise(t, c.link.Name(), 0)
		_, err := c.Rings[1].Do(c.Context(), virtiotest.Out(make([]byte, ethernet.HeaderSize)), virtiotest.Out(frame(60, 1)))
		require.NoError(t, err)
		raise(t, c.link.Name(), unix.IFF_UP)
	}
	require.EqualValues(t, 15, c.State.Status())
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	require.NoError(t, err)
	defer unix.Close(fd) //nolint:errcheck // a test
	i, err := net.InterfaceByName(c.link.Name())
	require.NoError(t, err)
	m := unix.IfInfomsg{Index: int32(i.Index)}
	h := unix.NlMsghdr{Len: unix.SizeofNlMsghdr + unix.SizeofIfInfomsg, Type: unix.RTM_DELLINK, Flags: unix.NLM_F_REQUEST | unix.NLM_F_ACK}
	msg := append(unsafe.Slice((*byte)(unsafe.Pointer(&h)), unix.SizeofNlMsghdr), unsafe.Slice((*byte)(unsafe.Pointer(&m)), unix.SizeofIfInfomsg)...)
	require.NoError(t, unix.Sendto(fd, msg, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}))
	select {
	case <-c.ConfigInterrupt.C():
	case <-time.After(time.Minute):
		t.Fatal("the guest is not told")
	}
	require.Zero(t, c.Config(8)[6]&1, "the link is down")
	_, err = c.Rings[1].Do(c.Context(), virtiotest.Out(make([]byte, ethernet.HeaderSize)), virtiotest.Out(frame(60, 1)))
	require.NoError(t, err, "what the guest sends goes nowhere, and comes back")
	require.EqualValues(t, 15, c.State.Status(), "the device goes on")
}
