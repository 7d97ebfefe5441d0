package tap

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/devices/ethernet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open returns a tap of a free name, or skips where none can be had.
func open(t *testing.T, queues, mtu int) *Link {
	t.Helper()
	l, err := Open("husktest%d", queues, mtu)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.ENOENT) {
		t.Skip(err)
	}
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	return l
}

// up raises the interface, with neither address nor IPv6, so that nothing but the
// test's frames passes.
func up(t *testing.T, name string) {
	t.Helper()
	os.WriteFile("/proc/sys/net/ipv6/conf/"+name+"/disable_ipv6", []byte("1"), 0) //nolint:errcheck // a kernel without IPv6
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	defer unix.Close(fd) //nolint:errcheck // a test
	ifr, err := unix.NewIfreq(name)
	require.NoError(t, err)
	ifr.SetUint16(unix.IFF_UP)
	require.NoError(t, unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr))
}

// host is a packet socket on the interface: the host's side of it.
func host(t *testing.T, name string) int {
	t.Helper()
	const all = unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8 // network order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, all&0xffff)
	require.NoError(t, err)
	t.Cleanup(func() { unix.Close(fd) }) //nolint:errcheck // a test
	i, err := net.InterfaceByName(name)
	require.NoError(t, err)
	require.NoError(t, unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all & 0xffff, Ifindex: i.Index}))
	require.NoError(t, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5}))
	return fd
}

// frame is one of an EtherType for experiments (IEEE 802 §9.2.2).
func frame(n int) []byte {
	f := make([]byte, n)
	copy(f, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0x88, 0xb5})
	for i := 14; i < n; i++ {
		f[i] = byte(i)
	}
	return f
}

func TestFramesBothWays(t *testing.T) {
	l := open(t, 1, 4000)
	require.Equal(t, 4000, l.Info().MTU)
	up(t, l.Name())
	s := host(t, l.Name())
	q := l.Queue(0)

	want := frame(1000)
	header := make([]byte, ethernet.HeaderSize)
	require.NoError(t, q.Send([][]byte{header[:5], header[5:], want[:100], want[100:101], want[101:]}))
	got := make([]byte, 2000)
	n, err := unix.Read(s, got)
	require.NoError(t, err)
	require.Equal(t, want, got[:n])

	want = frame(3000)
	_, err = unix.Write(s, want)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	in := [][]byte{make([]byte, ethernet.HeaderSize), make([]byte, 7), make([]byte, 1000), make([]byte, 4000)}
	require.NoError(t, q.Wait(ctx))
	n, err = q.Receive(in)
	require.NoError(t, err)
	require.Equal(t, ethernet.HeaderSize+3000, n)
	require.Equal(t, want, append(append(append([]byte{}, in[1]...), in[2]...), in[3][:n-1019]...))

	// One that does not fit is lost, and the next is not.
	for _, size := range []int{500, 100} {
		_, err = unix.Write(s, frame(size))
		require.NoError(t, err)
	}
	small := [][]byte{make([]byte, ethernet.HeaderSize+100)}
	require.NoError(t, q.Wait(ctx))
	_, err = q.Receive(small)
	require.ErrorIs(t, err, ethernet.ErrTooLong)
	require.NoError(t, q.Wait(ctx))
	n, err = q.Receive(small)
	require.NoError(t, err)
	require.Equal(t, ethernet.HeaderSize+100, n)
	n, err = q.Receive(small)
	require.NoError(t, err)
	require.Zero(t, n, "nothing waits")

	require.ErrorIs(t, q.Send([][]byte{make([]byte, ethernet.HeaderSize-1)}), ethernet.ErrFrame)
	require.ErrorIs(t, q.Send([][]byte{make([]byte, ethernet.HeaderSize+5)}), ethernet.ErrFrame)
	bad := ethernet.Header{Flags: ethernet.HeaderNeedsChecksum, ChecksumStart: 900, ChecksumOffset: 900}
	bad.Put(header)
	require.ErrorIs(t, q.Send([][]byte{header, frame(100)}), ethernet.ErrFrame)
}

