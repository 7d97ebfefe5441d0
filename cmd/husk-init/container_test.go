package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/internal/agent"
	"github.com/huskvm/husk/internal/guestinit/inroot"
	"github.com/huskvm/husk/internal/guestinit/spec"
)

func TestFindDisk(t *testing.T) {
	sys := t.TempDir()
	disk := func(name, serial string) {
		dir := filepath.Join(sys, "block", name)
		require.NoError(t, os.MkdirAll(dir, 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "serial"), []byte(serial), 0o600))
	}
	_, err := findDisk(sys, "root", time.Now())
	require.ErrorContains(t, err, `"root"; the kernel sees: none;`)
	disk("vda", "data")
	disk("vdb", "root\n")
	disk("sda", "other")
	got, err := findDisk(sys, "root", time.Now().Add(time.Hour))
	require.NoError(t, err)
	require.Equal(t, "/dev/vdb", got)
	_, err = findDisk(sys, "other", time.Now())
	require.ErrorContains(t, err, `the kernel sees: vda "data", vdb "root";`)
}

func TestSysctlFile(t *testing.T) {
	for name, want := range map[string]string{
		"net.core.somaxconn":              "/proc/sys/net/core/somaxconn",
		"net.ipv4.conf.eth0/1.forwarding": "/proc/sys/net/ipv4/conf/eth0.1/forwarding",
		"//.//.etc.passwd":                "/proc/sys/etc/passwd",
		"../../etc/passwd":                "/proc/sys/.etc.passwd",
	} {
		require.Equal(t, want, sysctlFile(name), name)
	}
}

// again runs a test function of this binary once more, in namespaces of its own, where
// it may mount. It is for the process to say what fails, by ending with a code.
func again(t *testing.T) (child bool) {
	t.Helper()
	const mark = "HUSK_TEST_IN_NAMESPACE"
	if os.Getenv(mark) != "" {
		return true
	}
	cmd := exec.Command(self, "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), mark+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWUSER}
	cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
	cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	out, err := cmd.CombinedOutput()
	if cmd.Process == nil {
		t.Skipf("namespaces cannot be made here: %v", err)
	}
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "--- PASS: "+t.Name(), "%s", out)
	return false
}

// TestMountsGoWhereTheRootSays mounts in a root with links and with folders that are
// there, and that are not.
func TestMountsGoWhereTheRootSays(t *testing.T) {
	if !again(t) {
		return
	}
	dir := t.TempDir()
	require.NoError(t, unix.Mount("tmpfs", dir, "tmpfs", 0, ""))
	defer func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }()
	for _, d := range []string{"etc", "data", "new"} {
		require.NoError(t, os.Mkdir(filepath.Join(dir, d), 0o750))
	}
	require.NoError(t, os.Symlink("../run/resolv.conf", filepath.Join(dir, "etc/resolv.conf")))
	require.NoError(t, os.Symlink("/data", filepath.Join(dir, "link")))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o600))
	etc, err := makeEtcFiles(filepath.Join(t.TempDir(), "etc"))
	require.NoError(t, err)
	root, err := inroot.Open(dir)
	require.NoError(t, err)
	defer root.Close()

	c := &container{etc: etc, spec: &spec.Container{Mounts: []spec.Mount{
		{Target: "/link/deep/er", Options: "size=1m,exec"}, // in the one that follows, which is less deep
		{Target: "link/", Options: "size=2m"},
		{Target: "/new/one", Options: "mode=700", ReadOnly: true},
	}}}
	require.NoError(t, mountPlaces(root, c.asked(nil)))
	require.NoError(t, etc.write("/etc/resolv.conf", []byte("nameserver 192.0.2.1\n")))

	b, err := os.ReadFile(filepath.Join(dir, "run/resolv.conf"))
	require.NoError(t, err)
	require.Equal(t, "nameserver 192.0.2.1\n", string(b))
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	require.NoError(t, err)
	at := func(name string) string {
		for _, l := range strings.Split(string(mounts), "\n") {
			if strings.Contains(l, " "+filepath.Join(dir, name)+" ") {
				return l
			}
		}
		return ""
	}
	require.Regexp(t, `rw,nosuid,nodev,noexec,.*size=2048k,mode=750`, at("data"))
	require.Regexp(t, `rw,nosuid,nodev,rel.*size=1024k`, at("data/deep/er"))
	require.Regexp(t, `ro,.*mode=700`, at("new/one"))
	require.NotEmpty(t, at("etc/hosts"))

	c.spec.Mounts = []spec.Mount{{Target: "/file"}}
	require.EqualError(t, mountPlaces(root, c.asked(nil)), "mount /file: not a directory")
	c.spec.Mounts = []spec.Mount{{Target: "/x", Options: "nonesuch"}}
	require.ErrorContains(t, mountPlaces(root, c.asked(nil)), `mount /x: tmpfs option "nonesuch"`)
	// What a user mounts is in place of what would be there.
	c.spec.Mounts = []spec.Mount{{Target: "/etc//hosts"}, {Target: "/dev/shm", Options: "size=1m"}}
	list := c.asked(c.standard())
	count := map[string]int{}
	for _, p := range list {
		count[p.target]++
	}
	require.Equal(t, 1, count["/dev/shm"])
	require.Equal(t, 1, count["/etc/hosts"])
	require.Equal(t, 1, count["/etc/hostname"])
}

