package cgroup

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// joinVariable makes this binary a process that joins a group of that name, says which,
// waits for the end of its input, and leaves.
const joinVariable = "HUSK_TEST_JOIN"

func TestMain(m *testing.M) {
	if name := os.Getenv(joinVariable); name != "" {
		if err := join(name); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func join(name string) error {
	g, err := Host().Join(name, realLimits, Limits{})
	if err != nil {
		return err
	}
	fmt.Println(g.Path)
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	return g.Leave()
}

// fake makes a hierarchy of plain files.
func fake(t *testing.T, groups map[string]map[string]string) Hierarchy {
	t.Helper()
	h := Hierarchy{Root: t.TempDir(), Own: "/", Privileged: true}
	for group, files := range groups {
		require.NoError(t, os.MkdirAll(h.dir(group), 0o700))
		for name, text := range files {
			require.NoError(t, os.WriteFile(filepath.Join(h.dir(group), name), []byte(text), 0o600))
		}
	}
	return h
}

// read is what a file of a group says.
func read(t *testing.T, dir, file string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, file))
	require.NoError(t, err)
	return strings.TrimSpace(string(b))
}

func TestFreeMemory(t *testing.T) {
	h := fake(t, map[string]map[string]string{
		"a/b/c": {"memory.max": "max\n", "memory.current": "5\n"},
	})
	free := func(own string) uint64 {
		h.Own = own
		return h.FreeMemory()
	}
	require.Zero(t, free("/a/b/c"), "no limit")
	add := func(group, file, text string) {
		require.NoError(t, os.WriteFile(filepath.Join(h.dir(group), file), []byte(text), 0o600))
	}
	add("a/b", "memory.max", "1000000\n")
	add("a/b", "memory.current", "500000\n")
	add("a/b", "memory.stat", "anon 1\ninactive_file 100000\nslab 3\n")
	require.EqualValues(t, 600000, free("/a/b/c"))
	add("a", "memory.max", "700000\n")
	add("a", "memory.current", "650000\n")
	require.EqualValues(t, 50000, free("/a/b/c"), "the least of all")
	require.EqualValues(t, 50000, free("/a/none/at/../all"), "in a container")
	add("", "memory.max", "10\n")
	add("", "memory.current", "20\n")
	require.EqualValues(t, 4096, free("/../x"), "full")
	require.Zero(t, Hierarchy{Own: "/a"}.FreeMemory(), "no hierarchy")
}

func TestHostFiles(t *testing.T) {
	const mounts = "24 1 254:0 / / rw - ext4 /dev/vda rw\n" +
		"30 24 0:26 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory\n" +
		"31 24 0:27 / /mnt/a\\040b rw,relatime shared:9 master:3 - cgroup2 cgroup2 rw\n"
	require.Equal(t, "/mnt/a b", mountPoint(mounts))
	require.Empty(t, mountPoint("24 1 254:0 / / rw - ext4 /dev/vda rw\n"))
	require.Empty(t, mountPoint("nonsense\n- cgroup2\n"))
	require.Equal(t, "/user.slice/x y.scope", ownGroup("4:memory:/a\n0::/user.slice/x y.scope\n"))
	require.Equal(t, "/up", ownGroup("0::/../up\n"))
	require.Equal(t, "/", ownGroup("4:memory:/a\n"))
}

func TestMakeWrites(t *testing.T) {
	h := fake(t, map[string]map[string]string{
		"/": {"cgroup.controllers": "cpuset cpu io memory pids", "cgroup.subtree_control": "memory"},
	})
	g, err := h.make("husk-1", Limits{CPUs: 1.5, Weight: 39}, Limits{Memory: 1 << 30, Tasks: 99})
	require.NoError(t, err)
	require.Equal(t, h.Root+"/husk-1", g.Path)
	require.Equal(t, h.Root, g.Origin)
	for file, text := range map[string]string{
		"cpu.max": "150000 100000", "cpu.weight": "39", "memory.max": "1073741824", "pids.max": "99",
	} {
		require.Equal(t, text, read(t, g.Path, file))
	}
	require.Equal(t, "+pids", read(t, h.Root, "cgroup.subtree_control"), "the last that was enabled; memory was")
}

