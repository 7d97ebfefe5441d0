package boot

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/boot/rootfs"
	"github.com/huskvm/husk/devices/disk"
	"github.com/huskvm/husk/devices/netdev"
	"github.com/huskvm/husk/internal/agent"
	"github.com/huskvm/husk/internal/guestinit/spec"
	"github.com/huskvm/husk/vmm"
)

// userNetwork is a network card on a network of its own.
func userNetwork(t *testing.T) vmm.Network {
	t.Helper()
	o, err := netdev.ParseOptions("user,hostloopback=on,mac=02:00:00:00:00:09")
	require.NoError(t, err)
	return vmm.Network{Options: o}
}

// TestContainer looks at what programs in a container see.
func TestContainer(t *testing.T) {
	volume := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(volume, "from-host"), []byte("hello\n"), 0o644))
	single := filepath.Join(t.TempDir(), "settings")
	require.NoError(t, os.WriteFile(single, []byte("a=b\n"), 0o644))
	server, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = server.Close() })
	go func() {
		for {
			conn, err := server.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte("the host\n"))
			_ = conn.Close()
		}
	}()
	_, port, err := net.SplitHostPort(server.Addr().String())
	require.NoError(t, err)

	x := startBox(t, rootDisk(t, smallRoot(t)), spec.Container{
		Hostname: "web", Domainname: "example.com", Hosts: []string{"192.0.2.7 db"},
		Interfaces: []spec.Interface{{Address: "10.0.2.15/24", Gateway: "10.0.2.2"}},
		DNS:        []string{"10.0.2.3"}, Search: []string{"example.com"}, Dir: "/made/for it",
		Sysctls: map[string]string{"net.core.somaxconn": "77"},
		Mounts: []spec.Mount{
			{Target: "/outside/volume", Tag: "volume"},
			{Target: "/volume-ro", Tag: "volume", ReadOnly: true},
			{Target: "/etc/app/settings", Tag: "single", File: "settings"},
			{Target: "/data", Options: "size=1m"},
			{Target: "/var-run/new", Options: "exec,mode=700"},
		},
	}, vmm.Config{
		Memory: 256 << 20, CPUs: 1, Networks: []vmm.Network{userNetwork(t)},
		Shares: []vmm.Share{{Tag: "volume", Path: volume}, {Tag: "single", Path: single}},
	})

	m := x.main(`trap 'echo "got it"; exit 9' TERM; echo "pid $$ hup"; echo ready; while :; do sleep 0.1; done`)
	require.Contains(t, m.out.String(), "pid 1 hup", "the main command is process 1")

	t.Run("processes", func(t *testing.T) {
		out := x.sh("ps; echo; cat /proc/1/cmdline | tr '\\0' ' ' || true; readlink /proc/self/ns/pid; echo parent $PPID")
		require.Contains(t, out, "trap")
		require.NotContains(t, out, "kthreadd", "only the container's own")
		require.NotContains(t, out, "husk")
		require.Contains(t, out, "parent 0")
		require.Equal(t, "2\n", x.sh(`kill -KILL 1; kill -HUP 1; sleep 0.2; ls -d /proc/1 /proc/self | wc -l`), "signals without a handler pass process 1 by")
	})
	t.Run("who it is", func(t *testing.T) {
		require.Equal(t, "web\n", x.sh("hostname"))
		require.Equal(t, "web\n", x.sh("cat /etc/hostname"))
		require.Equal(t, "example.com\n", x.sh("cat /proc/sys/kernel/domainname"))
		hosts := x.sh("cat /etc/hosts")
		require.Contains(t, hosts, "127.0.0.1\tlocalhost\n")
		require.Contains(t, hosts, "192.0.2.7\tdb\n10.0.2.15\tweb.example.com web\n")
		require.Equal(t, "nameserver 10.0.2.3\nsearch example.com\n", x.sh("cat /etc/resolv.conf"))
		require.Equal(t, "77\n", x.sh("cat /proc/sys/net/core/somaxconn"))
		require.Equal(t, "1048576\n", x.sh("ulimit -n"))
		require.Equal(t, "0\t2147483647\n", x.sh("cat /proc/sys/net/ipv4/ping_group_range"))
	})
	t.Run("environment", func(t *testing.T) {
		f := x.do(agent.Command{Argv: []string{"env"}, Env: []string{"A=b", "PATH=/bin"}})
		require.Equal(t, "HOSTNAME=web\nA=b\nPATH=/bin\nHOME=/root\n", f.stdout)
		f = x.do(agent.Command{Argv: []string{"env"}, User: "web", TTY: true})
		require.Equal(t, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\r\nHOSTNAME=web\r\nTERM=xterm\r\nHOME=/home\r\n", f.stdout)
	})
	t.Run("users", func(t *testing.T) {
		for user, want := range map[string]string{
			"":        "uid=0(root) gid=0(root)",
			"web":     "uid=33(web) gid=33(web) groups=33(web),44(logs)",
			"web:tty": "uid=33(web) gid=5(tty) groups=5(tty)\n",
			"700:701": "uid=700 gid=701 groups=701\n",
		} {
			f := x.do(agent.Command{Argv: []string{"id"}, User: user})
			require.Contains(t, f.stdout, want, "%q: %+v", user, f)
		}
		f := x.do(agent.Command{Argv: []string{"id", "-G"}, User: "web", Groups: []string{"extra", "9"}})
		require.Equal(t, "33 9 44 50\n", f.stdout)
		f = x.do(agent.Command{Argv: []string{"sh", "-c", "echo to the file >/dev/stdout; echo x >/dev/stderr; cat /private/x"}, User: "web"})
		require.Equal(t, "to the file\n", f.stdout, "its output is its own")
		require.Contains(t, f.stderr, "x\n")
		require.Contains(t, f.stderr, "denied")
		// Root, who starts it, may enter the folder.
		f = x.do(agent.Command{Argv: []string{"pwd"}, User: "web", Dir: "/private"})
		require.Equal(t, "/private\n", f.stdout, "%+v", f)
	})
	t.Run("what cannot be run", func(t *testing.T) {
		for _, tt := range []struct {
			cmd  agent.Command
			code int
			text string
		}{
			{agent.Command{Argv: []string{"nosuch"}}, 127, `exec: "nosuch": executable file not found in $PATH`},
			{agent.Command{Argv: []string{"/no/such"}}, 127, `exec: "/no/such": no such file or directory`},
			{agent.Command{Argv: []string{"/plain"}}, 126, `exec: "/plain": permission denied`},
			{agent.Command{Argv: []string{"/bin"}}, 126, `exec: "/bin": is a directory`},
			{agent.Command{Argv: []string{"/garbage"}}, 126, "exec /garbage: exec format error"},
			{agent.Command{Argv: []string{"/noshell"}}, 127, "exec /noshell: no such file or directory"},
			{agent.Command{Argv: []string{"id"}, User: "foo"}, 125, "unable to find user foo: no matching entries in passwd file"},
			{agent.Command{Argv: []string{"id"}, User: "web:foo"}, 125, "unable to find group foo: no matching entries in group file"},
			{agent.Command{Argv: []string{"id"}, Dir: "/plain"}, 126, "working directory /plain: not a directory"},
			{agent.Command{Argv: []string{"id"}, Dir: "/nowhere"}, 126, "working directory /nowhere: no such file or directory"},
		} {
			f := x.do(tt.cmd)
			require.Equal(t, tt.code, f.end.Code, tt.text)
			require.Equal(t, tt.text, f.end.Error)
			require.Equal(t, tt.text+"\n", f.stderr)
		}
		f := x.do(agent.Command{Argv: []string{"sh", "-c", "exit 42"}})
		require.Equal(t, agent.End{Code: 42}, f.end)
		f = x.do(agent.Command{Argv: []string{"sh", "-c", "kill -9 $$"}})
		require.Equal(t, agent.End{Code: 137}, f.end)
	})
	t.Run("mounts", func(t *testing.T) {
		mounts := x.sh("mount")
		for _, want := range []string{
			"overlay on / type overlay (rw,", "proc on /proc type proc (rw,nosuid,nodev,noexec,", "sysfs on /sys type sysfs (rw,",
			"devtmpfs on /dev type devtmpfs (rw,nosuid,", "devpts on /dev/pts type devpts (rw,nosuid,noexec,relatime,gid=5,mode=620,ptmxmode=666)",
			"tmpfs on /dev/shm type tmpfs (rw,nosuid,nodev,noexec,relatime,size=65536k", "mqueue on /dev/mqueue type mqueue (",
			"cgroup2 on /sys/fs/cgroup type cgroup2 (rw,", "volume on /etc/volume type virtiofs (rw,", "volume on /volume-ro type virtiofs (ro,",
			"single on /etc/app/settings type virtiofs (rw,", "tmpfs on /data type tmpfs (rw,nosuid,nodev,noexec,relatime,size=1024k,mode=750",
			"tmpfs on /run/new type tmpfs (rw,nosuid,nodev,relatime,mode=700",
		} {
			require.Contains(t, mounts, want)
		}
		require.NotContains(t, mounts, " on /.husk", "what it is made of is not seen")
		require.Equal(t, "hello\n", x.sh("cat /etc/volume/from-host"))
		x.sh("echo from the guest >/etc/volume/from-guest")
		b, err := os.ReadFile(filepath.Join(volume, "from-guest"))
		require.NoError(t, err)
		require.Equal(t, "from the guest\n", string(b))
		f := x.do(agent.Command{Argv: []string{"touch", "/volume-ro/x"}})
		require.Contains(t, f.stderr, "Read-only file system")
		x.sh("echo c=d >>/etc/app/settings")
		b, err = os.ReadFile(single)
		require.NoError(t, err)
		require.Equal(t, "a=b\nc=d\n", string(b))
		require.Equal(t, "755 0 /made/for it\n", x.sh("stat -c '%a %u %n' '/made/for it'"))
		require.Equal(t, "755\n", x.sh("stat -c %a /"))
		require.Equal(t, "/proc/self/fd\n/proc/self/fd/0\npts/ptmx\n", x.sh("readlink /dev/fd; readlink /dev/stdin; readlink /dev/ptmx"))
		require.Equal(t, "/dev/null\n", x.sh("readlink /proc/self/fd/0"))
		x.sh("echo written >/file && mkdir /sys/fs/cgroup/mine && test -c /dev/null -a -b /dev/vda")
	})
	t.Run("terminal", func(t *testing.T) {
		f := x.do(agent.Command{Argv: []string{"sh", "-c", "tty; stty size; stat -c '%u %g %a' $(tty)"}, User: "web", TTY: true, Size: agent.Size{Rows: 33, Cols: 77}})
		require.Equal(t, "/dev/pts/0\r\n33 77\r\n33 5 620\r\n", f.stdout, "%+v", f)
	})
	t.Run("network", func(t *testing.T) {
		require.Contains(t, x.sh("ip addr"), "inet 10.0.2.15/24")
		require.Contains(t, x.sh("ip addr"), "inet 127.0.0.1/8")
		require.Contains(t, x.sh("ip route"), "default via 10.0.2.2 dev eth0")
		require.Contains(t, x.sh("nc 10.0.2.2 "+port+" </dev/null"), "the host")
		f := x.do(agent.Command{Argv: []string{"ping", "-c", "1", "-w", "60", "10.0.2.2"}})
		require.Contains(t, f.stdout, "1 packets received", "%+v", f)
	})
	t.Run("files are copied in it", func(t *testing.T) {
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(dir, "copied"), []byte("content"), 0o640))
		from, err := os.OpenRoot(dir)
		require.NoError(t, err)
		defer from.Close()
		r, w, err := os.Pipe()
		require.NoError(t, err)
		go func() {
			_ = agent.Pack(w, from, "copied")
			_ = w.Close()
		}()
		require.NoError(t, x.client().Upload(context.Background(), "/home", r))
		require.Equal(t, "content", x.sh("cat /home/copied"))
	})

	// A signal goes to the main command, whose end is the end of all.
	m.signals <- syscall.SIGTERM
	m.done.Wait()
	require.Equal(t, 9, m.end.Code)
	require.Contains(t, m.out.String(), "got it\n")
	f := x.do(agent.Command{Argv: []string{"true"}})
	require.Equal(t, agent.End{Code: 125, Error: "the container's main command has ended"}, f.end)
	x.powerOff()
}

