package net

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/devices/ethernet"
	"github.com/huskvm/husk/devices/netdev/tap"
	"github.com/huskvm/husk/devices/virtio/virtiotest"
)

// TestOnTap has frames go through the host's kernel, and then takes the interface
// away under the device.
func TestOnTap(t *testing.T) {
	ip, err := exec.LookPath("ip")
	if err != nil {
		t.Skip(err)
	}
	link, err := tap.Open("husknet%d", 2, 0)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { require.NoError(t, link.Close()) })
	os.WriteFile("/proc/sys/net/ipv6/conf/"+link.Name()+"/disable_ipv6", []byte("1"), 0) //nolint:errcheck // a kernel without IPv6
	out, err := exec.Command(ip, "link", "set", link.Name(), "up").CombinedOutput()
	require.NoError(t, err, "%s", out)
	host := packets(t, link.Name())

	c := &card{t: t, log: new(log)}
	c.d, err = New(link, mac, nil)
	require.NoError(t, err)
	c.Driver = virtiotest.NewDriver(t, c.d, nil)
	c.Start(common | tsoGuest | featCsum | featHostTSO4 | featStatus | featCtrlVQ | featMQ)
	require.EqualValues(t, ackOK, c.command(4, classMQ, mqPairsSet, 2, 0))
	require.EqualValues(t, ackOK, c.command(4, classMQ, mqPairsSet, 1, 0))

	f := newFrame(ethernet.Header{}, 1000)
	eth := f[ethernet.HeaderSize:]
	copy(eth, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0x88, 0xb5}) // IEEE 802 §9.2.2: for experiments
	c.send(virtiotest.Out(f[:100]), virtiotest.Out(f[100:]))
	got := make([]byte, 2000)
	n, err := unix.Read(host, got)
	require.NoError(t, err)
	require.True(t, bytes.Equal(eth, got[:n]))

	c.provide(200, 600)
	for range 50 {
		_, err = unix.Write(host, eth)
		require.NoError(t, err)
		c.received(f, 2)
	}

	out, err = exec.Command(ip, "link", "del", link.Name()).CombinedOutput()
	require.NoError(t, err, "%s", out)
	select {
	case <-c.ConfigInterrupt.C():
	case <-time.After(time.Minute):
		t.Fatal("the guest is not told")
	}
	require.Zero(t, c.Config(7)[configStatus]&statusLinkUp)
	c.send(virtiotest.Out(f))
	require.EqualValues(t, 15, c.State.Status(), "the device goes on")
}

// packets is a packet socket on the interface.
func packets(t *testing.T, name string) int {
	t.Helper()
	i, err := net.InterfaceByName(name)
	require.NoError(t, err)
	const kind = 0xb588 // 0x88b5 in network order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, kind)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, unix.Close(fd)) })
	require.NoError(t, unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: kind, Ifindex: i.Index}))
	require.NoError(t, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 30}))
	return fd
}
