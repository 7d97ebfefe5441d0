package main

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/creack/pty"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/vmm"
)

func TestTimeout(t *testing.T) {
	h := newFakeHost(t)
	h.run = untilEnded
	require.Equal(t, exitTimeout, h.huskUntimed(t, "boot", "-k", file(t, "bzImage", "kernel"), "--timeout=1m"))
	require.Equal(t, "husk: timeout: the guest had not ended after 1m0s; a longer --timeout gives it more\n", h.err.String())
	require.Equal(t, 1, h.closed)
}

func TestTheGuestsOwnEndWinsOverATimeout(t *testing.T) {
	h := newFakeHost(t)
	h.run = func(ctx context.Context, _ *fakeMachine) (*vmm.Result, error) {
		<-ctx.Done()
		return &vmm.Result{Outcome: vmm.DebugExit, Code: 9}, nil
	}
	require.Equal(t, 9, h.huskUntimed(t, "boot", "-k", file(t, "bzImage", "kernel"), "--timeout=1m"))
}

func TestAReaderThatStoppedDoesNotKeepHusk(t *testing.T) {
	kernel := file(t, "bzImage", "kernel")
	h := newFakeHost(t)
	synctest.Test(t, func(t *testing.T) {
		stuck := make(chan struct{})
		h.run = func(context.Context, *fakeMachine) (*vmm.Result, error) {
			<-stuck // in a write that nobody reads
			return nil, nil
		}
		stats := filepath.Join(t.TempDir(), "stats.json")
		require.Equal(t, exitTimeout, h.husk("boot", "-k", kernel, "--timeout=1m", "--serial=none", "--stats", stats))
		text, err := os.ReadFile(stats)
		require.NoError(t, err)
		require.Contains(t, string(text), `"io": 7`)
		close(stuck)
	})
}

func TestBrokenOutputEndsTheGuest(t *testing.T) {
	r, w, err := os.Pipe()
	require.NoError(t, err)
	require.NoError(t, r.Close())
	defer func() { _ = w.Close() }()
	h := newFakeHost(t)
	h.stdout = w
	h.run = func(ctx context.Context, m *fakeMachine) (*vmm.Result, error) {
		_, err := m.cfg.Serial.Out.Write([]byte("hello"))
		require.ErrorIs(t, err, unix.EPIPE)
		<-ctx.Done()
		return &vmm.Result{Outcome: vmm.Cancelled}, err
	}
	require.Equal(t, exitFailed, h.husk("boot", "-k", file(t, "bzImage", "kernel")))
	require.Regexp(t, "^husk: console output: .*broken pipe; .*\n$", h.err.String())
}

func TestSignals(t *testing.T) {
	for name, signal := range map[string]unix.Signal{"SIGTERM": unix.SIGTERM, "SIGINT": unix.SIGINT, "SIGHUP": unix.SIGHUP} {
		t.Run(name+" presses the power button", func(t *testing.T) {
			h := newFakeHost(t)
			h.run = func(ctx context.Context, m *fakeMachine) (*vmm.Result, error) {
				require.NoError(t, unix.Kill(os.Getpid(), signal))
				return untilPressed(ctx, m)
			}
			require.Equal(t, exitOK, h.husk("boot", "-k", file(t, "bzImage", "kernel")))
			require.Contains(t, h.err.String(), "husk: "+name+": pressed the guest's power button")
		})
		t.Run(name+" twice ends the guest", func(t *testing.T) {
			h := newFakeHost(t)
			h.run = func(ctx context.Context, m *fakeMachine) (*vmm.Result, error) {
				require.NoError(t, unix.Kill(os.Getpid(), signal))
				<-m.pressed // and nothing comes of it
				require.NoError(t, unix.Kill(os.Getpid(), signal))
				return untilEnded(ctx, m)
			}
			require.Equal(t, 128+int(signal), h.husk("boot", "-k", file(t, "bzImage", "kernel")))
			require.Contains(t, h.err.String(), "husk: "+name+": the guest was ended")
		})
	}
}

// A closing is a machine that tells when it is closed.
type closing struct {
	bootMachine
	closed chan struct{}
}

func (c closing) Close() error {
	close(c.closed)
	return c.bootMachine.Close()
}