// TestContainerWritesToADisk: what is written is there when the machine has powered
// off, whatever still ran.
func TestContainerWritesToADisk(t *testing.T) {
	root := rootDisk(t, smallRoot(t))
	upper := filepath.Join(t.TempDir(), "upper.img")
	f, err := os.Create(upper)
	require.NoError(t, err)
	require.NoError(t, rootfs.WriteEmpty(f, 256<<20))
	require.NoError(t, f.Close())
	c := spec.Container{Hostname: "db", Upper: &spec.Disk{Serial: upperSerial, FileSystem: "ext4"}}
	cfg := vmm.Config{Memory: 256 << 20, CPUs: 2, Disks: []disk.Spec{{File: upper, Format: disk.Raw, Serial: upperSerial}}}

	x := startBox(t, root, c, cfg)
	m := x.main(`trap "" TERM; echo kept >/root/file; exec 5>/open; echo more >&5; echo ready; while :; do sleep 1; done`)
	require.Contains(t, x.sh("df /"), "overlay")
	// The main command does not listen. The button's driver comes after it has started, so
	// once may be too early.
	off := make(chan struct{})
	go func() {
		for {
			x.vm.PowerButton()
			select {
			case <-off:
				return
			case <-time.After(10 * time.Second):
			}
		}
	}()
	x.hasPoweredOff()
	close(off)
	m.done.Wait()
	require.NotContains(t, x.console.String(), "husk-init: the disk")
	x.close()

	x = startBox(t, root, c, cfg)
	x.main(`cat /root/file /open; dmesg | grep -i "recover\|orphan\|ext4.*error" || true; echo ready; sleep 1000`)
	require.Equal(t, "kept\nmore\n", x.sh("cat /root/file /open"))
	require.Empty(t, x.sh(`dmesg | grep -i 'EXT4-fs.*recovery\|orphan\|EXT4-fs error' || true`), "it was unmounted")
	x.powerOff()
}

