package boot

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// quiet is a logger of a test's.
func quiet(t *testing.T) *log.Logger { return log.New(testWriter{t}, "", 0) }

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSuffix(string(p), "\n"))
	return len(p), nil
}

// TestRunPublishes: a port of the guest is one of the host's, until its end.
func TestRunPublishes(t *testing.T) {
	h := newHome(t)
	port := freePort(t)
	id := h.detached("-p", fmt.Sprintf("127.0.0.1:%d:8080", port), "busy", "sh", "-c",
		"mkdir /www && hostname >/www/index.html && exec httpd -f -p 8080 -h /www")
	require.Contains(t, h.must("ps"), fmt.Sprintf("127.0.0.1:%d->8080/tcp", port))
	url := fmt.Sprintf("http://127.0.0.1:%d/", port)
	var got string
	eventually(t, "the guest's server answers", func() bool {
		client := http.Client{Timeout: 10 * time.Second}
		resp, err := client.Get(url)
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		got = string(b)
		return err == nil && resp.StatusCode == http.StatusOK
	})
	require.Equal(t, id[:12]+"\n", got)
	h.must("rm", "-f", id)
	_, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), time.Second)
	require.ErrorIs(t, err, unix.ECONNREFUSED)
}

// TestMachinesLife is one machine's from run to rm, through all that can be asked of it.
func TestMachinesLife(t *testing.T) {
	h := newHome(t)
	id := h.detached("--name", "web", "--stop-timeout", "60", "-e", "A=of the machine", "busy", "sh", "-c",
		"trap 'echo bye; exit 7' TERM; trap 'echo usr1' USR1; echo started; echo complaint >&2; while :; do sleep 0.1; done")
	follower := h.background("logs", "-f", "web")
	follower.waitFor(t, "started\n")
	follower.waitForError(t, "complaint\n")

	ps := h.must("ps")
	require.Contains(t, ps, "web")
	require.Contains(t, ps, id[:12])
	require.Contains(t, ps, "Up ")
	require.Equal(t, id, h.must("ps", "-q", "--no-trunc"))
	require.Contains(t, h.must("inspect", id[:5]), id)
	r := h.husk(h.flags("--name", "web", "busy")...)
	r.wantCode(t, 125)
	require.Contains(t, r.stderr, id)

	// exec
	r = h.husk("exec", "-u", "alice", "-w", "/tmp", "-e", "B=of exec", "web", "sh", "-c", `id -un; pwd; echo "$A, $B"; echo $HOME; exit 3`)
	r.wantCode(t, 3)
	require.Equal(t, "alice\n/tmp\nof the machine, of exec\n/home/alice\n", r.stdout)
	r = h.huskWith(strings.NewReader("input"), "exec", "-i", "web", "cat")
	require.Equal(t, "input", r.stdout)
	h.husk("exec", "web", "nosuch").wantCode(t, 127)
	h.husk("exec", "nosuch", "true").wantCode(t, 1)
	g, _ := h.terminal("exec", "-it", "web", "sh", "-c", "tty; stty size")
	g.wait(t).wantCode(t, 0)
	g.waitFor(t, "33 101")
	h.must("exec", "-d", "web", "sh", "-c", "echo made >/tmp/made")
	eventually(t, "what exec -d started has run", func() bool { return h.husk("exec", "web", "cat", "/tmp/made").stdout == "made\n" })

	// cp
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "tree/sub"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "tree/sub/file"), []byte("copied\n"), 0o640))
	h.must("cp", filepath.Join(dir, "tree"), "web:/tmp")
	require.Equal(t, "copied", h.must("exec", "web", "cat", "/tmp/tree/sub/file"))
	h.must("cp", "web:/tmp/tree/sub/file", filepath.Join(dir, "back"))
	b, err := os.ReadFile(filepath.Join(dir, "back"))
	require.NoError(t, err)
	require.Equal(t, "copied\n", string(b))
	require.NotZero(t, h.husk("cp", "web:/no/such/file", dir).code)

	// pause and resume: time stands still in it
	h.must("pause", "web")
	require.Contains(t, h.must("ps"), "(Paused)")
	require.NotZero(t, h.husk("exec", "web", "true").code)
	require.NotZero(t, h.husk("pause", "web").code)
	h.must("resume", "web")
	require.Equal(t, "back", h.must("exec", "web", "echo", "back"))
	require.NotZero(t, h.husk("resume", "web").code)

	// stats
	stats := h.must("stats", "--no-stream", "web")
	require.Contains(t, stats, "web")
	require.Contains(t, stats, "CPU")

	// kill with a signal, attach, stop
	h.must("kill", "-s", "USR1", "web")
	follower.waitFor(t, "usr1\n")
	attached := h.background("attach", "--no-stdin", "web")
	waiter := h.background("wait", "web")
	require.NotZero(t, h.husk("rm", "web").code, "one that runs is not removed")
	require.Equal(t, "web", h.must("stop", "web"))
	attached.wait(t).wantCode(t, 7)
	waiter.wait(t).wantCode(t, 0)
	require.Equal(t, "7\n", waiter.stdout.String())
	follower.wait(t).wantCode(t, 0)
	require.Equal(t, "started\nusr1\nbye\n", follower.stdout.String())

	require.NotContains(t, h.must("ps"), "web")
	require.Contains(t, h.must("ps", "-a"), "Exited (7)")
	require.Equal(t, "started\nusr1\nbye", h.must("logs", "web"))
	require.Equal(t, "bye", h.must("logs", "--tail", "1", "web"))
	require.Equal(t, "7", h.must("wait", "web"))
	h.must("stop", "web")
	require.NotZero(t, h.husk("kill", "web").code)
	require.NotZero(t, h.husk("exec", "web", "true").code)
	require.Empty(t, h.processes(), "a machine that has ended has no process")
	h.must("rm", "web")
	require.NotZero(t, h.husk("rm", "web").code)
}

