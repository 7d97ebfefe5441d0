package machine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/huskvm/husk/internal/cgroup"
	"github.com/huskvm/husk/internal/machine/control"
)

// Errors that callers tell apart.
var (
	ErrNameTaken = errors.New("name in use")
	ErrNotFound  = errors.New("no such machine")
	ErrAmbiguous = errors.New("ambiguous")
)

// What is in a machine's folder.
const (
	specFile  = "spec.json"
	stateFile = "state.json"
	lockFile  = "lock"
	wordsFile = "husk.log" // what its process says on standard error
	ownerFile = "owner"    // in the folder of its data: the path of the other one
)

// Machines are those of a user.
type Machines struct {
	dir  string // of folders, one a machine
	data string // and as many for what may be large
}

// Open opens the machines whose folders are in dir, and their disks and logs in data;
// both are made as soon as there is one. See DefaultDir and DefaultData.
func Open(dir, data string) (*Machines, error) {
	dir, err := filepath.Abs(dir)
	if err == nil {
		data, err = filepath.Abs(data)
	}
	if err != nil {
		return nil, err
	}
	return &Machines{filepath.Join(dir, "machines"), filepath.Join(data, "machines")}, nil
}

// A Machine is one of them.
type Machine struct {
	folder, data string
	spec         Spec
	lock         *os.File // from Create to Start
}

// Create makes a machine's folder, which holds its name. An ID, a name and a time that
// spec does not have are chosen. It is the caller's to start until it is closed: others
// see it as being made until then. An ErrNameTaken says which machine has the name.
func (ms *Machines) Create(ctx context.Context, spec Spec) (_ *Machine, err error) {
	if spec.Name != "" {
		if err := CheckName(spec.Name); err != nil {
			return nil, err
		}
	}
	for _, dir := range []string{ms.dir, ms.data} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
	}
	whole, err := lock(ctx, filepath.Join(ms.dir, lockFile))
	if err != nil {
		return nil, err
	}
	defer whole.Close()
	ms.sweep()
	others, err := ms.List()
	if err != nil {
		return nil, err
	}
	if err := ms.choose(&spec, others); err != nil {
		return nil, err
	}

	m := &Machine{folder: filepath.Join(ms.dir, spec.ID), data: filepath.Join(ms.data, spec.ID), spec: spec}
	if err := os.Mkdir(m.folder, 0o700); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = m.Close()
			_ = m.erase()
		}
	}()
	if m.lock, err = os.OpenFile(filepath.Join(m.folder, lockFile), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
		return nil, err
	}
	if _, err = tryLock(m.lock); err != nil {
		return nil, err
	}
	if err = os.Mkdir(m.data, 0o700); err != nil {
		return nil, err
	}
	if err = os.WriteFile(filepath.Join(m.data, ownerFile), []byte(m.folder), 0o600); err != nil {
		return nil, err
	}
	return m, writeJSON(filepath.Join(m.folder, specFile), spec) // with it, the machine is one
}

// choose gives a machine what it has not, and checks that its name is free.
func (ms *Machines) choose(spec *Spec, others []*Machine) error {
	taken := map[string]string{}
	for _, m := range others {
		taken[m.Name()] = m.ID()
	}
	if id, is := taken[spec.Name]; is {
		return fmt.Errorf("%w: the name %q is that of machine %s; remove it (husk rm) or choose another name", ErrNameTaken, spec.Name, id)
	}
	for n := 0; spec.Name == ""; n++ {
		name := randomName()
		if n > 100 { // nearly all are taken
			name += fmt.Sprint(n)
		}
		if _, is := taken[name]; !is {
			spec.Name = name
		}
	}
	if spec.ID == "" {
		spec.ID = randomID()
	}
	if !isID(spec.ID) {
		return fmt.Errorf("machine ID %q: %d hexadecimal digits are needed", spec.ID, idLength)
	}
	if spec.Created.IsZero() {
		spec.Created = time.Now()
	}
	return nil
}

// Close gives up a machine that was made and not started.
func (m *Machine) Close() error {
	if m.lock == nil {
		return nil
	}
	err := m.lock.Close()
	m.lock = nil
	return err
}

