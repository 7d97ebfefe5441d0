package process_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/internal/agent"
	"github.com/huskvm/husk/internal/machine"
	"github.com/huskvm/husk/internal/machine/control"
	"github.com/huskvm/husk/internal/machine/jsonlog"
	"github.com/huskvm/husk/internal/term"
)

func state(t *testing.T, m *machine.Machine) machine.State {
	t.Helper()
	s, err := m.State()
	require.NoError(t, err)
	return s
}

func TestRun(t *testing.T) {
	h := newHost(t)
	m := h.create(`echo out; echo err >&2; cat; exit 7`, interactive)
	require.Equal(t, machine.Created, state(t, m).Status)
	out, errs := newBuffer(), newBuffer()
	code, err := m.Run(t.Context(), h.argv(), machine.Streams{Stdin: strings.NewReader("in\n"), Stdout: out, Stderr: errs})
	require.NoError(t, err)
	require.Equal(t, 7, code)
	require.Equal(t, "out\nin\n", out.String())
	require.Equal(t, "err\n", errs.String())

	s := state(t, m)
	require.Equal(t, machine.Exited, s.Status)
	require.Equal(t, 7, s.ExitCode)
	require.Zero(t, s.PID)
	require.Empty(t, s.Error)
	require.False(t, s.Finished.Before(s.Started))
	lines := strings.Fields(logs(t, m, jsonlog.Options{Tail: -1}))
	require.ElementsMatch(t, []string{"out", "err", "in"}, lines)
	require.NoFileExists(t, m.Folder()+"/control")
	require.NoError(t, m.Remove(t.Context(), false))
	_, err = m.State()
	require.ErrorIs(t, err, machine.ErrNotFound)
}

func logs(t *testing.T, m *machine.Machine, o jsonlog.Options) string {
	t.Helper()
	var b strings.Builder
	require.NoError(t, m.Logs(t.Context(), o, func(e jsonlog.Entry) error {
		b.Write(e.Bytes())
		return nil
	}))
	return b.String()
}

// TestNothingIsLeft of a machine that is to be removed at its end, whoever starts it.
func TestNothingIsLeft(t *testing.T) {
	h := newHost(t)
	for range 5 {
		m := h.create("echo x", removed, func(s *machine.Spec) { s.Name = "again" })
		out := newBuffer()
		code, err := m.Run(t.Context(), h.argv(), machine.Streams{Stdout: out})
		require.NoError(t, err)
		require.Zero(t, code)
		require.Equal(t, "x\n", out.String())
		require.NoDirExists(t, m.Folder())
		list, err := h.List()
		require.NoError(t, err)
		require.Empty(t, list)
	}
}

func TestWhatCannotBeStarted(t *testing.T) {
	h := newHost(t)
	for _, tt := range []struct {
		odd    string
		argv   []string
		code   int
		reason string
	}{
		{"none", []string{"/no/such/program"}, 127, `exec: "/no/such/program": no such file or directory`},
		{"none", []string{"/etc/passwd"}, 126, `exec: "/etc/passwd": permission denied`},
		{"unmakable", []string{"true"}, 125, "kernel /nowhere: no such file"},
		{"refuses", []string{"true"}, 125, "the guest cannot run commands: network: no card"},
		{"panics", []string{"true"}, 123, "the guest's kernel panicked: the guest boots"},
	} {
		for _, attached := range []bool{true, false} {
			for _, remove := range []bool{true, false} {
				t.Run(fmt.Sprint(tt.argv[0], attached, remove), func(t *testing.T) {
					h.odd = tt.odd
					m := h.create("", func(s *machine.Spec) { s.Process.Argv, s.AutoRemove = tt.argv, remove })
					var err error
					if out := newBuffer(); attached {
						_, err = m.Run(t.Context(), h.argv(), machine.Streams{Stdout: out, Stderr: out})
						require.Empty(t, out.String())
					} else {
						err = m.Start(t.Context(), h.argv())
					}
					var failed *machine.Failed
					require.ErrorAs(t, err, &failed)
					require.Equal(t, machine.Failed{Code: tt.code, Reason: tt.reason}, *failed)
					if remove {
						require.NoDirExists(t, m.Folder())
						return
					}
					s := state(t, m)
					require.Equal(t, machine.Created, s.Status)
					require.Equal(t, tt.code, s.ExitCode)
					require.Equal(t, tt.reason, s.Error)
					code, err := m.Wait(t.Context())
					require.NoError(t, err)
					require.Equal(t, tt.code, code)
				})
			}
		}
	}
}