// TestLargeSegment: a segment of 30,000 bytes goes in as one, and the host sees
// it, whole or cut, with a checksum that the driver made.
func TestLargeSegment(t *testing.T) {
	l := open(t, 1, 0)
	up(t, l.Name())
	s := host(t, l.Name())
	const payload, mss = 30000, 1400
	f := make([]byte, 14+20+20+payload)
	copy(f, frame(14))
	f[12], f[13] = 8, 0
	ip := f[14:]
	ip[0], ip[8], ip[9] = 0x45, 64, 6
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
	copy(ip[12:], []byte{192, 0, 2, 1, 192, 0, 2, 9})
	ip[20+12] = 5 << 4
	h := ethernet.Header{
		Flags: ethernet.HeaderNeedsChecksum, Segment: ethernet.SegmentTCP4, HeaderBytes: 54, SegmentSize: mss,
		ChecksumStart: 34, ChecksumOffset: 16,
	}
	header := make([]byte, ethernet.HeaderSize)
	h.Put(header)
	require.NoError(t, l.Queue(0).Send([][]byte{header, f}))
	for got, p := 0, make([]byte, 1<<16); got < payload; {
		n, err := unix.Read(s, p)
		require.NoError(t, err, "after %d bytes", got)
		if n > 54 && p[12] == 8 && p[13] == 0 && p[23] == 6 {
			got += n - 54
		}
	}
	for _, o := range []ethernet.Offloads{l.Info().Gives, ethernet.Checksum, ethernet.TSO4, 0} {
		require.NoError(t, l.SetOffloads(o))
	}
}

func TestWaitEnds(t *testing.T) {
	l := open(t, 1, 0)
	q := l.Queue(0)
	for range 20 {
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error)
		go func() { done <- q.Wait(ctx) }()
		cancel()
		require.ErrorIs(t, <-done, context.Canceled)
	}
	require.NoError(t, l.queues[0].Check())
	// A context that has ended leaves nothing behind for the next.
	done := make(chan error)
	go func() { done <- q.Wait(context.Background()) }()
	require.NoError(t, l.Close())
	require.ErrorIs(t, <-done, ethernet.ErrClosed)
	_, err := q.Receive([][]byte{make([]byte, 100)})
	require.ErrorIs(t, err, ethernet.ErrClosed)
	require.ErrorIs(t, q.Send([][]byte{make([]byte, 100)}), ethernet.ErrClosed)
	require.ErrorIs(t, q.Wait(context.Background()), ethernet.ErrClosed)
	require.ErrorIs(t, l.queues[0].Check(), ethernet.ErrClosed)
	require.NoError(t, l.Close())
	_, err = net.InterfaceByName(l.Name())
	require.Error(t, err, "what was made is gone")
}

// TestNothingIsAllocatedForAWait: one is between any two frames that come alone.
func TestNothingIsAllocatedForAWait(t *testing.T) {
	l := open(t, 1, 0)
	up(t, l.Name())
	_, err := unix.Write(host(t, l.Name()), frame(100))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	q := l.Queue(0)
	require.NoError(t, q.Wait(ctx))
	require.Zero(t, testing.AllocsPerRun(100, func() {
		if err := q.Wait(ctx); err != nil { // the frame is still there
			panic(err)
		}
	}))
}

func TestQueues(t *testing.T) {
	l := open(t, 4, 0)
	require.Equal(t, 4, l.Info().Queues)
	up(t, l.Name())
	s := host(t, l.Name())
	// With one queue, all flows come to it.
	for i := range 50 {
		f := frame(100)
		f[11] = byte(i)
		_, err := unix.Write(s, f)
		require.NoError(t, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for range 50 {
		require.NoError(t, l.Queue(0).Wait(ctx))
		n, err := l.Queue(0).Receive([][]byte{make([]byte, 2000)})
		require.NoError(t, err)
		require.Equal(t, ethernet.HeaderSize+100, n)
	}
	for _, n := range []int{4, 2, 3, 1, 4} {
		require.NoError(t, l.SetQueues(n))
	}
	for i := range 4 {
		require.NoError(t, l.Queue(i).Send([][]byte{make([]byte, ethernet.HeaderSize), frame(60)}), "queue %d", i)
	}
	require.Error(t, l.SetQueues(0))
	require.Error(t, l.SetQueues(5))
}

func TestRefusals(t *testing.T) {
	l := open(t, 1, 0)
	_, err := Open(l.Name(), 1, 0)
	require.ErrorIs(t, err, ErrTap)
	require.ErrorIs(t, err, unix.EBUSY)
	require.ErrorContains(t, err, "another program")
	_, err = Open(l.Name(), 2, 0)
	require.ErrorIs(t, err, unix.EINVAL)
	require.ErrorContains(t, err, "multi_queue")
	_, err = Open("lo", 1, 0)
	require.ErrorIs(t, err, ErrTap)
	require.ErrorContains(t, err, "no tap")
	_, err = Open("husktest%d", 0, 0)
	require.ErrorIs(t, err, ErrTap)
	_, err = Open("husktest%d", 1, 1<<20)
	require.ErrorIs(t, err, ErrTap)
	require.ErrorContains(t, err, "MTU")
	before := interfaces(t)
	_, err = Open("husktest%d", 257, 0)
	require.ErrorIs(t, err, ErrTap)
	require.Equal(t, before, interfaces(t))
}

func interfaces(t *testing.T) string {
	all, err := net.Interfaces()
	require.NoError(t, err)
	return fmt.Sprint(len(all))
}
