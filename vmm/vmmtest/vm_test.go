package vmmtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/huskvm/husk/internal/smoke/console"
	"github.com/huskvm/husk/vmm"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// TestAGuest: all that one can do with one guest.
func TestAGuest(t *testing.T) {
	Need(t)
	ctx := t.Context()
	vm := Start(t, Config{})
	version := vm.Expect(`Linux version (\S+)`)
	require.Len(t, version, 2)
	require.Contains(t, vm.Serial(), version[0])

	out := vm.Run(ctx, "uname")
	require.Zero(t, out.Code, "%v", out)
	require.Contains(t, out.Stdout, version[1])
	require.Equal(t, 127, vm.Run(ctx, "no-such-program").Code)

	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(dir+"/in/sub", 0o755))
	require.NoError(t, os.WriteFile(dir+"/in/sub/file", []byte("there and back\n"), 0o644))
	vm.Copy(ctx, dir+"/in", "/data/in")
	require.Equal(t, "there and back\n", vm.Run(ctx, "cat", "/data/in/sub/file").Stdout)
	vm.CopyOut(ctx, "/data/in/sub", dir+"/out")
	text, err := os.ReadFile(filepath.Join(dir, "out", "file"))
	require.NoError(t, err)
	require.Equal(t, "there and back\n", string(text))

	_, err = vm.RunCommand(ctx, Command{Argv: []string{"cat"}, Stdin: strings.NewReader("x")})
	require.NoError(t, err)
	vm.PowerOff()
	require.Equal(t, vmm.PowerOff, vm.Wait().Outcome)
	_, err = vm.RunCommand(ctx, Command{Argv: []string{"echo"}})
	require.ErrorContains(t, err, "the guest has ended: power-off")
}

// TestTheButton: the guest has the drivers for it.
func TestTheButton(t *testing.T) {
	Need(t)
	t.Parallel()
	vm := Start(t, Config{Append: "quiet"})
	require.Zero(t, vm.Run(t.Context(), "echo").Code)
	vm.PowerButton()
	require.Equal(t, vmm.PowerOff, vm.Wait().Outcome)
}

// TestAPanicIsNotWaitedFor: it ends an Expect and a Run at once.
func TestAPanicIsNotWaitedFor(t *testing.T) {
	Need(t)
	t.Parallel()
	vm := Start(t, Config{Append: "panic=0"})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	require.Zero(t, vm.Run(ctx, "echo").Code)
	_, err := vm.RunCommand(ctx, Command{Argv: []string{"panic"}})
	require.ErrorContains(t, err, "panic")
	require.NoError(t, ctx.Err())
}

// A recorder is a test that is looked at by another one.
type recorder struct {
	testing.TB
	mu       sync.Mutex
	log      strings.Builder
	failed   bool
	cleanups []func()
}

func (r *recorder) Helper()           {}
func (r *recorder) Cleanup(f func())  { r.cleanups = append(r.cleanups, f) }
func (r *recorder) Failed() bool      { return r.failed }
func (r *recorder) Output() io.Writer { return io.Discard }

func (r *recorder) Logf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Fprintf(&r.log, format+"\n", args...)
}

func (r *recorder) Errorf(format string, args ...any) {
	r.failed = true
	r.Logf(format, args...)
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	runtime.Goexit()
}

// record is what a test says.
func record(t *testing.T, f func(t testing.TB)) string {
	r := &recorder{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			for _, f := range slices.Backward(r.cleanups) {
				f()
			}
		}()
		f(r)
	}()
	<-done
	return r.log.String()
}

// TestFailuresTell what was on the console.
func TestFailuresTell(t *testing.T) {
	Need(t)
	t.Parallel()
	log := record(t, func(t testing.TB) {
		vm := Start(t, Config{})
		vm.Run(context.Background(), "panic")
	})
	require.Contains(t, log, `run ["panic"]: the guest has ended: guest-panic: Kernel panic - not syncing: sysrq triggered crash`)
	require.Contains(t, log, "the kernel has reported (panic):\n")
	require.Contains(t, log, "sysrq_handle_crash")
	require.Contains(t, log, "the end of the guest's console:\n")
	require.Contains(t, log, "the guest's console:\n")
	require.Contains(t, log, "Linux version")

	log = record(t, func(t testing.TB) {
		vm := Start(t, Config{Timeout: 15 * time.Second, Append: "quiet"})
		vm.Expect("what never comes")
	})
	require.Contains(t, log, "expect /what never comes/ is not on the console: the guest's time was up after 15s")
	require.Contains(t, log, "the guest's console")
}

// TestNoGuest: what keeps a guest from being started is said, with what to do.
func TestNoGuest(t *testing.T) {
	before := canBoot
	t.Cleanup(func() { canBoot = before })
	canBoot = func() error { return errors.New("/dev/kvm does not exist") }
	log := record(t, func(t testing.TB) { Start(t, Config{}) })
	require.Contains(t, log, "no guest: /dev/kvm does not exist; husk doctor says what to do; vmmtest.Need(t) skips")

	canBoot = func() error { return nil }
	t.Setenv("HUSK_KERNEL", "/nowhere/vmlinuz")
	log = record(t, func(t testing.TB) { Start(t, Config{}) })
	require.Contains(t, log, "no guest: kernel: ")
	require.Contains(t, log, "/nowhere/vmlinuz")
}

func TestTimeout(t *testing.T) {
	soon := func(d time.Duration) time.Time { return time.Now().Add(d) }
	require.Equal(t, defaultTimeout, Config{}.timeout(time.Time{}, false))
	require.Equal(t, time.Second, Config{Timeout: time.Second}.timeout(soon(time.Hour), true))
	require.InDelta(t, time.Minute-reserve, Config{}.timeout(soon(time.Minute), true), float64(time.Second))
	require.InDelta(t, 5*time.Second, Config{}.timeout(soon(10*time.Second), true), float64(time.Second))
}

func TestOutputsAreReadable(t *testing.T) {
	out := Output{Argv: []string{"ls", "/x"}, Stderr: "ls: /x: no such file\n", Code: 1}
	require.Equal(t, "ls /x: exit code 1\nstderr:\nls: /x: no such file\n", out.String())
	lines := []console.Line{{Text: "a"}, {End: 1500 * time.Millisecond, Text: "b\xff"}}
	require.Equal(t, "   … 1 lines before …\n    1.500  b\uFFFD\n", lastLines(lines, 1))
}