func TestDetachedAndAttached(t *testing.T) {
	h := newHost(t)
	both := filepath.Join(t.TempDir(), "both")
	m := h.start(`until [ -e `+both+` ]; do echo up; sleep 0.05; done
		read line; echo "got $line"; read line; echo "got $line"`, interactive)
	s := state(t, m)
	require.Equal(t, machine.Running, s.Status)
	require.NotZero(t, s.PID)

	// Two clients; the input of the first ends, and the command's does not.
	first, second := newBuffer(), newBuffer()
	in, typing := pipe(t)
	var clients sync.WaitGroup
	for _, c := range []machine.Streams{{Stdin: strings.NewReader(""), Stdout: first}, {Stdin: in, Stdout: second}} {
		clients.Go(func() {
			code, err := m.Attach(t.Context(), c)
			require.NoError(t, err)
			require.Zero(t, code)
		})
	}
	first.await(t, "up\n")
	second.await(t, "up\n")
	require.NoError(t, os.WriteFile(both, nil, 0o600))
	fmt.Fprintln(typing, "one")
	second.await(t, "got one\n")
	fmt.Fprintln(typing, "two")
	clients.Wait()
	require.Contains(t, first.String(), "up\ngot one\ngot two\n")
	require.Contains(t, second.String(), "up\ngot one\ngot two\n")
}

func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	require.NoError(t, err)
	t.Cleanup(func() { _, _ = r.Close(), w.Close() })
	return r, w
}

// TestTheClientIsKilled: the machine goes on, and is seen.
func TestTheClientIsKilled(t *testing.T) {
	h := newHost(t)
	m := h.create("echo begun; sleep 1000")
	ctx, kill := context.WithCancel(t.Context())
	out := newBuffer()
	gone := make(chan error)
	go func() {
		_, err := m.Run(ctx, h.argv(), machine.Streams{Stdout: out})
		gone <- err
	}()
	out.await(t, "begun")
	kill()
	require.ErrorIs(t, <-gone, context.Canceled)
	require.Equal(t, machine.Running, state(t, m).Status)
	require.NoError(t, m.Kill(t.Context()))
	s := state(t, m)
	require.Equal(t, machine.Exited, s.Status)
	require.Equal(t, 137, s.ExitCode)
}

func TestDetach(t *testing.T) {
	h := newHost(t)
	m := h.create("cat", interactive)
	in, typing := pipe(t)
	fmt.Fprint(typing, "a\n")
	out := newBuffer()
	go func() {
		out.await(t, "a\n")
		fmt.Fprint(typing, "\x10\x11b\n")
	}()
	keys, err := term.ParseDetachKeys(term.DefaultDetachKeys)
	require.NoError(t, err)
	_, err = m.Run(t.Context(), h.argv(), machine.Streams{Stdin: term.NewDetach(in, keys), Stdout: out})
	require.ErrorIs(t, err, term.ErrDetached)

	// Its input has not ended; that of the next client is it.
	again := newBuffer()
	code, err := m.Attach(t.Context(), machine.Streams{Stdin: strings.NewReader("c\n"), Stdout: again})
	require.NoError(t, err)
	require.Zero(t, code)
	require.Equal(t, "c\n", again.String())
	require.Equal(t, "a\nc\n", logs(t, m, jsonlog.Options{Tail: -1}))
}

func TestSignals(t *testing.T) {
	h := newHost(t)
	m := h.create(`trap 'echo usr1' USR1; trap 'echo term; exit 3' TERM; echo ready; while :; do sleep 0.01; done`)
	signals := make(chan os.Signal, 1)
	out := newBuffer()
	done := make(chan int)
	go func() {
		code, err := m.Run(t.Context(), h.argv(), machine.Streams{Stdout: out, Signals: signals})
		require.NoError(t, err)
		done <- code
	}()
	out.await(t, "ready")
	signals <- unix.SIGUSR1
	out.await(t, "usr1")
	require.NoError(t, m.Signal(t.Context(), unix.SIGTERM))
	require.Equal(t, 3, <-done)
	require.ErrorIs(t, m.Signal(t.Context(), unix.SIGTERM), machine.ErrNotRunning)
}

