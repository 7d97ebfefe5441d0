package machine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/internal/epitaph"
	"github.com/huskvm/husk/internal/machine/control"
)

// The descriptors that a machine's process gets from who starts it.
const (
	lockFD    = 3 // the machine's lock, held
	starterFD = 4 // a connection to who starts it
)

// CodeFailed is the exit code of a failure that is husk's, and not the command's.
const CodeFailed = 125

// Start starts a machine that Create has made: argv are husk and its hidden verb, to which
// the machine's folders are added. It returns when the main command has been started; the
// machine goes on by itself then. A Failed is why it could not be; such a machine is
// still there, unless it was to be removed.
func (m *Machine) Start(ctx context.Context, argv []string) error {
	_, err := m.start(ctx, argv, nil)
	return err
}

// Run is Start with the client at the command's ends from the beginning, so that nothing of
// its output is missed, until the machine has ended. It gives the command's exit code, or a
// term.ErrDetached. What the client does not take, the command waits to write.
func (m *Machine) Run(ctx context.Context, argv []string, s Streams) (int, error) {
	return m.start(ctx, argv, &s)
}

func (m *Machine) start(ctx context.Context, argv []string, s *Streams) (int, error) {
	socket, ended, err := m.launch(argv)
	if err != nil {
		_ = m.Close()
		m.removeUnstarted()
		return 0, &Failed{CodeFailed, err.Error()}
	}
	r := control.Request{Op: control.Start}
	if s != nil {
		r.Attach = s.ends()
	} else {
		s = new(Streams)
	}
	code, started, err := m.firstConversation(ctx, socket, r, *s)
	if !started || r.Attach != nil && err == nil || errors.As(err, new(*Failed)) {
		select { // for the process ends
		case <-ended:
		case <-time.After(patience):
		}
	}
	if !started && err != nil {
		m.removeUnstarted()
	}
	return code, err
}

// firstConversation is converse with a process that begins: its hello, or its last words.
func (m *Machine) firstConversation(ctx context.Context, socket net.Conn, r control.Request, s Streams) (code int, started bool, err error) {
	conn, err := control.Client(ctx, socket, m.ID())
	if err == nil {
		return m.converse(ctx, conn, r, s)
	}
	if ctx.Err() != nil {
		return 0, false, context.Cause(ctx)
	}
	reason := "the machine's process ended at its start"
	if line := epitaph.LastLine(filepath.Join(m.folder, wordsFile)); line != "" {
		reason = strings.TrimPrefix(line, "husk: ")
	} else if !errors.Is(err, io.EOF) {
		reason = err.Error()
	}
	return 0, false, &Failed{CodeFailed, reason}
}

// removeUnstarted removes a machine that could not be started and is not wanted then.
func (m *Machine) removeUnstarted() {
	if !m.spec.AutoRemove {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_ = m.Remove(ctx, true)
}

// launch starts the process, in a session of its own. ended is closed when it has ended.
func (m *Machine) launch(argv []string) (_ net.Conn, ended <-chan struct{}, err error) {
	if m.lock == nil {
		return nil, nil, fmt.Errorf("machine %s has been started already", m.Name())
	}
	words, err := os.OpenFile(filepath.Join(m.folder, wordsFile), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, nil, err
	}
	defer words.Close()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "machine"), os.NewFile(uintptr(fds[1]), "starter")
	defer ours.Close()
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, nil, err
	}
	args := append(append([]string{}, argv[1:]...), m.folder, m.data)
	cmd := exec.Command(argv[0], args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = "/", words, words
	cmd.ExtraFiles = []*os.File{m.lock, theirs}
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true} // no signal and no key of a terminal reaches it
	if err := cmd.Start(); err != nil {
		_ = conn.Close()
		return nil, nil, fmt.Errorf("start the machine's process: %w", err)
	}
	_ = m.Close() // the lock is the process's
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = cmd.Wait() // how it ended, the machine's state tells
	}()
	return conn, done, nil
}

// Inherited is what a machine's process has from who started it.
type Inherited struct {
	*Machine
	// Starter is the connection to who started it.
	Starter net.Conn
	held    *os.File // for as long as the process is there
}

// Inherit is for the machine's process: args are the last two of its arguments.
func Inherit(args []string) (*Inherited, error) {
	if len(args) != 2 {
		return nil, errors.New("a machine's process is started by husk itself")
	}
	folder := args[0]
	held, theirs := os.NewFile(lockFD, "lock"), os.NewFile(starterFD, "starter")
	for _, fd := range []int{lockFD, starterFD} {
		unix.CloseOnExec(fd)
	}
	defer theirs.Close()
	starter, err := net.FileConn(theirs)
	if err != nil {
		return nil, fmt.Errorf("a machine's process is started by husk itself: %w", err)
	}
	id := filepath.Base(folder)
	m, err := (&Machines{filepath.Dir(folder), filepath.Dir(args[1])}).open(id)
	if err != nil {
		return nil, err
	}
	return &Inherited{m, starter, held}, nil
}

// Release gives the lock up: who looks from then on sees the last state as final.
func (i *Inherited) Release() error { return i.held.Close() }

// killProcess ends a process that was started at that moment.
func killProcess(pid int, start uint64) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil // it is gone
	}
	defer unix.Close(fd)
	if at, err := ProcessStart(pid); err != nil || at != start {
		return nil // it is another
	}
	return unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
}

// ProcessStart is when a process was started, in clock ticks since the host's boot
// (proc_pid_stat(5)).
func ProcessStart(pid int) (uint64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	var start uint64
	// The second field is in parentheses, and may have blanks.
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	const at = 22 - 3
	if len(fields) <= at {
		return 0, fmt.Errorf("/proc/%d/stat: too few fields", pid)
	}
	_, err = fmt.Sscan(fields[at], &start)
	return start, err
}