// TestStopKills: a command that does not listen is killed when its time is up.
func TestStopKills(t *testing.T) {
	h := newHome(t)
	h.detached("--name", "deaf", "busy", "sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done")
	eventually(t, "it is ready", func() bool { return h.husk("logs", "deaf").stdout == "ready\n" })
	h.must("stop", "-t", "1", "deaf")
	require.Equal(t, "137", h.must("wait", "deaf"))
	require.Contains(t, h.must("ps", "-a"), "Exited (137)")
	h.must("rm", "deaf")
}

// TestStopSignal: the image says by what its command ends.
func TestStopSignal(t *testing.T) {
	h := newHome(t)
	for image, signal := range map[string]string{"stop-int": "INT", "stop-10": "USR1"} {
		h.detached("--name", image, image)
		eventually(t, "it is ready", func() bool { return h.husk("logs", image).stdout == "ready\n" })
		h.must("stop", "-t", "100", image)
		require.Equal(t, "7", h.must("wait", image))
		require.Equal(t, "ready\n"+signal, h.must("logs", image))
		h.must("rm", image)
	}
}

// TestAKilledMachine: when a machine's process is killed, clients end, ps tells the
// truth, and rm cleans up.
func TestAKilledMachine(t *testing.T) {
	h := newHome(t)
	port := freePort(t)
	h.detached("--name", "victim", "--rw-size", "1g", "-p", fmt.Sprintf("127.0.0.1:%d:80", port), "busy", "sh", "-c", "echo ready; sleep 1000")
	follower := h.background("logs", "-f", "victim")
	follower.waitFor(t, "ready\n")
	attached := h.background("attach", "--no-stdin", "victim")
	waiter := h.background("wait", "victim")
	inside := h.background("exec", "victim", "sh", "-c", "echo inside; sleep 1000")
	inside.waitFor(t, "inside\n")

	// The clients are processes of this home's, too.
	clients := []*guest{follower, attached, waiter, inside}
	var machine []string
	for _, pid := range h.processes() {
		ours := false
		for _, c := range clients {
			ours = ours || pid == strconv.Itoa(c.cmd.Process.Pid)
		}
		if !ours {
			machine = append(machine, pid)
		}
	}
	require.Len(t, machine, 1)
	pid, err := strconv.Atoi(machine[0])
	require.NoError(t, err)
	require.NoError(t, unix.Kill(pid, unix.SIGKILL))
	for _, c := range clients {
		c.wait(t)
	}
	require.NotZero(t, inside.cmd.ProcessState.ExitCode())
	require.NotZero(t, attached.cmd.ProcessState.ExitCode())
	require.NotContains(t, h.must("ps"), "victim")
	require.Contains(t, h.must("ps", "-a"), "victim")
	require.NotContains(t, h.must("ps", "-a"), "Up ")
	require.Equal(t, "ready", h.must("logs", "victim"))
	require.NotZero(t, h.husk("exec", "victim", "true").code)
	h.must("rm", "victim")
	r := h.container("--name", "victim", "-p", fmt.Sprintf("127.0.0.1:%d:80", port), "busy", "echo", "the name and the port are free")
	r.wantCode(t, 0)
}

