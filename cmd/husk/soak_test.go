package main

import (
	"bytes"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/kvm/kvmtest"
)

// soakVariable marks the processes that a kill loop has started, and theirs.
const soakVariable = "HUSK_SOAK_MARK"

// TestSoakKills ends husk by signals at random moments for SOAK. Afterwards the
// terminal is as it was, no process is left, and no file.
func TestSoakKills(t *testing.T) {
	end := time.Now().Add(kvmtest.Soak(t))
	guests := []string{tinyKernel(t, sayHi, loop), tinyKernel(t, sayHi, exit33)} // one ends by itself
	// The two of a pair are different: of two that are the same, Linux delivers
	// one if the first is still pending.
	endings := []struct {
		name    string
		signals []unix.Signal
		codes   []int // besides -1, by a signal
	}{
		{"KILL", []unix.Signal{unix.SIGKILL}, nil},
		{"TERM, KILL", []unix.Signal{unix.SIGTERM, unix.SIGKILL}, []int{128 + int(unix.SIGTERM)}}, // there is no guest yet
		{"INT, TERM", []unix.Signal{unix.SIGINT, unix.SIGTERM}, []int{128 + int(unix.SIGINT), 128 + int(unix.SIGTERM)}},
		{"TERM, HUP", []unix.Signal{unix.SIGTERM, unix.SIGHUP}, []int{128 + int(unix.SIGTERM), 128 + int(unix.SIGHUP)}},
		{"HUP, INT", []unix.Signal{unix.SIGHUP, unix.SIGINT}, []int{128 + int(unix.SIGHUP), 128 + int(unix.SIGINT)}},
		{"QUIT", []unix.Signal{unix.SIGQUIT}, []int{2}},
	}
	n, ended := 0, map[string]int{}
	for ; time.Now().Before(end); n++ {
		how := endings[rand.IntN(len(endings))]
		codes := append([]int{-1, 33}, how.codes...)
		moments := make([]time.Duration, len(how.signals))
		for i := range moments {
			moments[i] = time.Duration(rand.Int64N(int64(200 * time.Millisecond)))
		}
		code, output := killed(t, strconv.Itoa(n), guests[rand.IntN(len(guests))], how.signals, moments)
		require.Contains(t, codes, code, "%s after %v\n%s", how.name, moments, output)
		ended[how.name]++
	}
	t.Logf("%d times killed: %v", n, ended)
	require.Positive(t, n)
}

// killed runs husk on a terminal, sends it each signal when its moment has
// come, looks at what is left, and returns the exit code and what husk said.
func killed(t *testing.T, mark, kernel string, signals []unix.Signal, moments []time.Duration) (int, string) {
	t.Helper()
	person, terminal, err := pty.Open()
	require.NoError(t, err)
	defer person.Close()
	defer terminal.Close()
	mode := func() unix.Termios {
		m, err := unix.IoctlGetTermios(int(terminal.Fd()), unix.TCGETS)
		require.NoError(t, err)
		return *m
	}
	before := mode()
	dir := t.TempDir()
	temp := filepath.Join(dir, "tmp")
	require.NoError(t, os.Mkdir(temp, 0o700))

	cmd := huskCommand(t, "boot", "--accel=kvm", "-m", "32M", "--debug-exit", "-k", kernel, "--stats", filepath.Join(dir, "stats"))
	cmd.Env = append(cmd.Env, soakVariable+"="+mark, "TMPDIR="+temp)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = terminal, terminal, terminal
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	var said buffer
	go func() { _, _ = io.Copy(&said, person) }() // ends with the terminal
	require.NoError(t, cmd.Start())
	// One that does not end by its signals has failed.
	hung := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Signal(unix.SIGABRT) })
	for i, s := range signals {
		time.Sleep(moments[i])
		_ = cmd.Process.Signal(s) // it may have ended
	}
	_ = cmd.Wait()
	require.True(t, hung.Stop(), "it does not end by %v after %v\n%s", signals, moments, &said)

	require.Eventually(t, func() bool { return len(marked(t, mark)) == 0 }, time.Minute, 5*time.Millisecond,
		"processes are left: %v", marked(t, mark))
	require.Equal(t, before, mode(), "the terminal\n%s", &said)
	left, err := os.ReadDir(temp)
	require.NoError(t, err)
	require.Empty(t, left, "temporary files")
	return cmd.ProcessState.ExitCode(), said.String()
}

// marked are the processes that have the mark in their environment, by number.
func marked(t *testing.T, mark string) []string {
	t.Helper()
	environs, err := filepath.Glob("/proc/[0-9]*/environ")
	require.NoError(t, err)
	var pids []string
	for _, path := range environs {
		env, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended, or is not ours
		}
		for _, v := range bytes.Split(env, []byte{0}) {
			if string(v) == soakVariable+"="+mark {
				pids = append(pids, filepath.Base(filepath.Dir(path)))
			}
		}
	}
	return pids
}
