package boot

import (
	"bufio"
	"bytes"
	"context"
	"crypto/md5"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/devices/disk"
	"github.com/huskvm/husk/devices/disk/qcow2"
)

// debianFile is a file of build/debian, which tests/make-debian makes.
func debianFile(t *testing.T, name string) string {
	t.Helper()
	need(t)
	path, err := filepath.Abs(filepath.Join("../../build/debian", name))
	require.NoError(t, err)
	require.FileExists(t, path, "tests/install debian makes it")
	return path
}

// overlay is an image of its own over the Debian.
func overlay(t *testing.T) string {
	t.Helper()
	base := debianFile(t, "debian.raw")
	info, err := os.Stat(base)
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "debian.qcow2")
	require.NoError(t, disk.Create(path, info.Size(), qcow2.CreateOptions{Backing: base, BackingFormat: "raw"}))
	return path
}

// tool runs a program of the host's to its end, and returns its output.
func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	require.NoError(t, cmd.Run(), "%s %s\n%s%s", name, strings.Join(args, " "), &out, &errs)
	return out.String()
}

// checkImage looks through an image, and gives it back as a raw file.
func checkImage(t *testing.T, image string) (raw string) {
	t.Helper()
	tool(t, "qemu-img", "check", image)
	raw = filepath.Join(t.TempDir(), "raw")
	tool(t, "qemu-img", "convert", "-O", "raw", image, raw)
	return raw
}

// A shell is root's in a guest, by SSH through a published port.
type shell struct {
	t    *testing.T
	args []string
}

var publishedPort = regexp.MustCompile(`port 22/tcp is 127\.0\.0\.1:(\d+) here`)

// ssh waits for the guest's login prompt, and connects.
func (g *guest) ssh(t *testing.T) shell {
	t.Helper()
	g.waitFor(t, "login:")
	m := publishedPort.FindStringSubmatch(g.stderr.String())
	require.NotNil(t, m, "%s", &g.stderr)
	key := filepath.Join(t.TempDir(), "id")
	b, err := os.ReadFile(debianFile(t, "id"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(key, b, 0o600))
	return shell{t, []string{
		"-i", key, "-p", m[1], "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
		"-o", "LogLevel=ERROR", "-o", "ConnectTimeout=60", "-o", "BatchMode=yes", "root@127.0.0.1",
	}}
}

// run runs a line in the guest, and returns what it prints and whether it succeeded.
func (s shell) run(line string) (string, bool) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	cmd := exec.CommandContext(ctx, "ssh", append(s.args, line)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	require.NoError(s.t, ctx.Err(), "%s hangs\n%s", line, &out)
	return out.String(), err == nil
}

func (s shell) must(line string) string {
	s.t.Helper()
	out, ok := s.run(line)
	require.True(s.t, ok, "%s\n%s", line, out)
	return out
}

// The disks by their serial numbers: a disk that leaves and comes back may get
// another letter.
const (
	smallDisk    = "/dev/disk/by-id/virtio-SMALL"
	fullDiskName = "/dev/disk/by-id/virtio-FULL"
)

// fullDisk is an image of 64 MiB in a file system of 16.
func fullDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=16m"))
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	path := filepath.Join(dir, "full.raw")
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	require.NoError(t, os.Truncate(path, 64<<20))
	return path
}

// put copies a file into root's home in the guest.
func (s shell) put(name, file string) {
	s.t.Helper()
	f, err := os.Open(file)
	require.NoError(s.t, err)
	defer f.Close()
	cmd := exec.Command("ssh", append(s.args, "cat >"+name+" && chmod +x "+name)...)
	cmd.Stdin = f
	out, err := cmd.CombinedOutput()
	require.NoError(s.t, err, "%s", out)
}

// guestProgram is a program for guests. tests/lab-test builds them.
func guestProgram(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs("../../build/guest/" + name)
	require.NoError(t, err)
	require.FileExists(t, path, "make lab-test builds it")
	return path
}

// residentMiB is what a process has resident.
func residentMiB(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	require.NoError(t, err)
	m := regexp.MustCompile(`Rss: +(\d+) kB`).FindSubmatch(b)
	require.NotNil(t, m, "%s", b)
	kib, err := strconv.Atoi(string(m[1]))
	require.NoError(t, err)
	return kib >> 10
}

