package machine

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/huskvm/husk/devices/netdev"
	"github.com/huskvm/husk/internal/epitaph"
)

// A Status is what a machine is doing.
type Status string

// The statuses.
const (
	Created  Status = "created"  // its command has not been started yet, or could not be
	Running  Status = "running"  //
	Paused   Status = "paused"   //
	Stopping Status = "stopping" // it was asked to end
	Exited   Status = "exited"   // its command has ended
	Dead     Status = "dead"     // its process was killed, and could not say how it ended
)

// Alive tells whether there is a guest with a command in it.
func (s Status) Alive() bool { return s == Running || s == Paused || s == Stopping }

// A State is how a machine is. Its process alone writes it.
type State struct {
	Status Status `json:"status"`
	// PID is that of the machine's process, 0 when there is none, and PIDStart when it
	// was started, in clock ticks since the host's boot (proc_pid_stat(5), field 22): together
	// they name a process for ever.
	PID      int    `json:"pid"`
	PIDStart uint64 `json:"pid_start,omitempty"`

	Started  time.Time `json:"started"`  // its command; zero before
	Finished time.Time `json:"finished"` // zero before, and where nobody knows
	ExitCode int       `json:"exit_code"`
	Error    string    `json:"error,omitempty"` // what went wrong, besides the command
	// OOMKilled says that the host's memory limit was what ended it.
	OOMKilled bool `json:"oom_killed"`

	Ports []netdev.Publish `json:"ports,omitempty"` // as they are bound
	IP    string           `json:"ip,omitempty"`    // of the first network card, where that is known

	Group string `json:"group,omitempty"` // the folder of its control group, where it has one
}

// CodeKilled is the exit code of what SIGKILL has ended.
const CodeKilled = 137

// readState reads what a machine's process has written; nil where it has not yet.
func readState(folder string) (*State, error) {
	b, err := os.ReadFile(filepath.Join(folder, stateFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	s := new(State)
	if err := json.Unmarshal(b, s); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(folder, stateFile), err)
	}
	return s, nil
}

// WriteState writes a machine's state. It is for the machine's process.
func (m *Machine) WriteState(s State) error {
	return writeJSON(filepath.Join(m.folder, stateFile), s)
}

// writeJSON replaces a file as a whole.
func writeJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	tmp := path + ".new"
	if err := os.WriteFile(tmp, append(b, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

// State is how the machine is now. Where its process is gone without a word, it is Dead,
// whatever that has written before.
func (m *Machine) State() (State, error) {
	// The lock first: if it is free, what the process has written is its last word.
	held, err := locked(filepath.Join(m.folder, lockFile))
	if err != nil {
		return State{}, err
	}
	s, err := readState(m.folder)
	if err != nil {
		return State{}, err
	}
	if s == nil {
		if _, err := os.Stat(m.folder); err != nil {
			return State{}, fmt.Errorf("%w: %s", ErrNotFound, m.Name())
		}
		return State{Status: Created}, nil
	}
	if held {
		return *s, nil
	}
	pid := s.PID
	s.PID, s.PIDStart = 0, 0
	if s.Status.Alive() || s.Status == Created && pid != 0 {
		s.Status, s.ExitCode = Dead, CodeKilled
		s.Error = fmt.Sprintf("husk's process for the machine (pid %d) ended without a word; something killed it, or the host did", pid)
		if line := epitaph.LastLine(filepath.Join(m.folder, wordsFile)); line != "" {
			s.Error += ": " + line
		}
	}
	return *s, nil
}
