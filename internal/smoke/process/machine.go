package process

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/internal/epitaph"
)

// A Machine is one in a process of its own.
type Machine struct {
	cmd    *exec.Cmd
	socket *os.File
	log    string
	events chan Event
	told   chan struct{} // closed when all events are taken
	gone   chan struct{} // closed when nobody takes them any more
	once   sync.Once

	mu   sync.Mutex // for what follows
	out  *json.Encoder
	deaf error // why no more requests can be made
}

// queued is how many events may wait to be taken; then the machine waits.
const queued = 64

// Start starts argv as a machine. What it says on standard error goes to the file
// log. The caller reads Events to their end, and calls Close.
func Start(argv []string, log string) (*Machine, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "machine"), os.NewFile(uintptr(fds[1]), "smoke test")
	defer theirs.Close()
	words, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		_ = ours.Close()
		return nil, err
	}
	defer words.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stderr = words
	cmd.ExtraFiles = []*os.File{theirs}
	// A terminal's Ctrl-C is for the test, which ends its machines itself.
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		_ = ours.Close()
		return nil, err
	}
	m := &Machine{
		cmd: cmd, socket: ours, log: log, events: make(chan Event, queued), told: make(chan struct{}), gone: make(chan struct{}),
		out: json.NewEncoder(ours),
	}
	go m.listen()
	return m, nil
}

// listen passes the machine's events on. If it ends without saying how, that is said
// in its place.
func (m *Machine) listen() {
	defer close(m.told)
	defer close(m.events)
	in := json.NewDecoder(m.socket)
	var last time.Duration
	for {
		var e Event
		err := in.Decode(&e)
		if err != nil {
			e = Event{At: last, End: &End{Error: m.epitaph(err)}}
		}
		last = e.At
		select {
		case m.events <- e:
		case <-m.gone:
			_ = m.cmd.Process.Kill()
			_ = m.cmd.Wait()
			return
		}
		if e.End != nil {
			_ = m.cmd.Process.Kill() // it has nothing left to do
			_ = m.cmd.Wait()
			return
		}
	}
}

// epitaph says how the process ended that should have said so itself.
func (m *Machine) epitaph(reading error) string {
	if !errors.Is(reading, io.EOF) && !errors.Is(reading, io.ErrUnexpectedEOF) && !errors.Is(reading, unix.ECONNRESET) {
		_ = m.cmd.Process.Kill()
	}
	_ = m.cmd.Wait()
	how := "husk's process for the machine ended without a word"
	if s := m.cmd.ProcessState; s != nil {
		how = fmt.Sprintf("husk's process for the machine ended unexpectedly (%v)", s)
	}
	if line := epitaph.LastLine(m.log); line != "" {
		how += ": " + line
	}
	return how
}

// Events are what the machine tells, to its End; then the channel is closed.
func (m *Machine) Events() <-chan Event { return m.events }

// Send gives the guest's serial port some input. It waits for nothing; the port takes
// it as fast as the guest reads.
func (m *Machine) Send(b []byte) error { return m.ask(request{Send: b}) }

// PowerButton presses the guest's power button.
func (m *Machine) PowerButton() error { return m.ask(request{Power: true}) }

// Dump asks where the processors are; the answer is an Event.
func (m *Machine) Dump() error { return m.ask(request{Dump: true}) }

// requestTimeout is how long a machine may take to take a request off the socket.
const requestTimeout = 5 * time.Second

func (m *Machine) ask(r request) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.deaf != nil {
		return m.deaf
	}
	err := m.socket.SetWriteDeadline(time.Now().Add(requestTimeout))
	if err == nil {
		err = m.out.Encode(r)
	}
	if err != nil {
		// Half of a request may be out, and what follows would be its other half.
		m.deaf = fmt.Errorf("the machine does not listen: %w", err)
	}
	return m.deaf
}

// patience is how long a machine may take to end when it is asked to, and then its
// last events to be taken.
const patience = 25 * time.Second

// Close ends the machine, if it has not ended, and waits for its process, and until its
// last event is taken, as far as somebody takes them. It may be called at any time, more
// than once.
func (m *Machine) Close() error {
	m.once.Do(func() {
		// The end of what it reads asks it to end, with its disks flushed.
		_ = unix.Shutdown(int(m.fd()), unix.SHUT_WR)
		select {
		case <-m.told:
		case <-time.After(patience):
			_ = m.cmd.Process.Kill()
			close(m.gone)
			<-m.told
		}
		_ = m.socket.Close()
	})
	return nil
}

// fd is the socket's, without making it block as File.Fd does.
func (m *Machine) fd() (fd uintptr) {
	if raw, err := m.socket.SyscallConn(); err == nil {
		_ = raw.Control(func(f uintptr) { fd = f })
	}
	return fd
}