// TestDebian has a whole Debian boot by what is in its image, and does with its
// devices what an administrator would.
func TestDebian(t *testing.T) {
	image, full, small := overlay(t), fullDisk(t), filepath.Join(t.TempDir(), "small.raw")
	require.NoError(t, os.WriteFile(small, make([]byte, 8<<20), 0o600))
	socket := filepath.Join(t.TempDir(), "vsock")
	g := launch(t, "-d", image, "-d", small+",serial=SMALL,discard=on", "-d", full+",serial=FULL", "-m", "1G", "-c", "2",
		"-p", "0:22", "--balloon", "--vsock", socket, "--console", "file:"+filepath.Join(t.TempDir(), "hvc0"))
	sh := g.ssh(t)

	require.Contains(t, sh.must("ip -brief address"), "10.0.2.15/24")
	require.Contains(t, sh.must("cat /sys/block/vdb/serial"), "SMALL")
	interrupts := sh.must("grep virtio /proc/interrupts")
	require.Contains(t, interrupts, "PCI-MSI")
	require.Contains(t, interrupts, "virtio0-req.1", "a queue for each processor")

	t.Run("every driver leaves and comes back", func(t *testing.T) {
		sh.t = t
		for _, line := range strings.Fields(sh.must("cd /sys/bus/virtio/drivers && ls -d */virtio*")) {
			driver, device, _ := strings.Cut(line, "/")
			rebind := "cd /sys/bus/virtio/drivers/" + driver + " && for i in 1 2 3; do echo " + device + " >unbind && echo " + device + " >bind || exit; done"
			switch {
			case device == "virtio0": // the root
			case driver == "virtio_net": // this connection goes with it
				sh.must("systemd-run --quiet --on-active=1 sh -c '" + rebind + "'")
				time.Sleep(2 * time.Second)
				require.Eventually(t, func() bool { out, ok := sh.run("echo back"); return ok && out == "back\n" }, deadline, time.Second)
			default:
				sh.must(rebind)
			}
		}
		require.Contains(t, sh.must("head -c 64 /dev/hwrng | wc -c; udevadm settle; dd if="+smallDisk+" of=/dev/null bs=1M iflag=direct"), "8388608 bytes")
	})
	t.Run("a thousand connections over vsock", func(t *testing.T) {
		sh.t = t
		sh.put("vsockecho", guestProgram(t, "vsockecho"))
		sh.must("systemd-run --quiet /root/vsockecho serve 1234; sleep 1")
		const connections = 1000
		var conns [connections]net.Conn
		for i := range conns { // all open at a time
			c, err := net.Dial("unix", socket)
			require.NoError(t, err)
			defer c.Close()
			require.NoError(t, c.SetDeadline(time.Now().Add(deadline)))
			_, err = fmt.Fprintln(c, "CONNECT 1234")
			require.NoError(t, err)
			conns[i] = c
		}
		for i, c := range conns {
			r := bufio.NewReader(c)
			line, err := r.ReadString('\n')
			require.NoError(t, err)
			require.Regexp(t, `^OK \d+\n$`, line)
			_, err = fmt.Fprintln(c, "connection", i)
			require.NoError(t, err)
			require.NoError(t, c.(*net.UnixConn).CloseWrite())
			back, err := io.ReadAll(r)
			require.NoError(t, err)
			require.Equal(t, fmt.Sprintln("connection", i), string(back))
		}

		l, err := net.Listen("unix", socket+"_4321")
		require.NoError(t, err)
		defer l.Close()
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					_, _ = io.Copy(c, c)
					_ = c.Close()
				}()
			}
		}()
		require.Equal(t, "200 connections\n", sh.must("/root/vsockecho call 4321 200"))
		out, ok := sh.run("/root/vsockecho call 9999 1")
		require.False(t, ok, out)
		require.Contains(t, out, "connection reset", "nobody listens there")
	})
	t.Run("memory comes back by the balloon", func(t *testing.T) {
		sh.t = t
		rss := func() int { return residentMiB(t, g.cmd.Process.Pid) }
		sh.must("head -c 400M /dev/zero >/dev/shm/x; rm /dev/shm/x")
		before := rss()
		require.Eventually(t, func() bool { return rss() < before-200 }, deadline, time.Second, "free page reporting: %d MiB resident before, %d now", before, rss())
	})
	t.Run("the host's disk is full", func(t *testing.T) {
		sh.t = t
		out, ok := sh.run("dd if=/dev/zero of=" + fullDiskName + " bs=1M oflag=direct")
		require.False(t, ok, out)
		require.Contains(t, out, "rror writing '"+fullDiskName+"'")
		require.Contains(t, g.stderr.String(), "no space left on device")
		require.Equal(t, "on we go\n", sh.must("echo on we go"))
	})
	t.Run("the power button", func(t *testing.T) {
		sh.t = t
		sh.must("echo kept >/root/kept; dd if=/dev/urandom of=/root/random bs=1M count=20 2>/dev/null")
		sum := strings.Fields(sh.must("md5sum /root/random"))[0]
		require.NoError(t, g.cmd.Process.Signal(syscall.SIGTERM))
		r := g.wait(t)
		r.wantCode(t, 0)
		require.Contains(t, r.stdout, "reboot: Power down")
		raw := checkImage(t, image)
		tool(t, "e2fsck", "-fn", raw)
		require.Equal(t, "kept\n", tool(t, "debugfs", "-R", "cat /root/kept", raw))
		random := tool(t, "debugfs", "-R", "cat /root/random", raw)
		require.Equal(t, sum, fmt.Sprintf("%x", md5.Sum([]byte(random))))
	})
}

