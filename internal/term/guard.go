package term

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// guardName is what the guard is called in process lists: not like its parent,
// so that killing that one by name spares the guard.
const guardName = "term-guard"

// guardPipe is the guard's file descriptor of the pipe: the first after the
// standard three.
const guardPipe = 3

// A guard is the process that restores the terminal when this one cannot. It
// gets the terminal as its standard input and a pipe whose other end only this
// process holds. The saved mode comes through the pipe, and end of file means
// that this process is gone.
type guard struct {
	process *os.Process
	pipe    *os.File
}

func startGuard(terminal *os.File, saved *unix.Termios, args []string) (*guard, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()
	if err := binary.Write(w, binary.NativeEndian, saved); err != nil {
		_ = w.Close()
		return nil, err
	}
	p, err := os.StartProcess("/proc/self/exe", append([]string{guardName}, args...), &os.ProcAttr{
		Files: []*os.File{terminal, nil, nil, r},
		// A session of its own: no signal to this process's group, and no key
		// pressed on the terminal, reaches the guard.
		Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		_ = w.Close()
		return nil, err
	}
	return &guard{process: p, pipe: w}, nil
}

// stop ends the guard. The terminal must be restored by then. Killing it is
// what makes sure that it does nothing more.
func (g *guard) stop() {
	_ = g.process.Kill()
	_, _ = g.process.Wait()
	_ = g.pipe.Close()
}

// Guard is the guard's whole work: it waits for the process that started it to
// end, and restores the terminal.
func Guard() error {
	signal.Ignore(unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGTTOU)
	// The name is a courtesy, so a failure is none.
	_ = os.WriteFile("/proc/self/comm", []byte(guardName), 0)

	pipe := os.NewFile(guardPipe, "pipe")
	if pipe == nil {
		return fmt.Errorf("%s is started by husk alone: descriptor %d is missing", guardName, guardPipe)
	}
	var saved unix.Termios
	if err := binary.Read(pipe, binary.NativeEndian, &saved); err != nil {
		return fmt.Errorf("%s is started by husk alone: read the saved mode: %w", guardName, err)
	}
	if _, err := io.Copy(io.Discard, pipe); err != nil {
		return fmt.Errorf("wait for the end of husk: %w", err)
	}
	return unix.IoctlSetTermios(int(os.Stdin.Fd()), unix.TCSETS, &saved)
}
