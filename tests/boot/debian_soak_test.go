package boot

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/devices/disk"
	"github.com/huskvm/husk/devices/disk/qcow2"
	"github.com/huskvm/husk/kvm/kvmtest"
)

const (
	soakDisk = 256 << 20
	soakTap  = "husksoak0"
)

// TestSoakDebian has a Debian with four processors use its disks and networks for
// SOAK: what fio writes must read right, over raw, qcow2 and block devices, one past
// the page cache, and iperf3 gets through in both directions, over a user network and
// a tap of four queues.
func TestSoakDebian(t *testing.T) {
	end := time.Now().Add(kvmtest.Soak(t))
	dir := t.TempDir()
	raw, cow := filepath.Join(dir, "soak.raw"), filepath.Join(dir, "soak.qcow2")
	require.NoError(t, os.WriteFile(raw, nil, 0o600))
	require.NoError(t, os.Truncate(raw, soakDisk))
	require.NoError(t, disk.Create(cow, soakDisk, qcow2.CreateOptions{}))
	if _, err := exec.LookPath("iperf3"); err != nil {
		t.Skip("iperf3 is not there; make soak installs it")
	}
	port := freePort(t)
	g := launch(t, "-d", overlay(t), "-d", raw+",discard=on,serial=RAW", "-d", cow+",discard=on,serial=COW",
		"-d", loopDevice(t)+",serial=DEVICE", "-d", loopDevice(t)+",cache=direct,serial=DIRECT",
		"-m", "1G", "-c", "4", "-p", "0:22", "-p", fmt.Sprint(port, ":5201"), "-n", "user", "-n", "tap="+soakTap+",queues=4")
	sh := g.ssh(t)
	tool(t, "ip", "address", "add", "10.254.9.1/24", "dev", soakTap)
	tool(t, "ip", "link", "set", soakTap, "up")
	sh.must(`card=$(ls /sys/bus/virtio/drivers/virtio_net/virtio*/net -d | tail -n 1) && card=$(ls $card) &&
		ip address add 10.254.9.2/24 dev $card && ip link set $card up && systemd-run --quiet iperf3 -s`)
	require.Equal(t, "4", strings.TrimSpace(sh.must("cat /sys/block/vdb/mq/*/nr_tags | wc -l")), "a queue for each processor")
	require.Equal(t, "4", strings.TrimSpace(sh.must("ls -d $(ls -d /sys/bus/virtio/drivers/virtio_net/virtio*/net/* | tail -n 1)/queues/rx-* | wc -l")))

	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("husk said: %s", &g.stderr)
		}
	})
	const disks = "/dev/disk/by-id/virtio-"
	rounds := 0
	for ; rounds == 0 || time.Now().Before(end); rounds++ {
		for _, dev := range []string{"RAW", "COW", "DEVICE", "DIRECT"} {
			out := sh.must("fio --name=verify --filename=" + disks + dev + " --direct=1 --ioengine=libaio --iodepth=16 --rw=randwrite" +
				" --bsrange=4k-128k --size=64m --offset=" + fmt.Sprintf("%dm", rounds%3*64) + " --verify=crc32c --verify_fatal=1 --do_verify=1")
			require.Contains(t, out, "err= 0", "%s", out)
		}
		sh.must("d=" + disks + "COW && blkdiscard -f -l 67108864 $d && mkfs.ext4 -q $d && mount $d /mnt && cp -a /usr/bin /mnt && sync && umount /mnt && e2fsck -fn $d")
		for _, address := range [][]string{{"-c", "127.0.0.1", "-p", fmt.Sprint(port)}, {"-c", "10.254.9.2"}} {
			for _, how := range []string{"-P 1", "-P 1 -R", "-P 4", "-P 4 -R"} {
				args := append(strings.Fields(how), address...)
				out := tool(t, "iperf3", append(args, "-t", "3", "-f", "m")...)
				rates := regexp.MustCompile(`(\d+(?:\.\d+)?) Mbits/sec +receiver`).FindAllStringSubmatch(out, -1)
				require.NotEmpty(t, rates, "%s", out)
				t.Logf("iperf3 %s: %s Mbit/s", strings.Join(args, " "), rates[len(rates)-1][1]) // the sum comes last
			}
		}
	}
	sh.must("systemctl poweroff || true")
	g.wait(t).wantCode(t, 0)
	tool(t, "qemu-img", "check", cow)
	t.Logf("%d rounds", rounds)
}

// loopDevice is a block device of the size of the others.
func loopDevice(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "loop")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	require.NoError(t, os.Truncate(file, soakDisk))
	name := strings.TrimSpace(tool(t, "losetup", "--find", "--show", file))
	t.Cleanup(func() { tool(t, "losetup", "--detach", name) })
	return name
}

// freePort is one that nobody listens at.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}
