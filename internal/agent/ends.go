package agent

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// An ends is the files between a command and its streams: of theirs, which the
// program has, the agent has the other ends.
type ends struct {
	theirs, ours []*os.File
}

func (e *ends) closeTheirs() { closeFiles(e.theirs) }
func (e *ends) closeOurs()   { closeFiles(e.ours) }

func closeFiles(list []*os.File) {
	for _, f := range list {
		_ = f.Close()
	}
}

// openEnds gives the program its standard files.
func (p *process) openEnds(c start, prog *Program) (*ends, error) {
	e := new(ends)
	var err error
	if c.TTY {
		err = p.openTerminal(c.Size, prog, e)
	} else {
		err = openPipes(c.NoInput, prog, e)
	}
	if err != nil {
		e.closeTheirs()
		e.closeOurs()
		return nil, err
	}
	return e, nil
}

// openTerminal makes a terminal, the program's user's own.
func (p *process) openTerminal(size Size, prog *Program, e *ends) error {
	blocking, theirs, err := pty.Open()
	if err != nil {
		return fmt.Errorf("terminal: %w", err)
	}
	e.theirs = append(e.theirs, theirs)
	if err := pty.Setsize(blocking, &pty.Winsize{Rows: size.Rows, Cols: size.Cols}); err != nil {
		_ = blocking.Close()
		return fmt.Errorf("terminal: %w", err)
	}
	tty, err := pollable(blocking)
	if err != nil {
		return err
	}
	e.ours = append(e.ours, tty)
	if prog.User != nil { // the group is that of all terminals
		if err := theirs.Chown(int(prog.User.Uid), -1); err != nil {
			return fmt.Errorf("terminal: %w", err)
		}
	}
	prog.Files = [3]*os.File{theirs, theirs, theirs}
	p.tty = tty
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

// openPipes makes three pipes, or two where there is no input.
func openPipes(noInput bool, prog *Program, e *ends) error {
	for i := range prog.Files {
		if i == 0 && noInput {
			null, err := endedInput(os.DevNull)
			if err != nil {
				return err
			}
			e.theirs, prog.Files[0] = append(e.theirs, null), null
			continue
		}
		r, w, err := os.Pipe()
		if err != nil {
			return fmt.Errorf("pipe: %w", err)
		}
		theirs, ours := w, r
		if i == 0 {
			theirs, ours = r, w
		}
		if prog.User != nil { // who opens /dev/stdout opens the pipe anew
			if err := theirs.Chown(int(prog.User.Uid), -1); err != nil {
				_, _ = r.Close(), w.Close()
				return fmt.Errorf("pipe: %w", err)
			}
		}
		prog.Files[i] = theirs
		e.theirs, e.ours = append(e.theirs, theirs), append(e.ours, ours)
	}
	return nil
}

// endedInput is an input that has ended: /dev/null, or where there is none yet, as in an
// initramfs, a pipe that nobody writes to.
func endedInput(null string) (*os.File, error) {
	f, err := os.Open(null)
	if !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("pipe: %w", err)
	}
	return r, w.Close()
}

// connect ties the agent's ends of a program that runs to the streams.
func (p *process) connect(e *ends, stdin io.ReadCloser, stdout, stderr io.Writer) {
	if p.tty != nil {
		p.input = p.tty
		p.collect(p.tty, stdout)
		go func() {
			// The end of the input is not the terminal's: it stays.
			_, _ = io.Copy(p.tty, stdin)
			_ = stdin.Close()
		}()
		return
	}
	ours := e.ours
	if len(ours) == len(Program{}.Files) {
		p.input, ours = ours[0], ours[1:]
	}
	p.collect(ours[0], stdout)
	p.collect(ours[1], stderr)
	go func() {
		if p.input != nil {
			_, _ = io.Copy(p.input, stdin)
			_ = p.input.Close()
		}
		_ = stdin.Close()
	}()
}