func TestASignalWithoutAMachineEndsHusk(t *testing.T) {
	for reboots, name := range []string{"before the first", "between two"} {
		t.Run(name, func(t *testing.T) {
			h := newFakeHost(t)
			h.run = ends(vmm.Result{Outcome: vmm.Reboot})
			stuck, closed := make(chan struct{}), make(chan struct{})
			newMachine, made := h.newMachine, 0
			h.newMachine = func(cfg vmm.Config) (bootMachine, error) {
				m, err := newMachine(cfg)
				if made++; made > reboots {
					require.NoError(t, unix.Kill(os.Getpid(), unix.SIGTERM))
					<-stuck
					m = closing{m, closed}
				}
				return m, err
			}
			stats := filepath.Join(t.TempDir(), "stats.json")
			require.Equal(t, 128+int(unix.SIGTERM), h.husk("boot", "-k", file(t, "bzImage", "kernel"), "--on-reboot=restart", "--stats", stats))
			require.Equal(t, "husk: SIGTERM: husk ended without a guest\n", h.err.String())
			text, err := os.ReadFile(stats)
			require.NoError(t, err)
			require.Contains(t, string(text), `"exit_code": 143`)
			close(stuck)
			<-closed // nobody wants it any more
		})
	}
}

func TestATimeoutCountsTheMakingOfTheMachine(t *testing.T) {
	h := newFakeHost(t)
	stuck := make(chan struct{})
	defer close(stuck)
	h.newMachine = func(vmm.Config) (bootMachine, error) {
		<-stuck
		return nil, errors.New("too late")
	}
	require.Equal(t, exitTimeout, h.husk("boot", "-k", file(t, "bzImage", "kernel"), "--timeout=1ms"))
}

// writerFunc is a function as an io.Writer.
type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestASignalDoesNotKeepTheStatsFromBeingWritten(t *testing.T) {
	h := newFakeHost(t)
	var running context.Context
	h.run = func(ctx context.Context, _ *fakeMachine) (*vmm.Result, error) {
		running = ctx
		return &vmm.Result{Outcome: vmm.DebugExit, Code: 7}, nil
	}
	h.stderr = writerFunc(func(p []byte) (int, error) {
		require.NoError(t, unix.Kill(os.Getpid(), unix.SIGTERM))
		<-running.Done() // the signal has come
		return h.err.Write(p)
	})
	require.Equal(t, 7, h.husk("boot", "-k", file(t, "bzImage", "kernel"), "--stats=-"))
	require.Contains(t, h.err.String(), `"exit_code": 7`)
}

func TestStatsThatNobodyReadsDoNotKeepHusk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stuck := make(chan struct{})
		figures := statsFile{w: writerFunc(func(p []byte) (int, error) {
			<-stuck
			return len(p), nil
		})}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		start := time.Now()
		require.ErrorContains(t, figures.writeBefore(ctx, statsReport{}), "--stats -: not written")
		require.Equal(t, time.Hour+lastOutput, time.Since(start))
		close(stuck)
	})
}

func TestConsoleIsPlainBytesWhenPiped(t *testing.T) {
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer func() { _ = r.Close() }()
	h := newFakeHost(t)
	h.stdin = r
	h.run = func(_ context.Context, m *fakeMachine) (*vmm.Result, error) {
		buf := make([]byte, 16)
		n, err := m.cfg.Serial.In.Read(buf)
		require.NoError(t, err)
		_, err = m.cfg.Serial.Out.Write(buf[:n])
		require.NoError(t, err)
		return &vmm.Result{Outcome: vmm.PowerOff}, nil
	}
	const typed = "\x01x\r\n\x03" // keys that would do something on a terminal
	_, err = w.WriteString(typed)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	require.Equal(t, exitOK, h.husk("boot", "-k", file(t, "bzImage", "kernel")))
	require.Equal(t, typed, h.out.String())
}

func TestConsoleToFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "console")
	h := newFakeHost(t)
	h.run = func(_ context.Context, m *fakeMachine) (*vmm.Result, error) {
		require.Nil(t, m.cfg.Serial.In)
		_, err := m.cfg.Serial.Out.Write([]byte("hello\r\n"))
		return &vmm.Result{Outcome: vmm.PowerOff}, err
	}
	require.Equal(t, exitOK, h.husk("boot", "-k", file(t, "bzImage", "kernel"), "--serial=file:"+path))
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "hello\r\n", string(text))
	require.Empty(t, h.out.String())
}

