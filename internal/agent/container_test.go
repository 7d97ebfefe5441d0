package agent

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// inPlace is a container that is where the test is.
type inPlace struct {
	firsts, joins int
	fail          error
}

func (c *inPlace) First(p *Program) (*os.Process, error) {
	if c.fail != nil {
		err := c.fail
		c.fail = nil
		return nil, err
	}
	c.firsts++
	return os.StartProcess(p.Path, p.Argv, &os.ProcAttr{
		Dir: p.Dir, Env: p.Env, Files: p.Files[:], Sys: &syscall.SysProcAttr{Setsid: true},
	})
}

func (c *inPlace) Join() error {
	c.joins++
	return nil
}

// TestContainerCommands: the first that starts is the main one, the others join it, and
// none is run when it has ended.
func TestContainerCommands(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root may take on a user, even the own")
	}
	where := &inPlace{fail: &os.PathError{Op: "exec", Path: "x", Err: syscall.ENOEXEC}}
	enter := func() error { return syscall.Unshare(syscall.CLONE_FS) }
	c := pairOf(t, &Server{Container: where, Enter: enter}, heartbeat, patience)
	run := func(cmd Command) (End, string) {
		var out bytes.Buffer
		cmd.Stdout, cmd.Env = &out, env()
		end, err := c.RunToEnd(t.Context(), cmd)
		require.NoError(t, err)
		return end, out.String()
	}
	end, _ := run(Command{Argv: []string{"true"}})
	require.Equal(t, End{Code: 126, Error: "exec true: exec format error"}, end)
	require.Zero(t, where.firsts)
	end, _ = run(Command{Argv: []string{"true"}, User: "nobody-at-all"})
	require.Equal(t, End{Code: 125, Error: "unable to find user nobody-at-all: no matching entries in passwd file"}, end)

	child := filepath.Join(t.TempDir(), "pid")
	signals := make(chan os.Signal)
	ready := make(chan struct{})
	main := make(chan End, 1)
	go func() {
		out := &trigger{word: "ready", do: func() { close(ready) }}
		end, err := c.RunToEnd(t.Context(), Command{
			// The child stays: a signal is for the main process alone.
			Argv: []string{"sh", "-c", `trap "exit 9" TERM; sleep 1000 & echo $! >"$1"; echo ready; while :; do sleep 0.05; done`, "sh", child},
			Env:  env(), Stdout: out, Signals: signals,
		})
		if err != nil {
			t.Error(err)
		}
		main <- end
	}()
	<-ready
	require.Equal(t, 1, where.firsts)

	dir := t.TempDir()
	end, out := run(Command{Argv: []string{"sh", "-c", "pwd; readlink /proc/self/fd/0; ps -o sid= -p $$ | grep -q $$ && echo its own session"}, Dir: dir})
	require.Zero(t, end)
	require.Equal(t, dir+"\n/dev/null\nits own session\n", out)
	end, out = run(Command{Argv: []string{"sh", "-c", "id -u; id -G; echo; echo x >/dev/stdout"}, User: "1234:77", Groups: []string{"9"}, Dir: dir})
	require.Zero(t, end)
	require.Equal(t, "1234\n77 9\n\nx\n", out)
	end, out = run(Command{Argv: []string{"env"}, TTY: true})
	require.Zero(t, end)
	require.Contains(t, out, "TERM=xterm\r\n")
	host, err := os.Hostname()
	require.NoError(t, err)
	require.Contains(t, out, "HOSTNAME="+host+"\r\n")
	require.Contains(t, out, "HOME=/root\r\n")
	require.Equal(t, 3, where.joins)

	signals <- syscall.SIGTERM
	require.Equal(t, End{Code: 9}, <-main)
	kill(t, child)
	end, _ = run(Command{Argv: []string{"true"}})
	require.Equal(t, End{Code: 125, Error: "the container's main command has ended"}, end)
}

// TestRefusedCalls: who waits for a guest that cannot serve learns why.
func TestRefusedCalls(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "socket"))
	require.NoError(t, err)
	c := Answer(l)
	defer c.Close()
	conn, err := net.Dial("unix", l.Addr().String())
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, Refuse(conn, os.ErrNotExist))
	_, err = c.Client(t.Context())
	require.ErrorIs(t, err, ErrGuest)
	require.True(t, strings.HasSuffix(err.Error(), os.ErrNotExist.Error()))
	n, _ := conn.Read(make([]byte, 1))
	require.Zero(t, n, "the host has read it, and closes")
}

func TestOOMKills(t *testing.T) {
	b, err := os.ReadFile("/proc/vmstat")
	require.NoError(t, err)
	if !bytes.Contains(b, []byte("\noom_kill ")) {
		t.Skip("this kernel does not count them")
	}
	require.LessOrEqual(t, oomKills(), oomKills())
}
