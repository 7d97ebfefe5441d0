package term

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// patience bounds waits that end long before unless something is broken.
const patience = 30 * time.Second

// endVariable tells the helper process how to end. Its presence is what makes
// a test binary the helper.
const endVariable = "HUSK_TERM_TEST_END"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "guard" {
		if err := Guard(); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	if end, ok := os.LookupEnv(endVariable); ok {
		helper(end)
	}
	os.Exit(m.Run())
}

// helper makes its terminal raw, says so, and ends in the way named.
func helper(end string) {
	t, err := MakeRaw(os.Stdin, "guard")
	if err != nil {
		panic(err)
	}
	_, _ = os.Stdout.WriteString("raw\r\n")
	switch end {
	case "exit":
		_ = t.Restore()
		_ = t.Restore() // twice does no harm
		_, _ = os.Stdout.WriteString("restored\r\n")
		os.Exit(7)
	case "deferred":
		defer func() { _ = t.Restore() }()
		panic("in the goroutine that restores")
	case "panic":
		go panic("in another goroutine")
		select {}
	case "wait":
		select {} // for a signal
	}
}

func TestTerminalIsRestored(t *testing.T) {
	tests := []struct {
		name   string
		end    string
		signal syscall.Signal
	}{
		{"Restore", "exit", 0},
		{"panic of the goroutine that restores", "deferred", 0},
		{"panic of another goroutine", "panic", 0},
		{"SIGTERM", "wait", unix.SIGTERM},
		{"SIGINT", "wait", unix.SIGINT},
		{"SIGQUIT", "wait", unix.SIGQUIT},
		{"SIGHUP", "wait", unix.SIGHUP},
		{"SIGKILL", "wait", unix.SIGKILL},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			person, terminal := openPTY(t)
			before := modeOf(t, terminal)

			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), endVariable+"="+tt.end)
			cmd.Stdin, cmd.Stdout = terminal, terminal
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
			require.NoError(t, cmd.Start())

			lines := bufio.NewReader(person)
			line, err := lines.ReadString('\n')
			require.NoError(t, err)
			require.Equal(t, "raw", strings.TrimSpace(line))
			if tt.signal != 0 {
				raw := modeOf(t, terminal)
				require.Zero(t, raw.Lflag&(unix.ICANON|unix.ECHO|unix.ISIG), "the terminal is raw while the helper runs")
				// To the whole group: the guard must not be in it.
				require.NoError(t, unix.Kill(-cmd.Process.Pid, tt.signal))
			}
			_ = cmd.Wait()
			require.Eventually(t, func() bool { return modeOf(t, terminal) == before }, patience, time.Millisecond)
			if tt.end == "exit" {
				require.Equal(t, 7, cmd.ProcessState.ExitCode())
			}
		})
	}
}

func TestRestoreEndsTheGuard(t *testing.T) {
	_, terminal := openPTY(t)
	before := modeOf(t, terminal)
	raw, err := MakeRaw(terminal, "guard")
	require.NoError(t, err)
	require.NotEqual(t, before, modeOf(t, terminal))
	guard := raw.guard.process.Pid
	require.NoError(t, raw.Restore())
	require.Equal(t, before, modeOf(t, terminal))
	require.ErrorIs(t, unix.Kill(guard, 0), unix.ESRCH, "the guard is gone and reaped")
}

func TestMakeRawRefusesWhatIsNoTerminal(t *testing.T) {
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	defer w.Close()
	require.False(t, IsTerminal(r))
	_, err = MakeRaw(r, "guard")
	require.ErrorContains(t, err, "not a terminal")
}

func TestWriterAddsCarriageReturnsWhileRaw(t *testing.T) {
	_, terminal := openPTY(t)
	raw, err := MakeRaw(terminal, "guard")
	require.NoError(t, err)
	var out bytes.Buffer
	w := raw.Writer(&out)
	n, err := w.Write([]byte("a\nb\n"))
	require.NoError(t, err)
	require.Equal(t, 4, n)
	require.NoError(t, raw.Restore())
	_, err = w.Write([]byte("c\n"))
	require.NoError(t, err)
	require.Equal(t, "a\r\nb\r\nc\n", out.String())
}

func TestRestoreDoesNotWaitForAWrite(t *testing.T) {
	_, terminal := openPTY(t)
	before := modeOf(t, terminal)
	raw, err := MakeRaw(terminal, "guard")
	require.NoError(t, err)
	r, w := io.Pipe()
	written := make(chan error, 1)
	go func() {
		_, err := raw.Writer(w).Write([]byte("stuck\n"))
		written <- err
	}()
	first := make([]byte, 1)
	_, err = r.Read(first) // the write is under way, and the rest of it waits
	require.NoError(t, err)
	restored := make(chan error, 1)
	go func() { restored <- raw.Restore() }()
	select {
	case err := <-restored:
		require.NoError(t, err)
	case <-time.After(patience):
		t.Fatal("Restore waits for the write")
	}
	require.Equal(t, before, modeOf(t, terminal))
	require.NoError(t, r.Close())
	require.ErrorIs(t, <-written, io.ErrClosedPipe)
}

func TestFollow(t *testing.T) {
	_, terminal := openPTY(t)
	set := func(rows, columns uint16) {
		require.NoError(t, pty.Setsize(terminal, &pty.Winsize{Rows: rows, Cols: columns}))
	}
	set(24, 80)
	ctx, cancel := context.WithCancel(t.Context())
	sizes, ended := make(chan Size), make(chan struct{})
	go func() {
		defer close(ended)
		Follow(ctx, terminal, func(s Size) { sizes <- s })
	}()
	require.Equal(t, Size{Rows: 24, Columns: 80}, <-sizes)
	set(50, 132)
	// The terminal is not this process's own, so its signal is sent by hand.
	require.NoError(t, unix.Kill(os.Getpid(), unix.SIGWINCH))
	require.Equal(t, Size{Rows: 50, Columns: 132}, <-sizes)
	cancel()
	<-ended
}

func openPTY(t *testing.T) (person, terminal *os.File) {
	t.Helper()
	person, terminal, err := pty.Open()
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = person.Close()
		_ = terminal.Close()
	})
	return person, terminal
}

func modeOf(t *testing.T, terminal *os.File) unix.Termios {
	t.Helper()
	mode, err := unix.IoctlGetTermios(int(terminal.Fd()), unix.TCGETS)
	require.NoError(t, err)
	return *mode
}
