package main

import (
	"bufio"
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

	"github.com/huskvm/husk/tests/bench/guest"
	"github.com/huskvm/husk/tests/bench/ktrace"
)

// lastWords is how much of a failed monitor's output is kept, in bytes.
const lastWords = 2000

// A tracer starts counting for the children of a thread.
type tracer func(tid int) (*ktrace.Instance, error)

// take boots a monitor once, up to the marker, and ends it. Without a tracer
// there is no breakdown.
func take(m monitor, round int, start tracer, limit time.Duration) sample {
	s := sample{Monitor: m.Name, Round: round}
	if err := s.boot(m, start, limit); err != nil {
		s = sample{Monitor: m.Name, Round: round, Error: err.Error()}
	}
	return s
}

func (s *sample) boot(m monitor, startTrace tracer, limit time.Duration) (err error) {
	// Tracing follows the children of one thread, and the death signal comes
	// with the end of the thread that started the child.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var trace *ktrace.Instance
	if startTrace != nil {
		if trace, err = startTrace(unix.Gettid()); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, trace.Close()) }()
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
	start := time.Now()
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

	if err := out.SetReadDeadline(start.Add(limit)); err != nil {
		return err
	}
	if err := awaitMarker(out); err != nil {
		return err
	}
	s.SecondsToInit = time.Since(start).Seconds()
	// Nothing moves while we look.
	if err := unix.Kill(-pid, unix.SIGSTOP); err != nil {
		return err
	}
	return s.look(pid, machines, trace)
}

// look takes the figures of a monitor that has been stopped.
func (s *sample) look(pid int, before map[string]bool, trace *ktrace.Instance) error {
	if trace != nil {
		var err error
		if s.Traced, err = readBreakdown(trace); err != nil {
			return err
		}
		cpu, err := trace.CPU(pid)
		if err != nil {
			return err
		}
		s.CPUToFirstRun = &cpu
	}
	s.KVM = machineCounters(pid, before)
	mem, err := residentMemory(pid)
	if err != nil {
		return err
	}
	s.Memory = &mem
	return nil
}

// awaitMarker reads a console up to the marker's line. A monitor's own lines
// may come before it, and on the same line what a terminal is told.
func awaitMarker(console io.Reader) error {
	var seen strings.Builder
	r := bufio.NewReaderSize(console, 4096)
	for {
		line, err := r.ReadString('\n')
		if strings.HasSuffix(strings.TrimRight(line, "\r\n"), guest.Marker) && err == nil {
			return nil
		}
		seen.WriteString(line)
		if err == nil {
			continue
		}
		if errors.Is(err, io.EOF) {
			err = errors.New("it ended")
		}
		text := seen.String()
		return fmt.Errorf("no %q on its console: %w; it said: %q", guest.Marker, err, text[max(0, len(text)-lastWords):])
	}
}
