package boot

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/boot/modules"
	"github.com/huskvm/husk/internal/guestinit"
	"github.com/huskvm/husk/vmm/vmmtest"
)

// deadline ends a boot that hangs. In the lab one takes some seconds, and that of a whole
// Debian half a minute, or several times that on a busy host.
const deadline = 5 * time.Minute

// need is bin/husk. It skips a test where no stock kernel boots, and fails it there
// if REQUIRE_KVM says that one must.
func need(t *testing.T) string {
	t.Helper()
	vmmtest.Need(t)
	path, err := filepath.Abs("../../bin/husk")
	require.NoError(t, err)
	require.FileExists(t, path, "make builds it")
	return path
}

func kernel(t *testing.T, flavour, image string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("../../build/kernels", flavour, image))
	require.NoError(t, err)
	require.FileExists(t, path, "make kernels fetches it")
	return path
}

// reserveHugePages sees to n huge pages of 2 MiB, or skips where it may not.
func reserveHugePages(t *testing.T, n int) {
	t.Helper()
	const file = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
	before, err := os.ReadFile(file)
	require.NoError(t, err)
	if err := os.WriteFile(file, []byte(strconv.Itoa(n)), 0o600); err != nil {
		t.Skip("huge pages cannot be reserved here:", err)
	}
	t.Cleanup(func() { _ = os.WriteFile(file, before, 0o600) })
}

// initrds are made once for each flavour of kernel.
var (
	initrdLock sync.Mutex
	initrds    = map[string]string{}
	initrdDir  string
)

func TestMain(m *testing.M) {
	code := m.Run()
	for _, dir := range []string{initrdDir, loadImages.dir} {
		if dir != "" {
			_ = os.RemoveAll(dir)
		}
	}
	os.Exit(code)
}

// initrd is husk-init with the modules for pvpanic and the power button.
func initrd(t *testing.T, flavour string) string {
	t.Helper()
	initrdLock.Lock()
	defer initrdLock.Unlock()
	if path, ok := initrds[flavour]; ok {
		return path
	}
	var err error
	if initrdDir == "" {
		initrdDir, err = os.MkdirTemp("", "husk-boot-test")
		require.NoError(t, err)
	}
	trees, err := filepath.Glob(filepath.Join("../../build/kernels", flavour, "lib/modules/*"))
	require.NoError(t, err)
	require.Len(t, trees, 1)
	list, err := modules.Open(trees[0])
	require.NoError(t, err)
	wanted, err := list.Resolve("pvpanic_mmio", "button", "evdev")
	require.NoError(t, err)
	var b bytes.Buffer
	require.NoError(t, guestinit.Initramfs(&b, guestinit.Options{Modules: wanted}))
	path := filepath.Join(initrdDir, flavour+".cpio")
	require.NoError(t, os.WriteFile(path, b.Bytes(), 0o600))
	initrds[flavour] = path
	return path
}

// A run is a husk that has ended.
type run struct {
	code           int
	stdout, stderr string
}

func (r run) wantCode(t *testing.T, want int) {
	t.Helper()
	require.Equal(t, want, r.code, "exit code\n--- stderr\n%s\n--- console, its end\n%s", r.stderr, tail(r.stdout))
}

func tail(s string) string {
	return s[max(0, len(s)-3000):]
}

// husk runs bin/husk to its end.
func husk(t *testing.T, stdin io.Reader, args ...string) run {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	cmd := exec.CommandContext(ctx, need(t), args...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &out, &errs
	err := cmd.Run()
	require.NoError(t, ctx.Err(), "it hangs\n--- stderr\n%s\n--- console, its end\n%s", &errs, tail(out.String()))
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		require.NoError(t, err)
	}
	return run{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
}

// boot boots a kernel with husk-init, which does what do says.
func boot(t *testing.T, flavour, image, do string, flags ...string) run {
	t.Helper()
	need(t)
	return husk(t, nil, append([]string{
		"boot", "--accel=kvm", "-k", kernel(t, flavour, image), "-i", initrd(t, flavour), "-m", "256M", "-a", "quiet husk.do=" + do,
	}, flags...)...)
}

// A guest is a husk that runs.
type guest struct {
	cmd            *exec.Cmd
	stdin          io.WriteCloser
	stdout, stderr watched
}

// watched is output that a test waits on.
type watched struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (w *watched) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buf.Write(p)
}

func (w *watched) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buf.String()
}

func start(t *testing.T, flavour, args string) *guest {
	t.Helper()
	return launch(t, "-k", kernel(t, flavour, "vmlinuz"), "-i", initrd(t, flavour), "-m", "256M", "-a", "quiet "+args)
}

// launch starts husk boot with flags.
func launch(t *testing.T, flags ...string) *guest {
	t.Helper()
	g := &guest{cmd: exec.Command(need(t), append([]string{"boot", "--accel=kvm"}, flags...)...)}
	g.cmd.Stdout, g.cmd.Stderr = &g.stdout, &g.stderr
	var err error
	g.stdin, err = g.cmd.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, g.cmd.Start())
	t.Cleanup(func() { _ = g.cmd.Process.Kill() })
	return g
}

func (g *guest) waitFor(t *testing.T, text string)      { g.await(t, &g.stdout, text) }
func (g *guest) waitForError(t *testing.T, text string) { g.await(t, &g.stderr, text) }

func (g *guest) await(t *testing.T, w *watched, text string) {
	t.Helper()
	for end := time.Now().Add(deadline); !strings.Contains(w.String(), text); time.Sleep(20 * time.Millisecond) {
		require.True(t, time.Now().Before(end), "%q does not come\n%s\n%s", text, &g.stderr, &g.stdout)
	}
}

func (g *guest) wait(t *testing.T) run {
	t.Helper()
	timer := time.AfterFunc(deadline, func() { _ = g.cmd.Process.Kill() })
	defer timer.Stop()
	_ = g.cmd.Wait()
	return run{g.cmd.ProcessState.ExitCode(), g.stdout.String(), g.stderr.String()}
}