func TestStop(t *testing.T) {
	tests := []struct {
		name, odd, script string
		timeout           time.Duration
		code              int
	}{
		{"it ends", "none", "trap 'exit 4' INT; echo ready; while :; do sleep 0.01; done", -1, 4},
		{"it does not, and is killed", "none", "trap '' INT; echo ready; while :; do sleep 0.01; done", 0, 137},
		{"it does at once, and the guest later", "written", "trap 'exit 4' INT; echo ready; while :; do sleep 0.01; done", time.Second, 4},
		{"the guest has time to write also where it was killed", "written", "trap '' INT; echo ready; while :; do sleep 0.01; done", 0, 137},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := newHost(t)
			h.odd = tt.odd
			m := h.start(tt.script, func(s *machine.Spec) { s.Process.StopSignal = "INT" })
			follow(t, m, "ready")
			waited := make(chan int)
			go func() {
				code, err := m.Wait(t.Context())
				require.NoError(t, err)
				waited <- code
			}()
			require.NoError(t, m.Stop(t.Context(), 0, tt.timeout))
			s := state(t, m)
			require.Equal(t, machine.Exited, s.Status)
			require.Equal(t, tt.code, s.ExitCode)
			require.Equal(t, tt.code, <-waited)
			if tt.odd == "written" {
				said, err := os.ReadFile(m.ConsoleFile())
				require.NoError(t, err)
				require.Contains(t, string(said), "all is written")
			}
		})
	}
}

// follow waits until the log has text in it.
func follow(t *testing.T, m *machine.Machine, text string) {
	t.Helper()
	found := errors.New("found")
	err := m.Logs(t.Context(), jsonlog.Options{Tail: -1, Follow: true}, func(e jsonlog.Entry) error {
		if strings.Contains(e.Log, text) {
			return found
		}
		return nil
	})
	require.ErrorIs(t, err, found)
}

// TestCrash: what has killed a machine's process is not hidden, and its name is free
// when it is removed.
func TestCrash(t *testing.T) {
	h := newHost(t)
	m := h.start("sleep 1000", func(s *machine.Spec) { s.Name = "victim" })
	waited := make(chan int)
	go func() {
		code, err := m.Wait(t.Context())
		require.NoError(t, err)
		waited <- code
	}()
	require.NoError(t, unix.Kill(state(t, m).PID, unix.SIGKILL))
	require.Equal(t, 137, <-waited)
	s := state(t, m)
	require.Equal(t, machine.Dead, s.Status)
	require.Equal(t, 137, s.ExitCode)
	require.Contains(t, s.Error, "ended without a word")
	_, err := h.Create(t.Context(), machine.Spec{Name: "victim"})
	require.ErrorIs(t, err, machine.ErrNameTaken)
	require.ErrorContains(t, err, m.ID())
	_, err = m.Exec(t.Context(), machine.Process{Argv: []string{"true"}}, machine.Streams{})
	require.ErrorIs(t, err, machine.ErrNotRunning)
	require.NoError(t, m.Remove(t.Context(), false))
	require.NoDirExists(t, m.Folder())
	again := h.create("true", func(s *machine.Spec) { s.Name = "victim" })
	require.NoError(t, again.Close())
}

// TestCrashOfOneThatIsToBeRemoved: the next look at the machines removes it.
func TestCrashOfOneThatIsToBeRemoved(t *testing.T) {
	h := newHost(t)
	m := h.start("sleep 1000", removed)
	pid := state(t, m).PID
	require.NoError(t, unix.Kill(pid, unix.SIGKILL))
	code, err := m.Wait(t.Context())
	require.NoError(t, err)
	require.Equal(t, 137, code)
	list, err := h.List()
	require.NoError(t, err)
	require.Empty(t, list)
	require.NoDirExists(t, m.Folder())
}