// readAll is a guest that takes input for ever and is ended from outside.
func readAll(ctx context.Context, m *fakeMachine) (*vmm.Result, error) {
	go func() {
		<-ctx.Done()
		_ = m.cfg.Serial.In.(interface{ SetReadDeadline(time.Time) error }).SetReadDeadline(time.Now())
	}()
	buf := make([]byte, 64)
	for {
		n, err := m.cfg.Serial.In.Read(buf)
		if _, werr := m.cfg.Serial.Out.Write(buf[:n]); werr != nil {
			return nil, werr
		}
		select {
		case <-m.pressed:
			return &vmm.Result{Outcome: vmm.PowerOff}, nil
		default:
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return &vmm.Result{Outcome: vmm.Cancelled}, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

func TestConsoleOnATerminal(t *testing.T) {
	person, terminal, err := pty.Open()
	require.NoError(t, err)
	defer func() { _ = person.Close() }()
	defer func() { _ = terminal.Close() }()
	before, err := unix.IoctlGetTermios(int(terminal.Fd()), unix.TCGETS)
	require.NoError(t, err)

	h := newFakeHost(t)
	h.stdin = terminal
	running := make(chan struct{})
	h.run = func(ctx context.Context, m *fakeMachine) (*vmm.Result, error) {
		close(running)
		return readAll(ctx, m)
	}
	code := make(chan int, 1)
	go func() { code <- h.husk("boot", "-k", file(t, "bzImage", "kernel")) }()
	<-running
	_, err = person.WriteString("a\x03\x01\x01b\r")
	require.NoError(t, err)
	require.Eventually(t, func() bool { return h.out.String() == "a\x03\x01b\r" }, time.Minute, time.Millisecond)
	_, err = person.WriteString("\x01h\x01x")
	require.NoError(t, err)
	require.Equal(t, exitOK, <-code)
	require.Equal(t, "a\x03\x01b\r", h.out.String(), "all keys but the commands reach the guest, unchanged")
	require.Equal(t, strings.ReplaceAll(consoleKeys, "\n", "\r\n"), h.err.String())

	after, err := unix.IoctlGetTermios(int(terminal.Fd()), unix.TCGETS)
	require.NoError(t, err)
	require.Equal(t, before, after)
}

func TestKeysThatAskTheMachine(t *testing.T) {
	for key, asked := range map[string]func(*fakeMachine) chan struct{}{
		"p": func(m *fakeMachine) chan struct{} { return m.pressed },
		"B": func(m *fakeMachine) chan struct{} { return m.breaks },
	} {
		person, terminal, err := pty.Open()
		require.NoError(t, err)
		defer func() { _ = person.Close() }()
		defer func() { _ = terminal.Close() }()
		h := newFakeHost(t)
		h.stdin = terminal
		h.run = func(_ context.Context, m *fakeMachine) (*vmm.Result, error) {
			_, err := person.WriteString("\x01" + key + "a")
			require.NoError(t, err)
			_, err = m.cfg.Serial.In.Read(make([]byte, 1))
			require.NoError(t, err)
			<-asked(m)
			return &vmm.Result{Outcome: vmm.PowerOff}, nil
		}
		require.Equal(t, exitOK, h.husk("boot", "-k", file(t, "bzImage", "kernel")), key)
	}
}

func TestMessagesStartOnALineOfTheirOwn(t *testing.T) {
	one, err := os.Create(filepath.Join(t.TempDir(), "one"))
	require.NoError(t, err)
	defer one.Close()
	h := newFakeHost(t)
	h.run = func(ctx context.Context, m *fakeMachine) (*vmm.Result, error) {
		_, err := m.cfg.Serial.Out.Write([]byte("login: "))
		require.NoError(t, err)
		return untilEnded(ctx, m)
	}
	args := []string{"boot", "-k", file(t, "bzImage", "kernel"), "--timeout=1m"}
	require.Equal(t, exitTimeout, h.huskUntimed(t, args...))
	require.Regexp(t, "^husk: timeout", h.err.String(), "apart from the console")

	h.stdout, h.stderr = one, one
	require.Equal(t, exitTimeout, h.huskUntimed(t, args...))
	text, err := os.ReadFile(one.Name())
	require.NoError(t, err)
	require.Regexp(t, "^login: \nhusk: timeout", string(text), "together with it")
}

// TestASlowDiskIsClosedAllTheSame: a run that takes long to come to rest is waited for,
// and its machine is closed; one that never does is left.
func TestASlowDiskIsClosedAllTheSame(t *testing.T) {
	for rest, closed := range map[time.Duration]int{5 * time.Second: 1, time.Hour: 0} {
		synctest.Test(t, func(t *testing.T) {
			host := &fakeHost{run: func(ctx context.Context, _ *fakeMachine) (*vmm.Result, error) {
				<-ctx.Done()
				time.Sleep(rest)
				return &vmm.Result{Outcome: vmm.Cancelled}, nil
			}}
			s := &session{flags: &bootFlags{}, con: &console{stderr: io.Discard}, requests: make(chan func(bootMachine))}
			ctx, cancel := context.WithCancelCause(t.Context())
			cancel(&stop{exitTimeout, "the time is up"})
			code, err := s.drive(ctx, &fakeMachine{host: host})
			require.NoError(t, err)
			require.Equal(t, exitTimeout, code)
			require.Equal(t, closed, host.closed, "%v", rest)
			time.Sleep(2 * time.Hour) // until nothing is left in the bubble
		})
	}
}
