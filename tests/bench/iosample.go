package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/tests/bench/load"
)

// An ioSample is one boot of one monitor, and what its guest's loads did.
type ioSample struct {
	Monitor string   `json:"monitor"`
	Round   int      `json:"round"`
	Again   bool     `json:"again,omitempty"` // the first time its guest hung while it booted
	Error   string   `json:"error,omitempty"` // why there are not all loads
	Loads   []ioLoad `json:"loads"`
	hung    bool     // before the first load
}

// An ioLoad is what a load did, and what it cost.
type ioLoad struct {
	load.Result
	KVM map[string]uint64 `json:"kvm,omitempty"`         // KVM's counters, of this load alone
	CPU float64           `json:"cpu_seconds,omitempty"` // of the monitor's process, guest included
}

// takeIO boots a monitor and lets its guest do all loads. In the lab a guest of
// any monitor hangs now and then while it boots, for want of a timer interrupt
// that QEMU's processor has lost; it gets a second chance.
func (o *options) takeIO(m monitor, round int, network bool) ioSample {
	s := takeIO(m, round, network, o.limit)
	if o.inLab && s.hung {
		fmt.Fprintf(os.Stderr, "round %d: %s hung while it booted; once more\n", round, m.Name)
		s = takeIO(m, round, network, o.limit)
		s.Again = true
	}
	return s
}

func takeIO(m monitor, round int, network bool, limit time.Duration) ioSample {
	s := ioSample{Monitor: m.Name, Round: round}
	done := make(chan error)
	go func() {
		// The thread ends with this goroutine, and its network with the thread.
		// The death signal comes with that end, too.
		runtime.LockOSThread()
		done <- s.boot(m, network, limit)
	}()
	if err := <-done; err != nil {
		s.Error = err.Error()
		s.hung = errors.Is(err, os.ErrDeadlineExceeded) && len(s.Loads) == 0
	}
	return s
}

func (s *ioSample) boot(m monitor, network bool, limit time.Duration) error {
	if network {
		l, err := privateNetwork()
		if err != nil {
			return err
		}
		defer l.Close()
		go load.Serve(l)
	}
	machines := machineDirs()
	out, in, err := os.Pipe()
	if err != nil {
		return err
	}
	defer out.Close()
	cmd := exec.Command(m.Argv[0], m.Argv[1:]...)
	cmd.Stdout, cmd.Stderr = in, in
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	err = cmd.Start()
	_ = in.Close()
	if err != nil {
		return err
	}
	pid := cmd.Process.Pid
	defer func() {
		_ = unix.Kill(-pid, unix.SIGKILL)
		_ = cmd.Wait() // killed, as it must be
	}()
	if err := out.SetReadDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	return s.follow(out, func() cost { return cost{machineCounters(pid, machines), cpuTime(pid)} })
}

// A cost is what a monitor has used up.
type cost struct {
	kvm map[string]uint64
	cpu float64
}

func (c cost) since(before cost) cost {
	d := cost{cpu: c.cpu - before.cpu}
	for name, n := range c.kvm {
		if d.kvm == nil {
			d.kvm = map[string]uint64{}
		}
		d.kvm[name] = n - before.kvm[name] // those that are no counters wrap, and mean nothing
	}
	return d
}

// follow reads the console to the last load.
func (s *ioSample) follow(console io.Reader, look func() cost) error {
	var seen strings.Builder
	var before, after cost
	lines := bufio.NewReaderSize(console, 4096)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = errors.New("it ended")
			}
			text := seen.String()
			return fmt.Errorf("after %d loads: %w; it said: %q", len(s.Loads), err, text[max(0, len(text)-lastWords):])
		}
		switch event, text := load.Parse(line); event {
		case load.Begin:
			before = look()
		case load.End:
			after = look()
		case load.Measured:
			var l ioLoad
			if err := json.Unmarshal([]byte(text), &l.Result); err != nil {
				return fmt.Errorf("what the guest measured: %w: %q", err, text)
			}
			c := after.since(before)
			l.KVM, l.CPU = c.kvm, c.cpu
			s.Loads = append(s.Loads, l)
		case load.Failed:
			return fmt.Errorf("the guest says: %s", text)
		case load.Done:
			return nil
		case load.None:
			seen.WriteString(line)
		}
	}
}

// cpuTime is what a process and its threads have run, in seconds; 0 if that
// cannot be read.
func cpuTime(pid int) float64 {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, _ := strings.Cut(string(b), ") ")
	fields := strings.Fields(rest)
	var user, system float64
	if len(fields) > 12 {
		_, _ = fmt.Sscan(fields[11], &user) // proc(5): utime and stime, in ticks
		_, _ = fmt.Sscan(fields[12], &system)
	}
	return (user + system) / ticksPerSecond
}

// ticksPerSecond is USER_HZ.
const ticksPerSecond = 100
