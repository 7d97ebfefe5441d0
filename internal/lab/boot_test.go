package lab

import (
	"bytes"
	"crypto/rand"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/internal/agent"
)

// testVariable asks for the tests that boot a lab. Without QEMU they fail then.
const testVariable = "HUSK_LAB_TEST"

// One lab for all: a boot takes seconds.
func TestLab(t *testing.T) {
	if os.Getenv(testVariable) == "" {
		t.Skip("set " + testVariable + "=1 to boot a lab (make lab-test does)")
	}
	share := t.TempDir()
	t.Setenv("TMPDIR", t.TempDir()) // for the console's file, at the end
	l, err := Start(t.Context(), Options{Shares: []Share{{Host: share}}, Notices: os.Stderr})
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()

	// run runs a line of shell in the shared folder.
	run := func(t *testing.T, cmd agent.Command) (code int, stdout, stderr string) {
		t.Helper()
		var out, errs bytes.Buffer
		cmd.Dir, cmd.Stdout, cmd.Stderr = share, &out, &errs
		if cmd.Env == nil {
			cmd.Env = os.Environ()
		}
		code, err := l.Run(t.Context(), cmd)
		require.NoError(t, err)
		return code, out.String(), errs.String()
	}
	sh := func(line string) agent.Command { return agent.Command{Argv: []string{"sh", "-c", line}} }

	t.Run("exit code and streams", func(t *testing.T) {
		cmd := sh(`echo "out $X"; echo err >&2; cat; pwd; exit 42`)
		cmd.Env, cmd.Stdin = []string{"X=y", "PATH=/usr/bin:/bin"}, strings.NewReader("in\n")
		code, stdout, stderr := run(t, cmd)
		require.Equal(t, 42, code)
		require.Equal(t, "out y\nin\n"+share+"\n", stdout)
		require.Equal(t, "err\n", stderr)
	})
	t.Run("no such command", func(t *testing.T) {
		code, _, stderr := run(t, agent.Command{Argv: []string{"husk-no-such"}})
		require.Equal(t, agent.CodeNotFound, code)
		require.Equal(t, "exec: \"husk-no-such\": executable file not found in $PATH\n", stderr)
	})
	t.Run("10 MiB there and back", func(t *testing.T) {
		want := make([]byte, 10<<20)
		_, _ = rand.Read(want)
		code, stdout, _ := run(t, agent.Command{Argv: []string{"cat"}, Stdin: bytes.NewReader(want)})
		require.Zero(t, code)
		require.True(t, bytes.Equal(want, []byte(stdout)))
	})
	t.Run("a signal", func(t *testing.T) {
		signals := make(chan os.Signal, 1)
		signals <- syscall.SIGTERM
		cmd := agent.Command{Argv: []string{"sleep", "1000"}, Signals: signals}
		code, _, _ := run(t, cmd)
		require.Equal(t, 128+15, code)
	})
	t.Run("a terminal", func(t *testing.T) {
		cmd := sh("test -t 0 && stty size")
		cmd.TTY, cmd.Size = true, agent.Size{Rows: 33, Cols: 99}
		code, stdout, _ := run(t, cmd)
		require.Zero(t, code)
		require.Equal(t, "33 99\r\n", stdout)
	})
	t.Run("KVM and what goes with it", func(t *testing.T) {
		code, stdout, stderr := run(t, sh(`exec 3<>/dev/kvm && exec 4<>/dev/net/tun && id -u &&
			cat /sys/module/kvm_amd/parameters/npt /sys/kernel/mm/transparent_hugepage/enabled &&
			ls -d /sys/kernel/debug/kvm /sys/kernel/tracing/events/kvm /dev/shm /dev/pts/ptmx && cat /sys/fs/cgroup/cgroup.controllers && cat /sys/class/net/lo/flags`))
		require.Zero(t, code, stderr)
		require.True(t, strings.HasPrefix(stdout, "0\nY\n[always]"), stdout)
		require.Contains(t, stdout, "memory")
		require.Contains(t, stdout, "0x9\n", "the loopback is up")
	})
	t.Run("what is shared goes out, the rest stays", func(t *testing.T) {
		outside := filepath.Join(t.TempDir(), "outside")
		code, _, stderr := run(t, sh("echo result >file && mkdir -p "+filepath.Dir(outside)+" && echo x >"+outside+" && cat "+outside))
		require.Zero(t, code, stderr)
		b, err := os.ReadFile(filepath.Join(share, "file"))
		require.NoError(t, err)
		require.Equal(t, "result\n", string(b))
		require.NoFileExists(t, outside)
	})
	t.Run("several at once", func(t *testing.T) {
		codes := make(chan int)
		for range 4 {
			go func() {
				code, err := l.Run(t.Context(), agent.Command{Argv: []string{"sh", "-c", "exit 3"}, Env: os.Environ()})
				if err != nil {
					code = -1
				}
				codes <- code
			}()
		}
		for range 4 {
			require.Equal(t, 3, <-codes)
		}
	})
	t.Run("the end of the machine", func(t *testing.T) {
		_, err := l.Run(t.Context(), sh("echo o >/proc/sysrq-trigger; sleep 1000"))
		require.ErrorIs(t, err, ErrLost)
		require.ErrorContains(t, err, "console")
	})
}
