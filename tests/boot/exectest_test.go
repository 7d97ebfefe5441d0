package boot

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// inGuest is tests/inguest's test binary, and its package's folder.
func inGuest(t *testing.T, build string) (binary, dir string) {
	t.Helper()
	need(t)
	binary, err := filepath.Abs("../../build/guest/" + build)
	require.NoError(t, err)
	require.FileExists(t, binary, "make lab-test builds it")
	dir, err = filepath.Abs("../inguest")
	require.NoError(t, err)
	return binary, dir
}

// execTest is a husk exec-test as go test -exec calls it.
func execTest(t *testing.T, build string, flags []string, args ...string) *exec.Cmd {
	t.Helper()
	binary, dir := inGuest(t, build)
	flags = append([]string{"exec-test", "--accel=kvm", "-k", kernel(t, "cloud", "vmlinuz"), "--exclude", "*.bin"}, flags...)
	cmd := exec.Command(need(t), append(append(flags, binary), args...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PWD="+dir)
	return cmd
}

// ended runs a command to its end.
func ended(t *testing.T, cmd *exec.Cmd) run {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	timer := time.AfterFunc(deadline, func() {
		if cmd.Process != nil {
			_ = cmd.Process.Kill()
		}
	})
	defer timer.Stop()
	if err := cmd.Run(); err != nil {
		require.True(t, errors.As(err, new(*exec.ExitError)), "%v", err)
	}
	return run{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
}

// TestGoTestInAGuest: all that go test has of a test binary, it has of one in a guest.
func TestGoTestInAGuest(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	extra := filepath.Join(dir, "extra")
	require.NoError(t, os.WriteFile(extra, []byte("x"), 0o600))
	counters := filepath.Join(dir, "gocoverdir")
	require.NoError(t, os.Mkdir(counters, 0o755))
	cmd := execTest(t, "inguest.test", []string{"--include", extra, "--out", dir + "/made"},
		"-test.v", "-test.paniconexit0", "-test.timeout=10m0s", "-test.coverprofile="+dir+"/cover.out",
		"-test.gocoverdir="+counters, "-test.outputdir="+dir, "-test.cpuprofile=cpu.out", "-test.memprofile="+dir+"/mem.out",
		"-ask", "-does=write="+dir+"/made")
	cmd.Env = append(cmd.Env, "INGUEST_EXTRA="+extra)
	r := ended(t, cmd)
	r.wantCode(t, 0)
	require.Contains(t, r.stdout, "--- PASS: TestTheGuest")
	require.Contains(t, r.stdout, "coverage: 75.0% of statements")
	require.Empty(t, r.stderr)
	profile, err := os.ReadFile(dir + "/cover.out")
	require.NoError(t, err)
	require.Contains(t, string(profile), "tests/inguest/inguest.go:6.22,7.9 1 1")
	for _, pattern := range []string{"covmeta.*", "covcounters.*"} {
		files, err := filepath.Glob(filepath.Join(counters, pattern))
		require.NoError(t, err)
		require.Len(t, files, 1, pattern)
	}
	for _, file := range []string{"/cpu.out", "/mem.out"} {
		info, err := os.Stat(dir + file)
		require.NoError(t, err)
		require.Positive(t, info.Size(), file)
	}
	made, err := os.ReadFile(dir + "/made")
	require.NoError(t, err)
	require.Equal(t, "from the guest\n", string(made))
}

// TestDynamicTestsInAGuest: with cgo a binary needs a loader and libraries.
func TestDynamicTestsInAGuest(t *testing.T) {
	t.Parallel()
	r := ended(t, execTest(t, "inguest-race.test", nil, "-test.v", "-ask"))
	r.wantCode(t, 0)
	require.Contains(t, r.stdout, "--- PASS: TestTheGuest")
}

func TestHowTestsInAGuestEnd(t *testing.T) {
	for _, tt := range []struct {
		does   string
		code   int
		stdout string
		stderr string
	}{
		{"fail", 1, "this test fails", ""},
		{"exit", 42, "", "to stderr"},
		{"panic", 123, "", "Kernel panic - not syncing: sysrq triggered crash\n  CPU:"},
	} {
		t.Run(tt.does, func(t *testing.T) {
			t.Parallel()
			r := ended(t, execTest(t, "inguest.test", nil, "-ask", "-does="+tt.does))
			r.wantCode(t, tt.code)
			require.Contains(t, r.stdout, tt.stdout)
			require.Contains(t, r.stderr, tt.stderr)
		})
	}
}

func TestInputOfATestInAGuest(t *testing.T) {
	t.Parallel()
	cmd := execTest(t, "inguest.test", nil, "-ask", "-does=echo", "-test.run=TestDoes")
	cmd.Stdin = bytes.NewReader([]byte("what comes in\n"))
	r := ended(t, cmd)
	r.wantCode(t, 0)
	require.Contains(t, r.stdout, "what comes in\n")
}

// TestAHangingTestTellsWhere: go test sends SIGQUIT to one that has not ended by its
// own -timeout, for the stacks of its goroutines.
func TestAHangingTestTellsWhere(t *testing.T) {
	t.Parallel()
	cmd := execTest(t, "inguest.test", nil, "-ask", "-does=hang", "-test.run=TestDoes")
	g := &guest{cmd: cmd}
	cmd.Stdout, cmd.Stderr = &g.stdout, &g.stderr
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	g.waitFor(t, "it hangs")
	require.NoError(t, cmd.Process.Signal(syscall.SIGQUIT))
	r := g.wait(t)
	r.wantCode(t, 2)
	require.Contains(t, r.stderr, "SIGQUIT: quit")
	require.Contains(t, r.stderr, "inguest.TestDoes")
}