// TestAKilledClient: a machine does not need who started it.
func TestAKilledClient(t *testing.T) {
	h := newHome(t)
	g := h.background(h.flags("--name", "orphan", "--rm", "busy", "sh", "-c", "echo ready; while :; do echo tick; sleep 0.2; done")...)
	g.waitFor(t, "ready\n")
	require.NoError(t, g.cmd.Process.Kill())
	_ = g.wait(t)
	require.Contains(t, h.must("ps"), "orphan")
	before := len(h.must("logs", "orphan"))
	eventually(t, "it goes on", func() bool { return len(h.must("logs", "orphan")) > before })
	h.must("stop", "-t", "1", "orphan")
	eventually(t, "it is removed at its end", func() bool { return !strings.Contains(h.must("ps", "-a"), "orphan") })
}

// TestManyMachines: machines of one image do not disturb each other, and none leaves
// anything behind: see home.close.
func TestManyMachines(t *testing.T) {
	manyMachines(t, 3)
	inSequence(t, 3)
}

// manyMachines runs n at once.
func manyMachines(t *testing.T, n int) {
	t.Helper()
	h := newHome(t)
	var all []*guest
	for i := range n {
		all = append(all, h.background(h.flags("--rm", "-i", "busy", "sh", "-c",
			fmt.Sprintf("echo %d >/etc/mine; echo ready; read x; cat /etc/mine; exit %d", i, 10+i))...))
	}
	for _, g := range all {
		g.waitFor(t, "ready\n")
	}
	require.Len(t, strings.Fields(h.must("ps", "-q")), n)
	for i, g := range all {
		_, err := io.WriteString(g.stdin, "go\n")
		require.NoError(t, err)
		g.wait(t).wantCode(t, 10+i)
		require.Equal(t, fmt.Sprintf("ready\n%d\n", i), g.stdout.String())
	}
}

// inSequence runs n one after the other, on a tap if root can have one, and counts what
// there is of everything before and after.
func inSequence(t *testing.T, n int) {
	t.Helper()
	h := newHome(t)
	dir := t.TempDir()
	once := func() {
		h.container("-v", dir+":/v", "-p", "127.0.0.1:0:80", "--tmpfs", "/t", "busy", "sh", "-c", "echo x >>/v/count").wantCode(t, 0)
	}
	once()
	before := inventory(t)
	for range n {
		once()
	}
	require.Equal(t, before, inventory(t))
	b, err := os.ReadFile(filepath.Join(dir, "count"))
	require.NoError(t, err)
	require.Equal(t, n+1, bytes.Count(b, []byte("x\n")))
	h.leftNothing(t)
}

// inventory is what machines could leave behind on this host.
func inventory(t *testing.T) map[string]int {
	t.Helper()
	count := map[string]int{}
	for name, pattern := range map[string]string{
		"network cards": "/sys/class/net/*", "machines of KVM": "/sys/kernel/debug/kvm/*-*", "temporary files": os.TempDir() + "/husk*",
		"shared memory": "/dev/shm/*", "control groups": "/sys/fs/cgroup/*/husk*", "loop devices": "/sys/block/loop*/loop",
	} {
		list, err := filepath.Glob(pattern)
		require.NoError(t, err)
		count[name] = len(list)
	}
	for _, file := range []string{"/proc/self/mounts", "/proc/net/unix", "/proc/net/tcp", "/proc/net/udp", "/proc/net/vsock"} {
		b, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		require.NoError(t, err)
		n := bytes.Count(b, []byte("\n"))
		if file == "/proc/net/tcp" { // without those that wait for their end (TIME_WAIT)
			n -= bytes.Count(b, []byte(" 06 "))
		}
		count[file] = n
	}
	out, err := exec.Command("ps", "-e", "-o", "comm=").Output()
	if err == nil {
		count["processes of husk"] = bytes.Count(out, []byte("husk"))
	}
	return count
}
