package agent

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// defaultPath is where programs are looked for when the environment has no PATH.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// A process is a command that runs.
type process struct {
	cmd    *exec.Cmd
	tty    *os.File // its terminal's other end, or nil
	input  *os.File // where its input goes: the terminal or a pipe
	output []*outputPipe
	copies sync.WaitGroup

	mu    sync.Mutex
	ended bool // reaped: its number may be another's by now
}

// launch starts a command with its ends tied to the streams. When it cannot, it
// says why, with the exit code a shell would give.
func (v *Server) launch(c start, stdin, stdout, stderr io.ReadWriteCloser) (*process, int, error) {
	if len(c.Argv) == 0 || c.Argv[0] == "" {
		return nil, CodeNotFound, errors.New("no command given")
	}
	dir := c.Dir
	if dir == "" {
		dir = "/"
	}
	if st, err := os.Stat(dir); err != nil || !st.IsDir() {
		return nil, CodeNotExecutable, fmt.Errorf("working directory %s: not there in the guest", dir)
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
	p := &process{cmd: &exec.Cmd{Path: file, Args: args, Env: withDefaults(c.Env), Dir: dir}}
	if c.TTY {
		err = p.startTTY(c.Size, stdin, stdout)
	} else {
		err = p.startPipes(stdin, stdout, stderr)
	}
	if err != nil {
		return nil, CodeNotExecutable, fmt.Errorf("%s: %w", c.Argv[0], err)
	}
	return p, 0, nil
}

// withDefaults adds what no program does well without, unless it is there: PATH
// and HOME.
func withDefaults(env []string) []string {
	has := func(name string) bool {
		return slices.ContainsFunc(env, func(e string) bool { return strings.HasPrefix(e, name+"=") })
	}
	env = slices.Clone(env)
	if !has("PATH") {
		env = append(env, "PATH="+defaultPath)
	}
	if !has("HOME") {
		home := "/root"
		if _, err := os.Stat(home); err != nil {
			home = "/"
		}
		env = append(env, "HOME="+home)
	}
	return env
}

// startTTY gives the command a terminal of its own.
func (p *process) startTTY(size Size, stdin io.ReadCloser, stdout io.Writer) error {
	blocking, err := pty.StartWithSize(p.cmd, &pty.Winsize{Rows: size.Rows, Cols: size.Cols})
	if err != nil {
		return err
	}
	tty, err := pollable(blocking)
	if err != nil {
		_ = unix.Kill(-p.cmd.Process.Pid, unix.SIGKILL)
		_ = p.cmd.Wait()
		return err
	}
	p.tty, p.input = tty, tty
	p.collect(tty, stdout)
	go func() {
		// The end of the input is not the terminal's: it stays.
		_, _ = io.Copy(tty, stdin)
		_ = stdin.Close()
	}()
	return nil
}

// pollable gives the same file with deadlines: the library's is a blocking one.
func pollable(f *os.File) (*os.File, error) {
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("fcntl: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("fcntl: %w", err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// startPipes gives the command three pipes, and a process group of its own so
// that a signal reaches its children as a terminal's would.
func (p *process) startPipes(stdin io.ReadCloser, stdout, stderr io.Writer) (err error) {
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var theirs, ours []*os.File
	defer func() {
		for _, f := range theirs {
			_ = f.Close()
		}
		if err != nil {
			for _, f := range ours {
				_ = f.Close()
			}
		}
	}()
	for i := range 3 {
		r, w, err := os.Pipe()
		if err != nil {
			return fmt.Errorf("pipe: %w", err)
		}
		if i == 0 {
			theirs, ours = append(theirs, r), append(ours, w)
		} else {
			theirs, ours = append(theirs, w), append(ours, r)
		}
	}
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = theirs[0], theirs[1], theirs[2]
	if err := p.cmd.Start(); err != nil {
		return err
	}
	p.input = ours[0]
	p.collect(ours[1], stdout)
	p.collect(ours[2], stderr)
	go func() {
		_, _ = io.Copy(p.input, stdin)
		_ = p.input.Close()
		_ = stdin.Close()
	}()
	return nil
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
	err := p.cmd.Wait()
	p.mu.Lock()
	p.ended = true
	p.mu.Unlock()
	// A child that lives on may hold the pipes open: take what is there.
	for _, o := range p.output {
		_ = o.file.SetReadDeadline(time.Now())
	}
	p.copies.Wait()
	_ = p.input.Close()
	for _, o := range p.output {
		_ = o.file.Close()
	}
	state := p.cmd.ProcessState
	if state == nil {
		return CodeNotExecutable
	}
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return codeSignal + int(ws.Signal())
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return CodeNotExecutable
	}
	return state.ExitCode()
}

// signal sends to the command and its children.
func (p *process) signal(sig syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.ended {
		_ = unix.Kill(-p.cmd.Process.Pid, sig)
	}
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
	code, reason := CodeNotFound, errors.New("command not found")
	if strings.Contains(name, "/") {
		reason = fs.ErrNotExist
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
			code, reason = CodeNotExecutable, syscall.EISDIR
		case unix.Access(c, unix.X_OK) != nil:
			code, reason = CodeNotExecutable, fs.ErrPermission
		default:
			return c, 0, nil
		}
	}
	return "", code, fmt.Errorf("%s: %w", name, reason)
}
