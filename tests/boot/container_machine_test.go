package boot

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/boot/rootfs"
	"github.com/huskvm/husk/devices/disk"
	"github.com/huskvm/husk/internal/agent"
	"github.com/huskvm/husk/internal/guestinit"
	"github.com/huskvm/husk/internal/guestinit/spec"
	"github.com/huskvm/husk/vmm"
)

// An entry is one of a test's root.
type entry struct {
	name, content string // of a link, where it leads
	kind          byte
	mode          int64
}

// smallRoot is a root with busybox, and some of what is odd in images.
func smallRoot(t *testing.T) []entry {
	t.Helper()
	busybox, err := exec.LookPath("busybox")
	require.NoError(t, err, "tests/install images installs it")
	program, err := os.ReadFile(busybox)
	require.NoError(t, err)
	dir := func(name string, mode int64) entry { return entry{name, "", tar.TypeDir, mode} }
	file := func(name, content string, mode int64) entry { return entry{name, content, tar.TypeReg, mode} }
	link := func(name, to string) entry { return entry{name, to, tar.TypeSymlink, 0o777} }
	list := []entry{
		dir(".", 0o755), dir("bin", 0o755), file("bin/busybox", string(program), 0o755),
		dir("etc", 0o755), dir("root", 0o700), dir("home", 0o755), dir("data", 0o750), dir("tmp", 0o1777), dir("private", 0o700),
		file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33::/home:/bin/sh\n", 0o644),
		file("etc/group", "root:x:0:\ntty:x:5:\nweb:x:33:\nlogs:x:44:web\nextra:x:50:\n", 0o644),
		file("etc/hostname", "of the image\n", 0o644),
		link("etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf"), link("var-run", "/run"), link("outside", "../../../../../etc"),
		file("plain", "text\n", 0o644), file("garbage", "\x7fELF garbage", 0o755), file("noshell", "#!/no/such\n", 0o755),
	}
	for _, name := range strings.Fields("sh cat echo id env ps ls mount hostname sleep stty tty kill true false pwd ping nslookup ip df stat readlink touch wc head dd sync test mkdir grep ulimit seq chmod poweroff awk nc dmesg umount") {
		list = append(list, link("bin/"+name, "busybox"))
	}
	return list
}

// rootDisk makes the disk of a root.
func rootDisk(t *testing.T, entries []entry) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Typeflag: e.kind, Mode: e.mode, ModTime: time.Unix(1e9, 0)}
		if e.kind == tar.TypeSymlink {
			h.Linkname = e.content
		} else {
			h.Size = int64(len(e.content))
		}
		require.NoError(t, w.WriteHeader(h))
		if e.kind == tar.TypeReg {
			_, err := io.WriteString(w, e.content)
			require.NoError(t, err)
		}
	}
	require.NoError(t, w.Close())
	f, err := os.Create(filepath.Join(t.TempDir(), "root.img"))
	require.NoError(t, err)
	defer f.Close()
	_, err = rootfs.Build(t.Context(), f, []rootfs.Layer{func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil }})
	require.NoError(t, err)
	return f.Name()
}

// rootSerial and upperSerial are the disks' serial numbers.
const (
	rootSerial  = "husk-root"
	upperSerial = "husk-upper"
)

// A box is a machine with a container.
type box struct {
	t       *testing.T
	calls   *agent.Calls
	vm      *vmm.VM
	console watched
	ended   chan *vmm.Result
	close   func()
	log     func(what string) // with the time
}