func TestExec(t *testing.T) {
	h := newHost(t)
	m := h.start("sleep 1000")
	out, errs := newBuffer(), newBuffer()
	code, err := m.Exec(t.Context(), machine.Process{
		Argv: []string{"/bin/sh", "-c", "cat; pwd; echo $A >&2; exit 9"}, Env: []string{"A=b"}, Dir: "/tmp",
	}, machine.Streams{Stdin: strings.NewReader("in "), Stdout: out, Stderr: errs})
	require.NoError(t, err)
	require.Equal(t, 9, code)
	require.Equal(t, "in /tmp\n", out.String())
	require.Equal(t, "b\n", errs.String())

	for argv, want := range map[string]int{"/no/such": 127, "/etc/passwd": 126} {
		_, err = m.Exec(t.Context(), machine.Process{Argv: []string{argv}}, machine.Streams{})
		var failed *machine.Failed
		require.ErrorAs(t, err, &failed)
		require.Equal(t, want, failed.Code)
		err = m.ExecDetached(t.Context(), machine.Process{Argv: []string{argv}})
		require.ErrorAs(t, err, &failed)
		require.Equal(t, want, failed.Code)
	}
	mark := filepath.Join(t.TempDir(), "mark")
	require.NoError(t, unix.Mkfifo(mark, 0o600))
	require.NoError(t, m.ExecDetached(t.Context(), machine.Process{Argv: []string{"/bin/sh", "-c", "echo done >" + mark}}))
	b, err := os.ReadFile(mark)
	require.NoError(t, err)
	require.Equal(t, "done\n", string(b))
}

// TestATerminalGoes: a shell of a terminal that is gone is not left behind.
func TestATerminalGoes(t *testing.T) {
	h := newHost(t)
	m := h.start("sleep 1000")
	mark := filepath.Join(t.TempDir(), "mark")
	require.NoError(t, unix.Mkfifo(mark, 0o600))
	ctx, cancel := context.WithCancel(t.Context())
	out := newBuffer()
	gone := make(chan error)
	in, _ := pipe(t)
	go func() {
		_, err := m.Exec(ctx, machine.Process{
			Argv: []string{"/bin/sh", "-c", "trap 'echo hup >" + mark + "; exit' HUP; stty size; while :; do sleep 0.01; done"}, TTY: true,
		}, machine.Streams{Stdin: in, Stdout: out, Size: agent.Size{Rows: 5, Cols: 60}})
		gone <- err
	}()
	out.await(t, "5 60")
	cancel()
	require.ErrorIs(t, <-gone, context.Canceled)
	b, err := os.ReadFile(mark)
	require.NoError(t, err)
	require.Equal(t, "hup\n", string(b))
}

func TestTTY(t *testing.T) {
	h := newHost(t)
	m := h.create(`trap 'stty size' WINCH; stty size; read x; echo "got $x"; read x`, tty)
	resizes := make(chan agent.Size, 1)
	in, typing := pipe(t)
	out := newBuffer()
	done := make(chan error)
	go func() {
		_, err := m.Run(t.Context(), h.argv(), machine.Streams{Stdin: in, Stdout: out, Size: agent.Size{Rows: 10, Cols: 20}, Resizes: resizes})
		done <- err
	}()
	out.await(t, "10 20")
	fmt.Fprintln(typing, "hello")
	out.await(t, "got hello\r\n")
	resizes <- agent.Size{Rows: 11, Cols: 22}
	fmt.Fprintln(typing, "bye")
	require.NoError(t, <-done)
}

func TestPause(t *testing.T) {
	h := newHost(t)
	m := h.start("sleep 1000", func(s *machine.Spec) { s.Name = "sleeper" })
	require.NoError(t, m.Pause(t.Context()))
	require.Equal(t, machine.Paused, state(t, m).Status)
	require.ErrorContains(t, m.Pause(t.Context()), "paused already")
	_, err := m.Exec(t.Context(), machine.Process{Argv: []string{"true"}}, machine.Streams{})
	require.ErrorContains(t, err, "cannot exec in a paused machine; resume it first (husk resume sleeper)")
	_, err = m.Attach(t.Context(), machine.Streams{})
	require.ErrorContains(t, err, "paused")
	require.ErrorContains(t, m.Signal(t.Context(), unix.SIGTERM), "paused")
	require.NoError(t, m.Resume(t.Context()))
	require.ErrorContains(t, m.Resume(t.Context()), "not paused")
	require.Equal(t, machine.Running, state(t, m).Status)
	require.NoError(t, m.Pause(t.Context()))
	require.NoError(t, m.Stop(t.Context(), unix.SIGTERM, -1), "it is resumed for that")
	require.Equal(t, 143, state(t, m).ExitCode)
}