// TestReadOnlyContainer: nothing can be written to but what is mounted for it.
func TestReadOnlyContainer(t *testing.T) {
	x := startBox(t, rootDisk(t, smallRoot(t)), spec.Container{
		Hostname: "ro", ReadOnly: true, Dir: "/new/dir",
		Interfaces: []spec.Interface{{DHCP: true}},
		Mounts:     []spec.Mount{{Target: "/scratch/a"}},
	}, vmm.Config{Memory: 256 << 20, CPUs: 1, Networks: []vmm.Network{userNetwork(t)}})
	c := x.client()
	signals := make(chan os.Signal, 1)
	var out watched
	done := make(chan int, 1)
	go func() {
		code, err := c.Run(context.Background(), agent.Command{
			Argv: []string{"sh", "-c", "tty; cat /dev/console >/dev/null & echo to the console >/dev/console; echo $TERM; pwd; echo ready; sleep 1000"},
			Dir:  "/new/dir", TTY: true, Size: agent.Size{Rows: 24, Cols: 80}, Stdout: &out, Signals: signals,
		})
		if err != nil {
			t.Error(err)
		}
		done <- code
	}()
	require.Eventually(t, func() bool { return strings.Contains(out.String(), "ready\r\n") }, deadline, 10*time.Millisecond, "%s", &x.console)
	require.Contains(t, out.String(), "/dev/pts/0\r\nto the console\r\nxterm\r\n/new/dir\r\n")

	for _, file := range []string{"/x", "/root/x", "/etc/passwd", "/tmp/x", "/etc/hosts"} {
		f := x.do(agent.Command{Argv: []string{"sh", "-c", "echo >>" + file}})
		require.Contains(t, f.stderr, "Read-only file system")
	}
	x.sh("touch /scratch/a/x /dev/shm/x")
	require.Contains(t, x.sh("mount"), "overlay on / type overlay (ro,")

	// The network by DHCP.
	require.Contains(t, x.sh("ip addr"), "inet 10.0.2.15/24")
	require.Contains(t, x.sh("ip route"), "default via 10.0.2.2 dev eth0")
	require.Equal(t, "nameserver 10.0.2.3\n", x.sh("cat /etc/resolv.conf"))
	require.Contains(t, x.sh("cat /etc/hosts"), "10.0.2.15\tro\n")

	// What ends the main command by a signal is 128 and its number; all else ends with it.
	signals <- syscall.SIGTERM // process 1, a shell without a trap, does not hear it
	signals <- syscall.SIGKILL
	require.Equal(t, 137, <-done)
	x.powerOff()
}