// startBox boots a machine with a container. cfg has its disks but the root's, its
// networks and its shares.
func startBox(t *testing.T, root string, c spec.Container, cfg vmm.Config) *box {
	t.Helper()
	need(t)
	const flavour = "cloud"
	c.Root = spec.Disk{Serial: rootSerial, FileSystem: rootfs.FileSystem}
	needs := guestinit.Needs{FileSystems: []string{rootfs.FileSystem}, Volumes: len(cfg.Shares) > 0, Network: len(cfg.Networks) > 0}
	if c.Upper != nil {
		needs.FileSystems = append(needs.FileSystems, c.Upper.FileSystem)
	}
	kernelFile := kernel(t, flavour, "vmlinuz")
	list, err := guestinit.ContainerModules(kernelFile, "", needs)
	require.NoError(t, err)
	var b bytes.Buffer
	require.NoError(t, guestinit.Initramfs(&b, guestinit.Options{
		Init:    spec.Init{Guest: &spec.Guest{Port: spec.GuestPort}, Container: &c},
		Modules: list,
	}))
	init := filepath.Join(t.TempDir(), "init.cpio")
	require.NoError(t, os.WriteFile(init, b.Bytes(), 0o600))
	k, kcloser, err := vmm.OpenSource(kernelFile)
	require.NoError(t, err)
	defer kcloser.Close()
	i, icloser, err := vmm.OpenSource(init)
	require.NoError(t, err)
	defer icloser.Close()
	x := &box{t: t, ended: make(chan *vmm.Result, 1)}
	cfg.Kernel, cfg.Initrds = k, append(cfg.Initrds, i)
	cfg.CommandLine, cfg.Append = vmm.DefaultCommandLine, "quiet "+cfg.Append
	cfg.Disks = append(cfg.Disks, disk.Spec{File: root, Format: disk.Raw, ReadOnly: true, Serial: rootSerial})
	cfg.Vsock = &vmm.Vsock{CID: 3}
	cfg.Serial = &vmm.Serial{Out: &x.console}
	x.vm, err = vmm.New(cfg)
	require.NoError(t, err)
	l, err := x.vm.ListenVsock(spec.GuestPort)
	require.NoError(t, err)
	x.calls = agent.Answer(l)
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	began := time.Now()
	x.log = func(what string) { t.Logf("%.2f s: %s", time.Since(began).Seconds(), what) }
	go func() {
		r, err := x.vm.Run(ctx)
		if err != nil {
			t.Error(err)
		}
		x.ended <- r
		close(x.ended)
	}()
	x.close = sync.OnceFunc(func() {
		cancel()
		<-x.ended
		x.calls.Close()
		if err := x.vm.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the console:\n%s", &x.console)
		}
	})
	t.Cleanup(x.close)
	return x
}

// client is the agent's.
func (x *box) client() *agent.Client {
	x.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	go func() { // a machine that has ended does not call
		select {
		case r, ok := <-x.ended:
			if ok {
				x.ended <- r
			}
			cancel()
		case <-ctx.Done():
		}
	}()
	c, err := x.calls.Client(ctx)
	require.NoError(x.t, err, "%s", &x.console)
	return c
}

// A finished command.
type finished struct {
	end            agent.End
	stdout, stderr string
}

// do runs a command to its end.
func (x *box) do(cmd agent.Command) finished {
	x.t.Helper()
	c := x.client()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	var out, errs watched
	cmd.Stdout, cmd.Stderr = &out, &errs
	end, err := c.RunToEnd(ctx, cmd)
	require.NoError(x.t, err, "%s", &x.console)
	return finished{end, out.String(), errs.String()}
}

// sh runs a line in the container.
func (x *box) sh(line string) string {
	x.t.Helper()
	f := x.do(agent.Command{Argv: []string{"sh", "-c", line}})
	require.Zero(x.t, f.end.Code, "%s\n%s\n%s", line, f.stdout, f.stderr)
	return f.stdout
}

// A main is a container's main command that runs.
type mainCommand struct {
	out, errs watched
	signals   chan os.Signal
	stdin     *io.PipeWriter
	end       agent.End
	done      sync.WaitGroup
}

// main starts the main command, and waits until it has said ready.
func (x *box) main(line string) *mainCommand {
	x.t.Helper()
	c := x.client()
	m := &mainCommand{signals: make(chan os.Signal, 1)}
	in, stdin := io.Pipe()
	m.stdin = stdin
	m.done.Go(func() {
		defer in.Close()
		end, err := c.RunToEnd(context.Background(), agent.Command{
			Argv: []string{"sh", "-c", line}, Stdin: in, Stdout: &m.out, Stderr: &m.errs, Signals: m.signals,
		})
		if err != nil {
			x.t.Logf("the main command: %v", err)
		}
		m.end = end
	})
	x.log("the agent has called")
	require.Eventually(x.t, func() bool { return strings.Contains(m.out.String(), "ready\n") }, deadline, 10*time.Millisecond,
		"%s\n%s", &m.errs, &x.console)
	x.log("the main command is ready")
	return m
}

// powerOff has the guest power off by itself.
func (x *box) powerOff() {
	x.t.Helper()
	require.NoError(x.t, x.client().PowerOff(context.Background()))
	x.hasPoweredOff()
}

func (x *box) hasPoweredOff() {
	x.t.Helper()
	select {
	case r, ok := <-x.ended:
		x.log("the machine has ended")
		require.True(x.t, ok)
		require.Equal(x.t, vmm.PowerOff, r.Outcome, "%v\n%s", r, &x.console)
	case <-time.After(deadline):
		require.Fail(x.t, "it does not power off", "%s", &x.console)
	}
}
