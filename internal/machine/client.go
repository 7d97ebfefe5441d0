package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/internal/machine/control"
)

// ErrNotRunning is that a machine has no guest to do something in.
var ErrNotRunning = errors.New("not running")

// DefaultStop is how long a command may take to end, where nobody says.
const DefaultStop = 10 * time.Second

// patience is how long the process of a machine may take that begins or ends.
const patience = 10 * time.Second

// dial connects to the machine's process.
func (m *Machine) dial(ctx context.Context) (*control.Conn, error) {
	for until := time.Now().Add(patience); ; {
		conn, err := control.Dial(ctx, m.folder, m.ID())
		if err == nil || ctx.Err() != nil || errors.Is(err, control.ErrProtocol) {
			return conn, err
		}
		state, serr := m.State()
		if serr != nil {
			return nil, serr
		}
		// Where the state says that there is a process, that begins or ends.
		if state.PID == 0 || time.Now().After(until) {
			return nil, m.notRunning(state)
		}
		if err := moment(ctx); err != nil {
			return nil, err
		}
	}
}

// notRunning says that a machine has no process.
func (m *Machine) notRunning(s State) error {
	return fmt.Errorf("machine %s is %w (%s)", m.Name(), ErrNotRunning, s.Status)
}

// call makes a request with one answer.
func (m *Machine) call(ctx context.Context, r control.Request) (control.Reply, error) {
	conn, err := m.dial(ctx)
	if err != nil {
		return control.Reply{}, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	if err = conn.Ask(r); err == nil {
		var reply control.Reply
		if reply, err = conn.Reply(); err == nil {
			return reply, failure(reply)
		}
	}
	return control.Reply{}, m.lost(ctx, err)
}

// lost is the error of a connection that has ended before its answer, by ctx or not.
func (m *Machine) lost(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if state, serr := m.State(); serr == nil && state.Error != "" {
		err = errors.New(state.Error)
	}
	return fmt.Errorf("machine %s: the connection to its process was lost: %w", m.Name(), err)
}

// failure is the error of a reply.
func failure(r control.Reply) error {
	if r.Error == "" {
		return nil
	}
	return errors.New(r.Error)
}

// Signal sends a signal to the machine's command, and to the others of its group.
func (m *Machine) Signal(ctx context.Context, signal unix.Signal) error {
	_, err := m.call(ctx, control.Request{Op: control.Signal, Number: int(signal)})
	return err
}

// Stop asks the command to end by a signal, its own stop signal for 0, and ends the machine
// in any case when the timeout is over; a negative one never is. It returns when the
// machine has ended.
func (m *Machine) Stop(ctx context.Context, signal unix.Signal, timeout time.Duration) error {
	_, err := m.call(ctx, control.Request{Op: control.Stop, Number: int(signal), Timeout: timeout})
	return err
}

// Kill ends the machine at once, and returns when it has ended.
func (m *Machine) Kill(ctx context.Context) error {
	asked, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_, err := m.call(asked, control.Request{Op: control.Kill})
	if asked.Err() == nil || ctx.Err() != nil {
		return err
	}
	// Its process does not answer.
	state, err := m.State()
	if err != nil {
		return err
	}
	return killProcess(state.PID, state.PIDStart)
}

// Pause stops the guest between two instructions, and Resume lets it go on.
func (m *Machine) Pause(ctx context.Context) error {
	_, err := m.call(ctx, control.Request{Op: control.Pause})
	return err
}

// Resume lets a paused guest go on.
func (m *Machine) Resume(ctx context.Context) error {
	_, err := m.call(ctx, control.Request{Op: control.Resume})
	return err
}

// Stats is what the machine has used so far.
func (m *Machine) Stats(ctx context.Context) (control.Usage, error) {
	r, err := m.call(ctx, control.Request{Op: control.Stats})
	if err != nil || r.Stats == nil {
		return control.Usage{}, err
	}
	return *r.Stats, nil
}

// Wait waits for the machine's end and gives its exit code, also where the machine is
// removed then. One that could not be started has ended.
func (m *Machine) Wait(ctx context.Context) (int, error) {
	seen := false // it runs, or has run
	for {
		held, err := locked(filepath.Join(m.folder, lockFile))
		if err != nil {
			return 0, err
		}
		state, err := m.State()
		switch {
		case errors.Is(err, ErrNotFound) && seen:
			return CodeKilled, nil // removed by another, as its process could not tell how it ended
		case err != nil:
			return 0, err
		case state.Status == Exited, state.Status == Dead, !held: // what nobody holds stays as it is
			return state.ExitCode, nil
		}
		if state.PID != 0 {
			r, err := m.call(ctx, control.Request{Op: control.Wait})
			if err == nil {
				return r.Code, nil
			}
			seen = true
		}
		if err := moment(ctx); err != nil {
			return 0, err
		}
	}
}

// ErrRunning is that a machine runs that must not.
var ErrRunning = errors.New("the machine is running; stop it first (husk stop), or use force (-f)")

// Remove removes a machine and all that it has written. One that runs is killed if force is
// set, and else an ErrRunning.
func (m *Machine) Remove(ctx context.Context, force bool) error {
	state, err := m.State()
	if err != nil {
		return err
	}
	if state.PID != 0 && state.Status != Exited {
		if !force {
			return fmt.Errorf("%s (%s): %w", m.Name(), state.Status, ErrRunning)
		}
		if err := m.Kill(ctx); err != nil && !errors.Is(err, ErrNotRunning) {
			return err
		}
	}
	bound, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("%s: its process goes on, or it is being started", m.Name()))
	defer cancel()
	l, err := m.takeLock(bound)
	if errors.Is(err, os.ErrNotExist) { // it has removed itself
		return nil
	}
	if err != nil {
		return err
	}
	defer l.Close()
	return m.erase()
}

// takeLock waits for the lock of a machine that is there.
func (m *Machine) takeLock(ctx context.Context) (*os.File, error) {
	if m.lock != nil {
		l := m.lock
		m.lock = nil
		return l, nil
	}
	if _, err := os.Stat(filepath.Join(m.folder, specFile)); err != nil {
		return nil, err
	}
	return lock(ctx, filepath.Join(m.folder, lockFile))
}