// TestDebianIsKilled: what the guest's fsync has acknowledged survives a kill -9 of
// husk, and both the image and the file system are whole.
func TestDebianIsKilled(t *testing.T) {
	image := overlay(t)
	g := launch(t, "-d", image, "-m", "1G", "-p", "0:22")
	g.ssh(t).must(`mkdir /root/kill && systemd-run --quiet sh -c '
		i=0
		while :; do
			i=$((i+1))
			echo $i >/root/kill/$i
			dd if=/dev/urandom of=/root/kill/data bs=64k count=4 conv=fsync 2>/dev/null
			sync /root/kill/$i /root/kill
			echo done-$i >/dev/ttyS0
		done'`)
	g.waitFor(t, "done-12")
	require.NoError(t, g.cmd.Process.Kill())
	done := 0
	for _, m := range regexp.MustCompile(`done-(\d+)\r\n`).FindAllStringSubmatch(g.wait(t).stdout, -1) {
		done, _ = strconv.Atoi(m[1])
	}
	require.GreaterOrEqual(t, done, 12)
	raw := checkImage(t, image)
	_ = exec.Command("e2fsck", "-fp", raw).Run() // replays the journal, as a boot would; its code says whether there was one
	tool(t, "e2fsck", "-fn", raw)
	for i := 1; i <= done; i++ {
		require.Equal(t, fmt.Sprintln(i), tool(t, "debugfs", "-R", fmt.Sprint("cat /root/kill/", i), raw), "of %d", done)
	}
}

// TestDebianOtherwise: the ways to interrupt and to be found that are not the usual.
func TestDebianOtherwise(t *testing.T) {
	for name, flags := range map[string][]string{
		"INTx": {"-a", "pci=nomsi"},
		"MMIO": {"--transport", "mmio"},
	} {
		t.Run(name, func(t *testing.T) {
			const tap = "husktap1"
			g := launch(t, append(flags, "-d", debianFile(t, "debian.raw")+",snapshot=on", "-m", "1G", "-c", "2", "-p", "0:22",
				"-n", "user", "-n", "tap="+tap+",queues=2,vhost=on")...)
			sh := g.ssh(t)
			out := sh.must("grep virtio /proc/interrupts; dd if=/dev/vda of=/dev/null bs=1M count=50 iflag=direct")
			sh.tapNet(tap).works(2)
			require.Contains(t, out, "virtio0")
			require.NotContains(t, out, "MSI")
		})
	}
}
