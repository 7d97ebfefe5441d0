package netconf

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// inNamespace calls f on a thread with a network of its own.
func inNamespace(t *testing.T, f func()) {
	t.Helper()
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: it ends with its namespace
		if err = unix.Unshare(unix.CLONE_NEWNET); err == nil {
			f()
		}
	}()
	<-done
	if err != nil {
		t.Skipf("a network namespace cannot be made here: %v", err)
	}
}

func TestConfigure(t *testing.T) {
	const lo = 1
	var state, again, gone []net.Addr
	var routes []byte
	var failed error
	var mtu int
	inNamespace(t, func() {
		failed = func() error {
			c, err := Open()
			if err != nil {
				return err
			}
			defer c.Close()
			addresses := func(list *[]net.Addr) {
				card, err := net.InterfaceByIndex(lo)
				if err == nil {
					mtu = card.MTU
					*list, _ = card.Addrs()
				}
			}
			ours := netip.MustParsePrefix("10.9.8.7/32")
			steps := []func() error{
				func() error { return c.Up(lo, 1400) },
				func() error { return c.Add(lo, ours) },
				func() error { return c.Add(lo, netip.MustParsePrefix("fd00::9/64")) },
				func() error { return c.Route(lo, netip.MustParsePrefix("0.0.0.0/0"), netip.MustParseAddr("10.9.8.1")) },
				func() error { return c.Route(lo, netip.MustParsePrefix("0.0.0.0/0"), netip.MustParseAddr("10.9.8.2")) },
				func() error { return c.Route(lo, netip.MustParsePrefix("192.0.2.7/24"), netip.Addr{}) },
				func() error { return c.Route(lo, netip.MustParsePrefix("fd01::/64"), netip.Addr{}) },
				func() error { addresses(&state); return nil },
				func() (err error) { routes, err = os.ReadFile("/proc/thread-self/net/route"); return err },
				func() error { return c.Add(lo, ours) },
				func() error { addresses(&again); return nil },
				func() error { return c.Remove(lo, ours) },
				func() error { addresses(&gone); return nil },
			}
			for _, step := range steps {
				if err := step(); err != nil {
					return err
				}
			}
			return nil
		}()
	})
	require.NoError(t, failed)
	text := func(list []net.Addr) (all []string) {
		for _, a := range list {
			all = append(all, a.String())
		}
		return all
	}
	require.Contains(t, text(state), "10.9.8.7/32")
	require.Contains(t, text(state), "fd00::9/64")
	require.Equal(t, text(state), text(again))
	require.NotContains(t, text(gone), "10.9.8.7/32")
	require.Equal(t, 1400, mtu)
	// Numbers as the processor has them: 10.9.8.2 is the gateway of all.
	require.Regexp(t, `lo\t00000000\t0208090A\t0003`, string(routes))
	require.NotRegexp(t, `0108090A`, string(routes))
	require.Regexp(t, `lo\t000200C0\t00000000\t0001`, string(routes))
}

func TestErrorsNameTheRequest(t *testing.T) {
	inNamespace(t, func() {})
	c, err := Open()
	require.NoError(t, err)
	defer c.Close()
	err = c.Add(1<<30, netip.MustParsePrefix("10.9.8.7/32"))
	require.ErrorContains(t, err, "address 10.9.8.7/32: ")
	require.ErrorIs(t, err, unix.ENODEV)
}

func TestAcknowledged(t *testing.T) {
	m := newMessage(unix.NLMSG_ERROR, 0)
	errno := -int32(unix.EPERM)
	m.u32(uint32(errno))
	m.put(0, uint32(len(m.b)))
	m.put(8, 7)
	answered, err := acknowledged(m.b, 7)
	require.True(t, answered)
	require.ErrorIs(t, err, unix.EPERM)
	answered, _ = acknowledged(m.b, 8)
	require.False(t, answered)
	m.put(16, 0)
	answered, err = acknowledged(append(append([]byte{}, m.b...), m.b...), 7)
	require.True(t, answered)
	require.NoError(t, err)
	m.put(0, 3)
	answered, _ = acknowledged(m.b, 7)
	require.False(t, answered)
}

// TestCardsAreInTheMachinesOrder: Linux may find them in another.
func TestCardsAreInTheMachinesOrder(t *testing.T) {
	sys := t.TempDir()
	card := func(name, index, place string) {
		dir := filepath.Join(sys, "class/net", name)
		require.NoError(t, os.MkdirAll(dir, 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "ifindex"), []byte(index+"\n"), 0o600))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "address"), []byte("02:00:00:00:00:0"+index+"\n"), 0o600))
		if place != "" {
			place = filepath.Join(sys, "devices", place)
			require.NoError(t, os.MkdirAll(place, 0o755))
			require.NoError(t, os.Symlink(place, filepath.Join(dir, "device")))
		}
	}
	card("lo", "1", "")
	card("eth0", "2", "pci0000:00/0000:00:0a.0/virtio9")
	card("eth1", "3", "pci0000:00/0000:00:03.0/virtio10")
	card("eth2", "4", "pci0000:00/0000:00:1f.0/virtio1")
	list, err := Cards(sys)
	require.NoError(t, err)
	var names []string
	for _, c := range list {
		names = append(names, c.Name)
	}
	require.Equal(t, []string{"eth1", "eth0", "eth2"}, names)
	require.Equal(t, 3, list[0].Index)
	require.Equal(t, "02:00:00:00:00:03", list[0].HW.String())
}