func TestTimeout(t *testing.T) {
	h := newHost(t)
	m := h.create("sleep 1000", func(s *machine.Spec) { s.Timeout = time.Second })
	code, err := m.Run(t.Context(), h.argv(), machine.Streams{})
	var failed *machine.Failed
	require.ErrorAs(t, err, &failed)
	require.Equal(t, 124, code)
	require.Equal(t, 124, state(t, m).ExitCode)

	h.odd = "hangs"
	m = h.create("true", func(s *machine.Spec) { s.Timeout = time.Millisecond })
	require.ErrorAs(t, m.Start(t.Context(), h.argv()), &failed)
	require.Equal(t, 124, failed.Code)
}

// TestWhoStartsItGoes before the command has been started: nobody wants it then.
func TestWhoStartsItGoes(t *testing.T) {
	h := newHost(t)
	h.odd = "hangs"
	for _, attached := range []bool{true, false} {
		ctx, cancel := context.WithCancel(t.Context())
		m := h.create("true")
		gone := make(chan error)
		go func() {
			if attached {
				_, err := m.Run(ctx, h.argv(), machine.Streams{})
				gone <- err
				return
			}
			gone <- m.Start(ctx, h.argv())
		}()
		for { // until its socket is there
			if _, err := os.Stat(m.Folder() + "/control"); err == nil {
				break
			}
		}
		cancel()
		require.ErrorIs(t, <-gone, context.Canceled)
		s := state(t, m)
		require.Equal(t, machine.Created, s.Status)
		require.Contains(t, s.Error, "gone before")
	}
}

// TestASlowClient is waited for if it has started the machine, and else left behind.
func TestASlowClient(t *testing.T) {
	h := newHost(t)
	mark := filepath.Join(t.TempDir(), "mark")
	m := h.start("read x; head -c 8000000 /dev/zero; touch "+mark+"; read x", interactive)
	r, w := io.Pipe()
	in, typing := pipe(t)
	slow := make(chan error)
	go func() {
		_, err := m.Attach(t.Context(), machine.Streams{Stdin: in, Stdout: w})
		slow <- err
	}()
	fmt.Fprintln(typing, "go")
	for { // until the command has written it all, though nobody has read anything
		if _, err := os.Stat(mark); err == nil {
			break
		}
	}
	go func() { _, _ = io.Copy(io.Discard, r) }()
	defer w.Close()
	require.ErrorContains(t, <-slow, "not taken as fast")
	require.Len(t, logs(t, m, jsonlog.Options{Tail: -1}), 8000000)
}

func TestStats(t *testing.T) {
	h := newHost(t)
	m := h.start("sleep 1000")
	u, err := m.Stats(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 7, u.IO.ReadBytes)
	require.EqualValues(t, 1<<20, u.Memory.GuestRAM)
	require.Positive(t, u.CPU)
}

// TestAnIntruder: a program of the guest's that calls as the agent does is not heard.
func TestAnIntruder(t *testing.T) {
	h := newHost(t)
	h.odd = "intruder"
	m := h.start("trap 'exit 3' TERM; echo ready; while :; do sleep 0.01; done")
	follow(t, m, "ready")
	_, err := m.Stats(t.Context())
	require.NoError(t, err)
	require.NoError(t, m.Stop(t.Context(), unix.SIGTERM, -1))
	require.Equal(t, 3, state(t, m).ExitCode)
}

// TestALateQuestion: who has connected before the end hears of it also where the machine is
// removed with it.
func TestALateQuestion(t *testing.T) {
	h := newHost(t)
	m := h.start("trap 'exit 3' TERM; echo ready; while :; do sleep 0.01; done", removed)
	follow(t, m, "ready")
	conn, err := control.Dial(t.Context(), m.Folder(), m.ID())
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, m.Stop(t.Context(), 0, -1))
	require.NoDirExists(t, m.Folder())
	require.NoError(t, conn.Ask(control.Request{Op: control.Wait}))
	reply, err := conn.Reply()
	require.NoError(t, err)
	require.Equal(t, control.Reply{Last: true, Code: 3}, reply)
}

// TestConcurrentNames: of many that want a name, one gets it.
func TestConcurrentNames(t *testing.T) {
	h := newHost(t)
	var got, taken int
	var mu sync.Mutex
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			m, err := h.Create(t.Context(), machine.Spec{Name: "wanted"})
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				got++
				require.NoError(t, m.Close())
				return
			}
			require.ErrorIs(t, err, machine.ErrNameTaken)
			taken++
		})
	}
	all.Wait()
	require.Equal(t, 1, got)
	require.Equal(t, 19, taken)
}
