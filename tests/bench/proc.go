package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// machinesPath has a folder for each virtual machine of the host: PID-FD, the
// thread that made it and its file descriptor (kernel virt/kvm/kvm_main.c).
const machinesPath = "/sys/kernel/debug/kvm"

// machineDirs are the machines that exist now.
func machineDirs() map[string]bool {
	dirs, _ := filepath.Glob(filepath.Join(machinesPath, "*-*"))
	set := map[string]bool{}
	for _, d := range dirs {
		set[d] = true
	}
	return set
}

// machineCounters adds up KVM's counters of the machines that a process made;
// nil where they cannot be read.
func machineCounters(pid int, before map[string]bool) map[string]uint64 {
	var sum map[string]uint64
	for dir := range machineDirs() {
		tid, _, _ := strings.Cut(filepath.Base(dir), "-")
		if before[dir] || !threadOf(pid, tid) {
			continue
		}
		files, _ := os.ReadDir(dir)
		for _, f := range files {
			if !f.Type().IsRegular() {
				continue
			}
			b, err := os.ReadFile(filepath.Join(dir, f.Name()))
			if err != nil {
				continue // some only appear on reading that they cannot be
			}
			n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
			if err != nil {
				continue
			}
			if sum == nil {
				sum = map[string]uint64{}
			}
			sum[f.Name()] += n
		}
	}
	return sum
}

// threadOf tells whether a thread is or was one of a process: a thread that
// has ended is nobody's, and its machine is new since the process started.
func threadOf(pid int, tid string) bool {
	if _, err := os.Stat(fmt.Sprintf("/proc/%d/task/%s", pid, tid)); err == nil {
		return true
	}
	_, err := os.Stat("/proc/" + tid)
	return errors.Is(err, os.ErrNotExist)
}

// memory is what of a process is resident, in bytes.
type memory struct {
	Guest   uint64 `json:"guest"`   // the guest's RAM
	Monitor uint64 `json:"monitor"` // everything else
}

// residentMemory looks at a process's mappings.
func residentMemory(pid int) (memory, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps", pid))
	if err != nil {
		return memory{}, err
	}
	defer f.Close()
	return sumMemory(f, memoryMiB<<20)
}

// sumMemory adds up a smaps file (proc(5)). The guest's RAM is the writable
// mapping of at least its size with the most in it: no monitor says which it
// is, and none has another as large that it uses.
func sumMemory(smaps io.Reader, ram uint64) (memory, error) {
	var m memory
	var size, total uint64
	writable := false
	lines := bufio.NewScanner(smaps)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		switch {
		case len(fields) >= 5 && !strings.HasSuffix(fields[0], ":"):
			var from, to uint64
			if _, err := fmt.Sscanf(fields[0], "%x-%x", &from, &to); err != nil {
				return m, fmt.Errorf("smaps: %q: %w", lines.Text(), err)
			}
			size, writable = to-from, strings.HasPrefix(fields[1], "rw")
		case len(fields) == 3 && fields[0] == "Rss:":
			kib, err := strconv.ParseUint(fields[1], 10, 64)
			if err != nil {
				return m, fmt.Errorf("smaps: %q: %w", lines.Text(), err)
			}
			total += kib << 10
			if writable && size >= ram {
				m.Guest = max(m.Guest, kib<<10)
			}
		}
	}
	m.Monitor = total - m.Guest
	if m.Guest == 0 && lines.Err() == nil {
		return m, errors.New("smaps: no mapping is the guest's RAM")
	}
	return m, lines.Err()
}