// TestMainCommandsThatCannotBeRun: what is not even found can be tried again, and what the
// kernel refuses has taken the container with it.
func TestMainCommandsThatCannotBeRun(t *testing.T) {
	x := startBox(t, rootDisk(t, smallRoot(t)), spec.Container{Hostname: "x"}, vmm.Config{Memory: 192 << 20, CPUs: 1})
	for _, tt := range []struct {
		cmd agent.Command
		end agent.End
	}{
		{agent.Command{Argv: []string{"nosuch"}}, agent.End{Code: 127, Error: `exec: "nosuch": executable file not found in $PATH`}},
		{agent.Command{Argv: []string{"id"}, User: "foo"}, agent.End{Code: 125, Error: "unable to find user foo: no matching entries in passwd file"}},
		{agent.Command{Argv: []string{"/garbage"}}, agent.End{Code: 126, Error: "exec /garbage: exec format error"}},
		{agent.Command{Argv: []string{"id"}}, agent.End{Code: 126, Error: "exec id: the container has ended with what failed to start in it"}},
	} {
		f := x.do(tt.cmd)
		require.Equal(t, tt.end, f.end)
		require.Equal(t, tt.end.Error+"\n", f.stderr)
	}
	x.powerOff()
}

// TestContainerWithoutMemory: the kernel ends what takes it, and the host is told so.
// What a process does to switch the machine off ends the container.
func TestContainerWithoutMemory(t *testing.T) {
	x := startBox(t, rootDisk(t, smallRoot(t)), spec.Container{Hostname: "x"}, vmm.Config{Memory: 128 << 20, CPUs: 1})
	m := x.main("echo ready; while :; do sleep 1; done")
	f := x.do(agent.Command{Argv: []string{"awk", `BEGIN { while (1) a[i++] = sprintf("%100000s", "") }`}})
	require.Equal(t, agent.End{Code: 137, OOMKilled: true}, f.end, f.stderr)
	x.do(agent.Command{Argv: []string{"poweroff", "-f"}})
	m.done.Wait()
	require.Equal(t, 128+int(syscall.SIGINT), m.end.Code, "pid_namespaces(7)")
	x.powerOff()
}

// TestContainerThatCannotBe: the host is told why.
func TestContainerThatCannotBe(t *testing.T) {
	for name, tt := range map[string]struct {
		c    spec.Container
		want string
	}{
		"no disk": {spec.Container{Upper: &spec.Disk{Serial: "none", FileSystem: "ext4"}}, `there is no virtio disk with the serial number "none"; the kernel sees: vda "husk-root"`},
		"a file":  {spec.Container{Mounts: []spec.Mount{{Target: "/plain", Options: "size=1m"}}}, "mount /plain: not a directory"},
	} {
		t.Run(name, func(t *testing.T) {
			x := startBox(t, rootDisk(t, smallRoot(t)), tt.c, vmm.Config{Memory: 192 << 20, CPUs: 1})
			ctx, cancel := context.WithTimeout(t.Context(), deadline)
			defer cancel()
			_, err := x.calls.Client(ctx)
			require.ErrorIs(t, err, agent.ErrGuest, "%s", &x.console)
			require.ErrorContains(t, err, tt.want)
			x.hasPoweredOff()
			require.Contains(t, x.console.String(), "husk-init: ")
		})
	}
}