// List are all machines, the newest first. Those that should have been removed at their end
// and could not do it themselves are removed now.
func (ms *Machines) List() ([]*Machine, error) {
	entries, err := os.ReadDir(ms.dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	var list []*Machine
	for _, e := range entries {
		if !isID(e.Name()) {
			continue
		}
		m, err := ms.open(e.Name())
		if errors.Is(err, os.ErrNotExist) { // not yet, or not any more
			continue
		}
		if err != nil {
			return nil, err
		}
		if !m.removedNow() {
			list = append(list, m)
		}
	}
	slices.SortStableFunc(list, func(a, b *Machine) int { return b.spec.Created.Compare(a.spec.Created) })
	return list, nil
}

// open reads one.
func (ms *Machines) open(id string) (*Machine, error) {
	m := &Machine{folder: filepath.Join(ms.dir, id), data: filepath.Join(ms.data, id)}
	path := filepath.Join(m.folder, specFile)
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, &m.spec); err != nil {
		return nil, fmt.Errorf("%s: %w; the machine can only be removed by hand", path, err)
	}
	m.spec.ID = id
	return m, nil
}

// removedNow removes a machine that was to be removed at its end, if its process could
// not do that.
func (m *Machine) removedNow() bool {
	if !m.spec.AutoRemove {
		return false
	}
	held, err := locked(filepath.Join(m.folder, lockFile))
	return err == nil && !held && m.erase() == nil
}

// sweep removes what was left behind half made or half removed. The lock of all is held.
func (ms *Machines) sweep() {
	entries, err := os.ReadDir(ms.dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		folder := filepath.Join(ms.dir, e.Name())
		if held, err := locked(filepath.Join(folder, lockFile)); !isID(e.Name()) || held || err != nil {
			continue
		}
		if _, err := os.Stat(filepath.Join(folder, specFile)); errors.Is(err, os.ErrNotExist) {
			_ = (&Machine{folder: folder, data: filepath.Join(ms.data, e.Name())}).erase()
		}
	}
	// The folders of machines may have been in memory, and the host started anew.
	entries, err = os.ReadDir(ms.data)
	if err != nil {
		return
	}
	for _, e := range entries {
		data := filepath.Join(ms.data, e.Name())
		owner, err := os.ReadFile(filepath.Join(data, ownerFile))
		if err != nil || !isID(e.Name()) {
			continue
		}
		if _, err := os.Stat(string(owner)); errors.Is(err, os.ErrNotExist) {
			_ = os.RemoveAll(data)
		}
	}
}

// Find finds a machine by its name, its ID, or what an ID begins with.
func (ms *Machines) Find(name string) (*Machine, error) {
	list, err := ms.List()
	if err != nil {
		return nil, err
	}
	var found []*Machine
	for _, m := range list {
		switch {
		case m.ID() == name, m.Name() == name:
			return m, nil
		case name != "" && strings.HasPrefix(m.ID(), name):
			found = append(found, m)
		}
	}
	switch len(found) {
	case 0:
		return nil, fmt.Errorf("%w: %s; see husk ps -a", ErrNotFound, name)
	case 1:
		return found[0], nil
	}
	names := make([]string, len(found))
	for i, m := range found {
		names[i] = fmt.Sprintf("%s (%s)", m.ID()[:ShortID], m.Name())
	}
	return nil, fmt.Errorf("%w: the IDs of several machines begin with %s: %s", ErrAmbiguous, name, strings.Join(names, ", "))
}

// Spec is what the machine was made from.
func (m *Machine) Spec() Spec { return m.spec }

// ID is the machine's, of 64 hexadecimal digits.
func (m *Machine) ID() string { return m.spec.ID }

// Name is the machine's.
func (m *Machine) Name() string { return m.spec.Name }

// Folder is where the machine's state is.
func (m *Machine) Folder() string { return m.folder }

// LogFile is where what the machine's command writes is kept.
func (m *Machine) LogFile() string { return filepath.Join(m.data, "log.json") }

// ConsoleFile is where what the guest's kernel says is kept.
func (m *Machine) ConsoleFile() string { return filepath.Join(m.data, "console.log") }

// UpperFile is the disk that takes what the guest writes, where there is one.
func (m *Machine) UpperFile() string { return filepath.Join(m.data, "upper.img") }

// Group is what the machine's control group is called.
func (m *Machine) Group() string { return "husk-" + filepath.Base(m.folder) }

// erase removes all that there is of a machine whose process has ended.
func (m *Machine) erase() error {
	// A process that was killed has left its group, which can be elsewhere than one of ours.
	if state, err := readState(m.folder); err == nil && state != nil {
		cgroup.Host().Sweep(m.Group())
		if filepath.Base(state.Group) == m.Group() {
			_ = cgroup.Remove(state.Group)
		}
	}
	return m.Erase()
}

// Erase removes all that there is of a machine on the disk. It is for the machine's process.
func (m *Machine) Erase() error {
	if err := os.RemoveAll(m.data); err != nil {
		return err
	}
	return os.RemoveAll(m.folder)
}

// RemoveSocket removes the control socket, for the machine's process at its end.
func (m *Machine) RemoveSocket() error {
	err := os.Remove(filepath.Join(m.folder, control.Socket))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