func TestNothingToHold(t *testing.T) {
	g, err := Hierarchy{}.Join("x", Limits{}, Limits{})
	require.NoError(t, err)
	require.Nil(t, g)
	g, err = Hierarchy{}.Join("x", Limits{}, Limits{Memory: 1})
	require.NoError(t, err, "a wish")
	require.Nil(t, g)
}

func TestHostsThatCannot(t *testing.T) {
	half := Limits{CPUs: 0.5}
	for _, tt := range []struct {
		name string
		h    Hierarchy
		text string
	}{
		{"no hierarchy", Hierarchy{}, "no control groups of version 2 are mounted"},
		{"no controllers at all", fake(t, map[string]map[string]string{
			"/": {"cgroup.controllers": "", "cgroup.subtree_control": ""},
		}), "controller"},
		{"not one of version 2", fake(t, nil), "no such file"},
		{"not delegated", func() Hierarchy {
			h := fake(t, map[string]map[string]string{
				"/":    {"cgroup.controllers": "cpu memory"},
				"/u":   {"cgroup.controllers": "memory", "cgroup.subtree_control": "memory", "cgroup.procs": ""},
				"/u/x": {},
			})
			h.Own, h.Privileged = "/u/x", false
			return h
		}(), "the controller cpu is not delegated to"},
		{"of somebody else's session", Hierarchy{Root: "/nonexistent", Own: "/s/x"}, "systemd-run --user --scope"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g, err := tt.h.Join("x", half, Limits{})
			require.ErrorIs(t, err, ErrLimit)
			require.ErrorContains(t, err, tt.text)
			require.Nil(t, g)
			g, err = tt.h.Join("x", Limits{}, half)
			require.NoError(t, err)
			require.Nil(t, g)
		})
	}
}

// TestTheNearestParent: one above is taken where the nearest will not do.
func TestTheNearestParent(t *testing.T) {
	h := fake(t, map[string]map[string]string{
		"/":      {"cgroup.controllers": "cpu memory", "cgroup.subtree_control": "cpu memory", "cgroup.procs": ""},
		"/a":     {"cgroup.controllers": "cpu memory", "cgroup.subtree_control": "cpu memory", "cgroup.procs": ""},
		"/a/b":   {"cgroup.controllers": "memory", "cgroup.subtree_control": "memory", "cgroup.procs": ""},
		"/a/b/c": {},
	})
	h.Own, h.Privileged = "/a/b/c", false
	g, err := h.make("m", Limits{Memory: 1 << 20}, Limits{CPUs: 1})
	require.NoError(t, err)
	require.Equal(t, h.Root+"/a/b/m", g.Path)
	require.NoFileExists(t, g.Path+"/cpu.max")
	g2, err := h.make("m", Limits{CPUs: 1}, Limits{})
	require.NoError(t, err)
	require.Equal(t, h.Root+"/a/m", g2.Path)
	require.Equal(t, h.Root+"/a/b/c", g2.Origin)
	_, err = h.make("m", Limits{CPUs: 1}, Limits{})
	require.ErrorIs(t, err, os.ErrExist)
}

