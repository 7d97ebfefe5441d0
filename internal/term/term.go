// Package term is the person's end of a console: raw mode that is undone
// whatever happens, the Ctrl-A keys, reads that can be interrupted, and the
// window's size.
package term

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"

	"golang.org/x/sys/unix"
)

// A Terminal is a terminal in raw mode: keys come one by one and unchanged,
// Ctrl-C is a byte like any other, and output is not rewritten.
type Terminal struct {
	f     *os.File
	mu    sync.Mutex
	saved *unix.Termios // nil once restored
	guard *guard
}

// IsTerminal says whether f is a terminal.
func IsTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// MakeRaw puts the terminal f into raw mode, and Restore undoes it.
//
// A process that is killed restores nothing, and a panic in another goroutine
// runs no deferred call. So MakeRaw starts a guard, a process that waits for
// this one's end and then restores the terminal: this executable again, called
// with the arguments guardArgs. Those must lead to a call of Guard.
func MakeRaw(f *os.File, guardArgs ...string) (*Terminal, error) {
	saved, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		return nil, fmt.Errorf("%s is not a terminal: %w", f.Name(), err)
	}
	g, err := startGuard(f, saved, guardArgs)
	if err != nil {
		return nil, fmt.Errorf("start the process that guards the terminal: %w; is /proc mounted?", err)
	}
	raw := rawMode(*saved)
	if err := unix.IoctlSetTermios(int(f.Fd()), unix.TCSETS, &raw); err != nil {
		g.stop()
		return nil, fmt.Errorf("set raw mode on %s: %w", f.Name(), err)
	}
	return &Terminal{f: f, saved: saved, guard: g}, nil
}

// Restore puts the terminal back as MakeRaw found it. It may be called more
// than once and from any goroutine.
func (t *Terminal) Restore() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.saved == nil {
		return nil
	}
	// TCSETS does not wait for output to drain: that could take forever where
	// the other side has stopped reading.
	err := unix.IoctlSetTermios(int(t.f.Fd()), unix.TCSETS, t.saved)
	if err != nil {
		err = fmt.Errorf("restore the terminal %s: %w", t.f.Name(), err)
	}
	t.guard.stop()
	t.saved = nil
	return err
}

// raw says whether the terminal has yet to be restored.
func (t *Terminal) raw() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.saved != nil
}

// Writer writes to w with each newline preceded by a carriage return while the
// terminal is raw. It is for what husk itself has to say meanwhile.
func (t *Terminal) Writer(w io.Writer) io.Writer { return &newlineWriter{t: t, w: w} }

type newlineWriter struct {
	t *Terminal
	w io.Writer
}

func (n *newlineWriter) Write(p []byte) (int, error) {
	// Not under the lock: a write may be stuck for ever, and Restore must not wait.
	if !n.t.raw() {
		return n.w.Write(p)
	}
	if _, err := n.w.Write(bytes.ReplaceAll(p, []byte("\n"), []byte("\r\n"))); err != nil {
		return 0, err
	}
	return len(p), nil
}

// A Size is a terminal window's size in characters.
type Size struct{ Rows, Columns int }

// SizeOf asks the terminal f for its window's size.
func SizeOf(f *os.File) (Size, error) {
	w, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return Size{}, fmt.Errorf("window size of %s: %w", f.Name(), err)
	}
	return Size{Rows: int(w.Row), Columns: int(w.Col)}, nil
}

// Follow calls resized with the window size of the terminal f, at once and on
// each change (SIGWINCH) until ctx ends. It returns when ctx has ended.
func Follow(ctx context.Context, f *os.File, resized func(Size)) {
	changes := make(chan os.Signal, 1)
	signal.Notify(changes, unix.SIGWINCH)
	defer signal.Stop(changes)
	for {
		if size, err := SizeOf(f); err == nil {
			resized(size)
		}
		select {
		case <-ctx.Done():
			return
		case <-changes:
		}
	}
}

// rawMode is t with all that a terminal does to bytes turned off (termios(3),
// cfmakeraw).
func rawMode(t unix.Termios) unix.Termios {
	t.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	t.Oflag &^= unix.OPOST
	t.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	t.Cflag = t.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	t.Cc[unix.VMIN] = 1
	t.Cc[unix.VTIME] = 0
	return t
}
