package agent

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// defaultPath is where programs are looked for when the environment has no PATH.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// A process is a command that runs.
type process struct {
	proc   *os.Process
	group  bool     // signals are for all of its process group
	tty    *os.File // its terminal's other end, or nil
	input  *os.File // where its input goes: the terminal or a pipe; nil for none
	output []*outputPipe
	copies sync.WaitGroup

	oomKills uint64 // how many there had been when it started

	mu    sync.Mutex
	ended bool // reaped: its number may be another's by now
	gone  func()
}

// launch starts a command with its ends tied to the streams. When it cannot, it
// says why, with the exit code for that. It is called on a thread of its own.
func (v *Server) launch(c start, stdin, stdout, stderr io.ReadWriteCloser) (*process, int, error) {
	prog, code, err := v.prepare(c)
	if err != nil {
		return nil, code, err
	}
	p := &process{group: v.Container == nil, oomKills: oomKills()}
	e, err := p.openEnds(c, prog)
	if err != nil {
		return nil, CodeFailed, err
	}
	p.proc, p.gone, err = v.start(prog)
	e.closeTheirs()
	if err != nil {
		e.closeOurs()
		code, err := whyNot(c.Argv[0], err)
		return nil, code, err
	}
	p.connect(e, stdin, stdout, stderr)
	return p, 0, nil
}

// prepare finds what a command needs in the root.
func (v *Server) prepare(c start) (*Program, int, error) {
	if len(c.Argv) == 0 || c.Argv[0] == "" {
		return nil, CodeNotFound, errors.New("no command given")
	}
	who, err := v.who(c)
	if err != nil {
		return nil, CodeFailed, err
	}
	dir := c.Dir
	if dir == "" {
		dir = "/"
	}
	if st, err := os.Stat(dir); err != nil {
		return nil, CodeNotExecutable, fmt.Errorf("working directory %s: %w", dir, reason(err))
	} else if !st.IsDir() {
		return nil, CodeNotExecutable, fmt.Errorf("working directory %s: %w", dir, unix.ENOTDIR)
	}
	file, code, err := lookPath(c.Argv[0], dir, c.Env)
	args := c.Argv
	if code == CodeNotFound && v.Builtin != nil {
		if b := v.Builtin(c.Argv); b != nil {
			file, args, err = b[0], b[1:], nil
		}
	}
	if err != nil {
		return nil, code, err
	}
	prog := &Program{Path: file, Argv: args, Env: v.environment(c, who), Dir: dir, Terminal: c.TTY}
	if who != nil {
		prog.User = credential(who)
	}
	return prog, 0, nil
}

// collect copies what the command writes to w.
func (p *process) collect(r *os.File, w io.Writer) {
	o := &outputPipe{file: r, rest: maxPipe}
	p.output = append(p.output, o)
	p.copies.Go(func() {
		_ = drain(w, o)
	})
}

// wait gives the exit code once the command has ended and its output is out.
func (p *process) wait() int {
	state, err := p.proc.Wait()
	p.mu.Lock()
	p.ended = true
	p.mu.Unlock()
	if p.gone != nil {
		p.gone()
	}
	// A child that lives on may hold the pipes open: take what is there.
	for _, o := range p.output {
		_ = o.file.SetReadDeadline(time.Now())
	}
	p.copies.Wait()
	if p.input != nil {
		_ = p.input.Close()
	}
	for _, o := range p.output {
		_ = o.file.Close()
	}
	if err != nil {
		return CodeNotExecutable
	}
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return codeSignal + int(ws.Signal())
	}
	return state.ExitCode()
}

// signal sends to the command and, outside of containers, its children.
func (p *process) signal(sig syscall.Signal) { p.send(sig, p.group) }

// kill ends the command and its children.
func (p *process) kill() { p.send(syscall.SIGKILL, true) }

func (p *process) send(sig syscall.Signal, group bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return
	}
	pid := p.proc.Pid
	if group {
		pid = -pid
	}
	_ = unix.Kill(pid, sig)
}

func (p *process) resize(s Size) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.tty == nil || p.ended {
		return
	}
	raw, err := p.tty.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: s.Rows, Col: s.Cols})
	})
}

// maxPipe is the most that a pipe holds unread, in bytes
// (/proc/sys/fs/pipe-max-size as it comes).
const maxPipe = 1 << 20

// An outputPipe reads to the end of the file or, once its deadline has passed,
// to the end of what has been written by then.
type outputPipe struct {
	file *os.File
	rest int // how much is read after the deadline, in bytes
}

func (o *outputPipe) Read(b []byte) (int, error) {
	n, err := o.file.Read(b)
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return n, err
	}
	raw, err := o.file.SyscallConn()
	if err != nil {
		return 0, err
	}
	b = b[:min(len(b), o.rest)]
	if cerr := raw.Control(func(fd uintptr) { n, err = unix.Read(int(fd), b) }); cerr != nil {
		return 0, cerr
	}
	if err != nil || n <= 0 { // EAGAIN: empty; EIO: a terminal that nobody holds
		return 0, io.EOF
	}
	o.rest -= n
	return n, nil
}

// lookPath finds a program as execvp(3) does, with the command's PATH and
// working directory in place of ours.
func lookPath(name, dir string, env []string) (string, int, error) {
	paths := defaultPath
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			paths = v
		}
	}
	var candidates []string
	if strings.Contains(name, "/") {
		candidates = []string{name}
	} else {
		for _, d := range filepath.SplitList(paths) {
			candidates = append(candidates, filepath.Join(d, name))
		}
	}
	code, why := CodeNotFound, errNotInPath
	if strings.Contains(name, "/") {
		why = unix.ENOENT
	}
	for _, c := range candidates {
		if !filepath.IsAbs(c) {
			c = filepath.Join(dir, c)
		}
		st, err := os.Stat(c)
		switch {
		case err != nil:
			continue
		case st.IsDir():
			code, why = CodeNotExecutable, unix.EISDIR
		case unix.Access(c, unix.X_OK) != nil:
			code, why = CodeNotExecutable, unix.EACCES
		default:
			return c, 0, nil
		}
	}
	return "", code, fmt.Errorf("exec: %q: %w", name, why)
}

// errNotInPath has the words of Docker's users, who look for them.
var errNotInPath = errors.New("executable file not found in $PATH")