// TestNothingIsEscaped: a group is made where all that holds the process still does.
func TestNothingIsEscaped(t *testing.T) {
	const all = "cpu memory pids"
	inner := func(files ...string) map[string]string {
		m := map[string]string{
			"cgroup.controllers": all, "cgroup.subtree_control": all, "cgroup.procs": "",
			"memory.max": "max\n", "memory.high": "max\n", "cpu.max": "max 100000\n", "io.max": "", "pids.max": "99\n",
		}
		for n := 0; n < len(files); n += 2 {
			m[files[n]] = files[n+1]
		}
		return m
	}
	for _, tt := range []struct {
		name   string
		own    string
		groups map[string]map[string]string
		want   string // the group's parent, or why there is none
	}{
		{"the root", "/", map[string]map[string]string{"/": inner()}, "/"},
		{"a service", "/system.slice/x.service", map[string]map[string]string{
			"/": inner(), "/system.slice": inner(), "/system.slice/x.service": inner(),
		}, "/system.slice"},
		{"a slice with a limit", "/ci.slice/job.scope", map[string]map[string]string{
			"/": inner(), "/ci.slice": inner("memory.max", "1000\n"), "/ci.slice/job.scope": inner(),
		}, "/ci.slice"},
		{"the nearest has not the controller", "/ci.slice/a/b", map[string]map[string]string{
			"/": inner(), "/ci.slice": inner("cpu.max", "1 100000"), "/ci.slice/a": {"cgroup.controllers": "", "cgroup.subtree_control": ""}, "/ci.slice/a/b": {},
		}, "/ci.slice"},
		{"a limit between", "/ci.slice/a/b", map[string]map[string]string{
			"/": inner(), "/ci.slice": inner(), "/ci.slice/a": {"cgroup.controllers": "", "cgroup.subtree_control": "", "memory.high": "1000"}, "/ci.slice/a/b": {},
		}, "the controller"},
		{"a limit of its own", "/system.slice/run-1.service", map[string]map[string]string{
			"/": inner(), "/system.slice": inner(), "/system.slice/run-1.service": inner("memory.max", "1000\n"),
		}, "has a limit (memory.max)"},
		{"processors of its own", "/system.slice/run-1.service", map[string]map[string]string{
			"/": inner(), "/system.slice": inner(), "/system.slice/run-1.service": inner("cpuset.cpus", "0-1\n"),
		}, "has a limit (cpuset.cpus)"},
		{"a login session", "/user.slice/user-0.slice/session-7.scope", map[string]map[string]string{
			"/": inner(), "/user.slice": inner(), "/user.slice/user-0.slice": inner(), "/user.slice/user-0.slice/session-7.scope": inner(),
		}, "/"},
		{"a limited user's session", "/user.slice/user-0.slice/session-7.scope", map[string]map[string]string{
			"/": inner(), "/user.slice": inner(), "/user.slice/user-0.slice": inner("memory.max", "1000\n"), "/user.slice/user-0.slice/session-7.scope": inner(),
		}, "/user.slice/user-0.slice"},
		{"a session of a system in a container", "/c/user.slice/user-0.slice/session-7.scope", map[string]map[string]string{
			"/": inner(), "/c": inner("memory.max", "1000\n"), "/c/user.slice": inner(), "/c/user.slice/user-0.slice": inner(), "/c/user.slice/user-0.slice/session-7.scope": inner(),
		}, "/c"},
		{"a group that is not here", "/docker/1234", map[string]map[string]string{"/": inner()}, "cannot be seen here"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := fake(t, tt.groups)
			h.Own = tt.own
			must, err := h.make("m", Limits{CPUs: 1}, Limits{})
			if !strings.HasPrefix(tt.want, "/") {
				require.ErrorIs(t, err, ErrLimit)
				require.ErrorContains(t, err, tt.want)
				wish, err := h.make("m", Limits{}, Limits{CPUs: 1})
				require.NoError(t, err)
				require.Nil(t, wish, "a wish moves nobody out")
				return
			}
			require.NoError(t, err)
			require.Equal(t, filepath.Join(h.dir(tt.want), "m"), must.Path)
			wish, err := h.make("w", Limits{}, Limits{CPUs: 1})
			require.NoError(t, err)
			require.Equal(t, filepath.Join(h.dir(tt.want), "w"), wish.Path)
		})
	}
}

