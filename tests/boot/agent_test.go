package boot

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/boot/modules"
	"github.com/huskvm/husk/internal/agent"
	"github.com/huskvm/husk/internal/guestinit"
	"github.com/huskvm/husk/internal/guestinit/spec"
	"github.com/huskvm/husk/tests/faults"
)

// commandInitrd is husk-init as one that runs commands, before then if that is not "".
// modules are where guestinit.Modules looks.
func commandInitrd(t *testing.T, kernel, modules, then string) string {
	t.Helper()
	o := guestinit.Options{Init: spec.Init{Guest: &spec.Guest{Port: spec.GuestPort, Then: then}}}
	var extra []string
	if then == "" {
		extra = []string{"pvpanic_mmio", "button", "evdev"}
	} else {
		o.Path = "husk-init"
	}
	var err error
	o.Modules, err = guestinit.Modules(kernel, modules, extra...)
	require.NoError(t, err)
	var b bytes.Buffer
	require.NoError(t, guestinit.Initramfs(&b, o))
	path := filepath.Join(t.TempDir(), "husk.cpio")
	require.NoError(t, os.WriteFile(path, b.Bytes(), 0o600))
	return path
}

// A commanded guest runs commands over its vsock.
type commanded struct {
	*guest
	*agent.Client
	t        *testing.T
	listener net.Listener
}

// command starts a guest whose agent is connected to.
func command(t *testing.T, flags ...string) *commanded {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "vsock")
	l, err := net.Listen("unix", fmt.Sprint(socket, "_", spec.GuestPort))
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	c := &commanded{guest: launch(t, append(flags, "--vsock", socket)...), t: t, listener: l}
	c.connect()
	return c
}

// connect takes the agent's next connection.
func (c *commanded) connect() {
	c.t.Helper()
	require.NoError(c.t, c.listener.(*net.UnixListener).SetDeadline(time.Now().Add(deadline)))
	conn, err := c.listener.Accept()
	require.NoError(c.t, err, "the agent does not come\n%s\n%s", &c.stderr, &c.stdout)
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	c.Client, err = agent.Connect(ctx, conn)
	require.NoError(c.t, err)
	c.t.Cleanup(func() { _ = c.Close() })
}

// run runs a command, and returns its exit code and what it wrote.
func (c *commanded) run(stdin io.Reader, argv ...string) (code int, stdout, stderr string) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	var out, errs bytes.Buffer
	code, err := c.Run(ctx, agent.Command{Argv: argv, Stdin: stdin, Stdout: &out, Stderr: &errs})
	require.NoError(c.t, err, argv)
	return code, out.String(), errs.String()
}

// must runs a command that succeeds.
func (c *commanded) must(argv ...string) string {
	c.t.Helper()
	code, out, errs := c.run(nil, argv...)
	require.Zero(c.t, code, "%s\n%s%s", argv, out, errs)
	return out
}

// TestCommandsInAGuestOfNothing: husk-init alone is enough to run commands, its own and
// those that are brought.
func TestCommandsInAGuestOfNothing(t *testing.T) {
	for name, flags := range map[string][]string{"PCI": nil, "MMIO": {"--transport", "mmio"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := kernel(t, "cloud", "vmlinuz")
			c := command(t, append(flags, "-k", k, "-i", commandInitrd(t, k, "", ""), "-m", "256M", "-a", "quiet")...)
			testCommands(t, c)

			require.NoError(t, c.PowerOff(t.Context()))
			r := c.wait(t)
			r.wantCode(t, 0)
			require.Contains(t, r.stdout, "reboot: Power down")
		})
	}
}

