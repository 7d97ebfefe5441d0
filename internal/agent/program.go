package agent

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Program is what is started for a command: a file, and all that it is started with.
type Program struct {
	Path string
	Argv []string // with argument 0
	Env  []string
	Dir  string // where it starts; the user need not have a right to enter it
	// User is who runs it; nil for who starts it.
	User *syscall.Credential
	// Files are its standard input, output and error.
	Files [3]*os.File
	// Terminal says that they are one, which controls the program's session.
	Terminal bool
}

// start starts a program, in a container as one of its processes. gone, unless nil,
// is to be called when it has ended.
func (v *Server) start(p *Program) (proc *os.Process, gone func(), err error) {
	if v.Container == nil {
		sys := &syscall.SysProcAttr{Credential: p.User}
		if p.Terminal {
			sys.Setsid, sys.Setctty = true, true // its file 0
		} else {
			sys.Setpgid = true // so that a signal reaches its children as a terminal's would
		}
		proc, err = os.StartProcess(p.Path, p.Argv, &os.ProcAttr{Dir: p.Dir, Env: p.Env, Files: p.Files[:], Sys: sys})
		return proc, nil, err
	}
	m := &v.main
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.ended:
		return nil, nil, errMainEnded
	case !m.started:
		if proc, err = v.Container.First(p); err != nil {
			return nil, nil, err
		}
		m.started = true
		return proc, func() {
			m.mu.Lock()
			m.ended = true
			m.mu.Unlock()
		}, nil
	}
	if err := v.Container.Join(); err != nil {
		return nil, nil, err
	}
	// Enter has given this thread a working directory of its own. As root, who may go
	// anywhere: the program then starts there.
	if err := unix.Chdir(p.Dir); err != nil {
		return nil, nil, &os.PathError{Op: "chdir", Path: p.Dir, Err: err}
	}
	sys := &syscall.SysProcAttr{Credential: p.User, Setsid: true, Setctty: p.Terminal}
	proc, err = os.StartProcess(p.Path, p.Argv, &os.ProcAttr{Env: p.Env, Files: p.Files[:], Sys: sys})
	return proc, nil, err
}

var errMainEnded = errors.New("the container's main command has ended")

// whyNot says why a program that is there could not be started, with the code that a
// shell has for that: a script's interpreter may be missing, or the file no program.
func whyNot(name string, err error) (int, error) {
	if errors.Is(err, errMainEnded) {
		return CodeFailed, err
	}
	code := CodeNotExecutable
	if errors.Is(err, unix.ENOENT) {
		code = CodeNotFound
	}
	var step *os.SyscallError
	if errors.As(err, &step) { // not the program's file, but what came before
		return CodeNotExecutable, fmt.Errorf("exec %s: %w", name, err)
	}
	return code, fmt.Errorf("exec %s: %w", name, reason(err))
}

// reason is an error without what was done to which file: that is told otherwise.
func reason(err error) error {
	var errno unix.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

// oomKills is how many processes the kernel has ended for want of memory since it
// started; 0 where that cannot be known.
func oomKills() uint64 {
	b, err := os.ReadFile("/proc/vmstat")
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(b), "\noom_kill ")
	text, _, _ := strings.Cut(rest, "\n")
	n, _ := strconv.ParseUint(text, 10, 64)
	return n
}