func TestDevices(t *testing.T) {
	sys := t.TempDir()
	_, err := diskNumber(sys, "/dev/null")
	require.ErrorContains(t, err, "not a block device")
	_, err = diskNumber(sys, "/dev/none")
	require.ErrorIs(t, err, os.ErrNotExist)
	require.ErrorContains(t, Limits{IO: []IO{{Device: "/dev/none"}}}.CheckIO(), "/dev/none")

	// A node is enough: nobody opens it.
	node := filepath.Join(t.TempDir(), "sdz1")
	if err := unix.Mknod(node, unix.S_IFBLK|0o600, int(unix.Mkdev(259, 7))); err != nil {
		t.Skip("to make a device node needs root: ", err)
	}
	l := Limits{IO: []IO{{Device: node, ReadBPS: 1 << 20, WriteIOPS: 10}}}
	list, err := l.settings(sys)
	require.NoError(t, err)
	require.Equal(t, []setting{{"io", "io.max", "259:7 rbps=1048576 wiops=10"}}, list)

	require.NoError(t, os.MkdirAll(sys+"/devices/sdz/sdz1", 0o700))
	require.NoError(t, os.WriteFile(sys+"/devices/sdz/sdz1/partition", []byte("1\n"), 0o600))
	require.NoError(t, os.MkdirAll(sys+"/dev/block", 0o700))
	require.NoError(t, os.Symlink("../../devices/sdz/sdz1", sys+"/dev/block/259:7"))
	_, err = l.settings(sys)
	require.ErrorContains(t, err, "name /dev/sdz")
}

// TestQuotas: never less than the kernel takes, and never more than asked for.
func TestQuotas(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cpus := rapid.Float64Range(0.01, 64).Draw(t, "cpus")
		list, err := Limits{CPUs: cpus}.settings("/sys")
		require.NoError(t, err)
		var quota, per float64
		_, err = fmt.Sscan(list[0].text, &quota, &per)
		require.NoError(t, err)
		require.GreaterOrEqual(t, quota, float64(minQuota))
		require.InDelta(t, cpus, quota/per, 1.0/period)
	})
}

func TestWeights(t *testing.T) {
	for shares, weight := range map[uint64]uint64{0: 1, 2: 1, 1024: 39, 262144: 10000, 1 << 40: 10000} {
		require.Equal(t, weight, WeightOf(shares), shares)
	}
}

var realLimits = Limits{CPUs: 0.5, Weight: 200, Memory: 256 << 20, Tasks: 500}

// joined starts a process in a group that holds it to realLimits, where this host lets us, as
// the lab does.
func joined(t *testing.T, name string) (cmd *exec.Cmd, stdin io.Closer, path string) {
	t.Helper()
	g, err := Host().make(name, realLimits, Limits{})
	if err != nil {
		require.ErrorIs(t, err, ErrLimit)
		t.Skip(err)
	}
	require.NoError(t, Remove(g.Path))
	self, err := os.Executable()
	require.NoError(t, err)
	cmd = exec.Command(self)
	cmd.Env = append(os.Environ(), joinVariable+"="+name)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = Remove(g.Path) })
	path, err = bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	return cmd, in, strings.TrimSpace(path)
}

func TestAProcessJoinsAndLeaves(t *testing.T) {
	cmd, in, path := joined(t, fmt.Sprintf("husk-test-%d", os.Getpid()))
	require.Equal(t, "50000 100000", read(t, path, "cpu.max"))
	require.Equal(t, "200", read(t, path, "cpu.weight"))
	require.Equal(t, "268435456", read(t, path, "memory.max"))
	require.Equal(t, "500", read(t, path, "pids.max"))
	require.Equal(t, fmt.Sprint(cmd.Process.Pid), read(t, path, "cgroup.procs"))
	Host().Sweep("husk-test-")
	require.DirExists(t, path, "somebody is in it")
	require.NoError(t, in.Close())
	require.NoError(t, cmd.Wait())
	require.NoDirExists(t, path)
}

// TestWhatAKilledProcessLeaves is swept away.
func TestWhatAKilledProcessLeaves(t *testing.T) {
	cmd, _, path := joined(t, fmt.Sprintf("husk-kill-%d", os.Getpid()))
	require.NoError(t, cmd.Process.Kill())
	require.Error(t, cmd.Wait())
	require.DirExists(t, path)
	Host().Sweep("husk-other-")
	require.DirExists(t, path)
	require.Eventually(t, func() bool {
		Host().Sweep("husk-kill-")
		_, err := os.Stat(path)
		return os.IsNotExist(err)
	}, 10*time.Second, 10*time.Millisecond)
}