// becomeThere has the process become a program, from its own mounts.
func becomeThere(f *first, p *agent.Program) (proc *os.Process, err error) {
	mounts, err := os.Open(f.namespace("mnt"))
	if err != nil {
		return nil, err
	}
	defer mounts.Close()
	err = onThread(func() (err error) {
		if err = enterMounts(mounts); err == nil {
			proc, err = f.become(p)
		}
		return err
	})
	return proc, err
}

// TestFirst has a process wait in namespaces of its own, and become a program there.
func TestFirst(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root may make namespaces without a user's")
	}
	f, err := startFirst()
	if err != nil {
		t.Skipf("namespaces cannot be made here: %v", err)
	}
	defer f.conn.Close()
	require.False(t, f.isRunning())
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	require.NoError(t, err)
	defer null.Close()
	sh, err := exec.LookPath("sh")
	require.NoError(t, err)
	proc, err := becomeThere(f, &agent.Program{
		Path: sh, Argv: []string{"sh", "-c", `echo $$ $A; pwd; id -u; id -g; id -G; ls /proc | grep -c '^[0-9]'; exit 7`},
		Env: []string{"A=b", "PATH=" + os.Getenv("PATH")}, Dir: "/tmp",
		User:  &syscall.Credential{Uid: 1234, Gid: 77, Groups: []uint32{77, 9}},
		Files: [3]*os.File{null, w, null},
	})
	_ = w.Close()
	require.NoError(t, err)
	require.True(t, f.isRunning())
	var b strings.Builder
	buf := make([]byte, 4096)
	for {
		n, err := r.Read(buf)
		b.Write(buf[:n])
		if err != nil {
			break
		}
	}
	state, err := proc.Wait()
	require.NoError(t, err)
	require.Equal(t, 7, state.ExitCode(), b.String())
	require.True(t, strings.HasPrefix(b.String(), "1 b\n/tmp\n1234\n77\n77 9\n"), b.String())

	_, err = f.become(&agent.Program{})
	require.ErrorContains(t, err, "has ended")

	for _, tt := range []struct {
		dir, path, want string
	}{
		{"/nowhere", sh, "the working directory: no such file or directory"},
		{"/", "/nowhere", "exec /nowhere: no such file or directory"},
	} {
		f, err := startFirst()
		require.NoError(t, err)
		_, err = becomeThere(f, &agent.Program{Path: tt.path, Argv: []string{"x"}, Dir: tt.dir, Files: [3]*os.File{null, null, null}})
		require.EqualError(t, err, tt.want)
		require.False(t, f.isRunning())
		_ = f.conn.Close()
	}
}

// TestMain lets this binary be a container's first process.
func TestMain(m *testing.M) {
	if os.Args[0] == firstName {
		_ = firstMain()
		os.Exit(1)
	}
	os.Exit(m.Run())
}