func testCommands(t *testing.T, c *commanded) {
	require.Equal(t, "hi there\n", c.must("echo", "hi", "there"))
	require.Contains(t, c.must("mount"), " /dev/shm tmpfs ")
	require.Contains(t, c.must("cat", "/proc/self/mounts"), " /proc proc ")
	require.Contains(t, c.must("cat", "/sys/class/net/lo/operstate", "/sys/class/net/lo/flags"), "0x9", "lo is up")

	code, out, errs := c.run(strings.NewReader("from here"), "sh", "-c", "cat; nonesuch || exit 7")
	require.Equal(t, 7, code)
	require.Equal(t, "from here", out)
	require.Contains(t, errs, "nonesuch: no such command")
	code, _, errs = c.run(nil, "nonesuch")
	require.Equal(t, agent.CodeNotFound, code)
	require.Equal(t, "exec: \"nonesuch\": executable file not found in $PATH\n", errs)

	signals := make(chan os.Signal, 1)
	signals <- syscall.SIGTERM
	code, err := c.Run(t.Context(), agent.Command{Argv: []string{"sleep", "1000"}, Signals: signals})
	require.NoError(t, err)
	require.Equal(t, 128+int(syscall.SIGTERM), code)

	var terminal bytes.Buffer
	code, err = c.Run(t.Context(), agent.Command{
		Argv: []string{"sh"}, Stdin: strings.NewReader("exit 3\n"), Stdout: &terminal, TTY: true,
	})
	require.NoError(t, err)
	require.Equal(t, 3, code)
	require.Contains(t, terminal.String(), "husk# ")

	// A program there, by a tar, and its output back.
	there := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(there, "opt/bin"), 0o755))
	program, err := guestinit.Binary()
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(there, "opt/bin/tool"), program, 0o755))
	big := make([]byte, 8<<20)
	_, _ = rand.Read(big)
	require.NoError(t, os.WriteFile(filepath.Join(there, "opt/big"), big, 0o600))
	require.NoError(t, os.Symlink("bin/tool", filepath.Join(there, "opt/link")))
	root, err := os.OpenRoot(there)
	require.NoError(t, err)
	defer root.Close()
	r, w := io.Pipe()
	go func() { w.CloseWithError(agent.Pack(w, root, "opt")) }()
	require.NoError(t, c.Upload(t.Context(), "/", r))
	require.Equal(t, "brought\n", c.must("/opt/link", "builtin", "echo", "brought"))

	back, err := os.OpenRoot(t.TempDir())
	require.NoError(t, err)
	defer back.Close()
	r, w = io.Pipe()
	go func() { w.CloseWithError(c.Download(t.Context(), "/opt", w)) }()
	require.NoError(t, agent.Unpack(back, r))
	same, err := back.ReadFile("opt/big")
	require.NoError(t, err)
	require.True(t, bytes.Equal(big, same))
	info, err := back.Lstat("opt/bin/tool")
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o755), info.Mode())

	err = c.Download(t.Context(), "/none", io.Discard)
	require.ErrorIs(t, err, agent.ErrFiles)
	require.ErrorContains(t, err, "none: no such file or directory")

	// A connection that ends takes its commands with it, and another one comes.
	running := make(chan struct{})
	go func() {
		defer close(running)
		_, _ = c.Run(context.Background(), agent.Command{Argv: []string{"sleep", "4321"}})
	}()
	require.Eventually(t, func() bool { return strings.Contains(c.must("ps"), "sleep 4321") }, deadline, 100*time.Millisecond)
	require.NoError(t, c.Close())
	<-running
	c.connect()
	require.NotContains(t, c.must("ps"), "sleep 4321")
}

// TestTheButtonOfACommandedGuest: what the host's user does works as well.
func TestTheButtonOfACommandedGuest(t *testing.T) {
	t.Parallel()
	k := kernel(t, "cloud", "vmlinuz")
	c := command(t, "-k", k, "-i", commandInitrd(t, k, "", ""), "-m", "256M", "-a", "quiet")
	require.NoError(t, c.cmd.Process.Signal(syscall.SIGTERM))
	r := c.wait(t)
	r.wantCode(t, 0)
	require.Contains(t, r.stdout, "the power button was pressed")
}

// troubleInitrd is husk-init with a module for each fault, /bad/FAULT.ko.
func troubleInitrd(t *testing.T, flavour string) string {
	t.Helper()
	dir := t.TempDir()
	load := func(names ...string) []modules.Module {
		list, err := guestinit.Choose(kernel(t, flavour, "vmlinuz"), "", names, nil)
		require.NoError(t, err)
		return list
	}
	victim, err := load(faults.Victim)[0].Read()
	require.NoError(t, err)
	o := guestinit.Options{Modules: load("pvpanic_mmio", "button", "evdev"), Extra: map[string]string{}}
	for _, f := range faults.All() {
		ko, err := faults.Module(victim, f)
		require.NoError(t, err)
		file := filepath.Join(dir, string(f)+".ko")
		require.NoError(t, os.WriteFile(file, ko, 0o600))
		o.Extra["/bad/"+filepath.Base(file)] = file
	}
	var b bytes.Buffer
	require.NoError(t, guestinit.Initramfs(&b, o))
	path := filepath.Join(dir, "trouble.cpio")
	require.NoError(t, os.WriteFile(path, b.Bytes(), 0o600))
	return path
}

// bad is the command line that loads a module that fails.
func bad(fault faults.Fault) string {
	return fmt.Sprintf(`husk.run="insmod /bad/%s.ko; echo so much for %[1]s"`, fault)
}

// TestTroubleToOrder: what a guest can be had to do wrong, beside what smoke tests
// find.
func TestTroubleToOrder(t *testing.T) {
	initrds := map[string]string{}
	for _, flavour := range []string{"cloud", "generic"} {
		initrds[flavour] = troubleInitrd(t, flavour)
	}
	for _, tt := range []struct {
		flavour, args string
		code          int
		want          string
	}{
		{"cloud", "husk.do=exit-init husk.code=3", 123, "Attempted to kill init! exitcode=0x00000300"},
		{"cloud", "husk.do=oom sysctl.vm.panic_on_oom=1", 123, "Out of memory"},
		{"generic", bad(faults.Bug) + " oops=panic", 123, "Fatal exception"},
		{"generic", bad(faults.Warn) + " loglevel=5", 0, "WARNING: CPU: 0 PID: "},
	} {
		t.Run(tt.flavour+" "+tt.args, func(t *testing.T) {
			t.Parallel()
			r := husk(t, nil, "boot", "--accel=kvm", "-k", kernel(t, tt.flavour, "vmlinuz"), "-i", initrds[tt.flavour], "-m", "256M", "-a", "quiet "+tt.args)
			r.wantCode(t, tt.code)
			require.Contains(t, r.stdout, tt.want)
		})
	}
}
