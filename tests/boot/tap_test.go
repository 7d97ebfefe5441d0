package boot

import (
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The network that a tap makes, and who is there.
const (
	tapHost  = "10.254.9.1"
	tapGuest = "10.254.9.2"
)

// A tapNet is a network between the host and a guest's last card.
type tapNet struct {
	shell
	name string
}

// tapNet gives both ends of a tap an address.
func (s shell) tapNet(name string) tapNet {
	s.t.Helper()
	tool(s.t, "ip", "address", "add", tapHost+"/24", "dev", name)
	tool(s.t, "ip", "link", "set", name, "up")
	n := tapNet{s, name}
	n.configure()
	return n
}

// card is a line for the guest's shell that sets $card to the interface.
const card = `card=$(ls -d /sys/bus/virtio/drivers/virtio_net/virtio*/net/* | tail -n 1) && card=${card##*/} && `

func (n tapNet) configure() {
	n.t.Helper()
	n.must(card + "ip address replace " + tapGuest + "/24 dev $card && ip link set $card up")
}

// works has a few MiB go through TCP in both directions, by so many connections at once,
// whose end sees whether they are what they were.
func (n tapNet) works(connections int) {
	n.t.Helper()
	began := time.Now()
	defer func() { n.t.Logf("%d connections: %v", connections, time.Since(began).Round(time.Millisecond)) }()
	l, err := net.Listen("tcp4", tapHost+":0")
	require.NoError(n.t, err)
	defer l.Close()
	data := make([]byte, 1<<20)
	_, err = rand.Read(data)
	require.NoError(n.t, err)
	done := make(chan error, connections)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(deadline))
				go func() { _, _ = c.Write(data) }()
				back := make([]byte, len(data))
				_, err := io.ReadFull(c, back)
				if err == nil && string(back) != string(data) {
					err = fmt.Errorf("not what was sent came back")
				}
				done <- err
			}()
		}
	}()
	port := l.Addr().(*net.TCPAddr).Port
	n.must(fmt.Sprintf("for i in $(seq %d); do bash -c 'exec 3<>/dev/tcp/%s/%d && head -c %d <&3 >&3' & done; wait", connections, tapHost, port, len(data)))
	for range connections {
		require.NoError(n.t, <-done)
	}
}

// TestDebianOnATap has a network between a Debian and the host, with one queue and with
// four, by the host's kernel and by husk.
func TestDebianOnATap(t *testing.T) {
	for _, c := range []struct{ cpus, options, says string }{
		{"4", ",queues=4,vhost=on", "the host's kernel serves the network's queues"},
		{"1", ",vhost=off", ""},
	} {
		t.Run(strings.Trim(c.options, ","), func(t *testing.T) {
			const name = "husktap0"
			g := launch(t, "-d", debianFile(t, "debian.raw")+",snapshot=on", "-m", "1G", "-c", c.cpus, "-p", "0:22", "-n", "user",
				"-n", "tap="+name+c.options, "--log-level", "info")
			sh := g.ssh(t)
			if c.says == "" {
				require.NotContains(t, g.stderr.String(), "vhost-net")
			}
			require.Contains(t, g.stderr.String(), c.says)
			n := sh.tapNet(name)
			queues := strings.TrimSpace(sh.must(card + "ls -d /sys/class/net/$card/queues/rx-* | wc -l"))
			require.Equal(t, c.cpus, queues)
			n.works(1)
			n.works(8)

			sh.must(`dev=$(basename $(ls -d /sys/bus/virtio/drivers/virtio_net/virtio* | tail -n 1)) && cd /sys/bus/virtio/drivers/virtio_net &&
				for i in 1 2 3; do echo $dev >unbind && echo $dev >bind || exit; done`)
			n.configure()
			n.works(2)
			sh.must(card + "ip link set $card down && ip link set $card up && ip address replace " + tapGuest + "/24 dev $card")
			n.works(2)
			// An interrupt that moves to another processor is masked for a moment.
			sh.must(`for irq in $(grep virtio /proc/interrupts | cut -d: -f1); do for cpu in 1 0; do echo $cpu >/proc/irq/$irq/smp_affinity_list || true; done; done 2>/dev/null`)
			n.works(2)
			require.NoError(t, g.cmd.Process.Signal(syscall.SIGTERM))
			g.wait(t).wantCode(t, 0)
			_, err := net.InterfaceByName(name)
			require.Error(t, err, "what husk made is gone")
		})
	}
}
