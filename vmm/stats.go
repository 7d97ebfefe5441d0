package vmm

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Stats is what a machine has cost so far.
type Stats struct {
	// Exits counts the exits that reached husk, by reason.
	Exits map[string]uint64 `json:"exits"`
	// KVM has KVM's own counters, summed over the vCPUs ("exits" are all exits,
	// also those that KVM handles itself); empty where KVM has no
	// KVM_CAP_BINARY_STATS_FD (KVM API §4.133).
	KVM map[string]uint64 `json:"kvm"`
	// PIO counts accesses by port, "0x3f8"; "other" are those of the ports that
	// came after the first 256.
	PIO map[string]PortCount `json:"pio"`
	// Markers are the moments of the run, in order.
	Markers []Marker `json:"markers"`
	// CPUToFirstRun is the CPU time husk had used when the guest's first
	// instruction ran, in nanoseconds.
	CPUToFirstRun time.Duration `json:"cpu_to_first_run_ns"`
	// ConsoleLost counts bytes of the serial port that nobody took in time.
	ConsoleLost uint64      `json:"console_lost"`
	Memory      MemoryStats `json:"memory"`
	IO          IOStats     `json:"io"`
}

func (s *Stats) addPort(key string, n PortCount) {
	sum := s.PIO[key]
	s.PIO[key] = PortCount{sum.Reads + n.Reads, sum.Writes + n.Writes}
}

// A PortCount counts exits by port.
type PortCount struct {
	Reads  uint64 `json:"reads"`
	Writes uint64 `json:"writes"`
}

// A Marker is a moment of the run, since New began, on the host's monotonic clock.
type Marker struct {
	Name string        `json:"name"`
	At   time.Duration `json:"at_ns"`
}

// The names of markers. A guest that writes N to the marker port makes "guest-N".
const (
	MarkerCreated   = "created"            // New is done
	MarkerFirstRun  = "first-run"          // the first KVM_RUN begins
	MarkerFirstByte = "first-console-byte" // the guest's first byte on the serial port
	MarkerStopped   = "stopped"            // the vCPUs have left the guest
)

// MemoryStats is resident memory in bytes (/proc/self/smaps).
type MemoryStats struct {
	GuestRAM      uint64 `json:"guest_ram"`      // what the guest may use
	GuestResident uint64 `json:"guest_resident"` // what of it the host has given
	VMMResident   uint64 `json:"vmm_resident"`   // all else of this process
}

// maxMarkers bounds what a guest can make husk remember.
const maxMarkers = 256

// A timeline collects a machine's markers.
type timeline struct {
	start time.Time

	mu            sync.Mutex
	markers       []Marker
	cpuToFirstRun time.Duration
}

func (t *timeline) mark(name string) { t.add(name, maxMarkers) }

// markGuest is a marker that the guest has set. It leaves room for husk's own.
func (t *timeline) markGuest(id byte) { t.add("guest-"+strconv.Itoa(int(id)), maxMarkers-8) }

func (t *timeline) add(name string, limit int) {
	at := time.Since(t.start)
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.markers) < limit {
		t.markers = append(t.markers, Marker{name, at})
	}
}

func (t *timeline) markFirstRun() {
	cpu := processCPU()
	t.mark(MarkerFirstRun)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cpuToFirstRun = cpu
}

// processCPU is the CPU time of this process, user and system.
func processCPU() time.Duration {
	var r unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &r); err != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// Stats is what the machine has cost so far. It can be called at any time until
// Close.
func (vm *VM) Stats() Stats {
	s := Stats{Exits: map[string]uint64{}, KVM: map[string]uint64{}, PIO: map[string]PortCount{}}
	for _, c := range vm.vcpus {
		c.mu.Lock()
		for reason, n := range c.exits {
			s.Exits[reason] += n
		}
		for port, n := range c.ports {
			s.addPort(fmt.Sprintf("%#x", port), *n)
		}
		if c.others != (PortCount{}) {
			s.addPort("other", c.others)
		}
		c.mu.Unlock()
	}
	for _, source := range vm.counters {
		values, err := source.Read()
		if err != nil {
			vm.log.Warn("KVM's counters cannot be read", "err", err)
			break
		}
		for name, n := range values {
			s.KVM[name] += n
		}
	}
	vm.timeline.mu.Lock()
	s.Markers = append(s.Markers, vm.timeline.markers...)
	s.CPUToFirstRun = vm.timeline.cpuToFirstRun
	vm.timeline.mu.Unlock()

	s.ConsoleLost = vm.board.serial.Dropped()
	s.IO = vm.io.stats()
	s.Memory = vm.Memory()
	return s
}

// Memory is the memory that the machine takes on the host. It can be called at any time until
// Close.
func (vm *VM) Memory() (s MemoryStats) {
	s.GuestRAM = vm.mem.Size()
	start, end := vm.mem.HostRange()
	guest, other, err := residentMemory("/proc/self/smaps", uint64(start), uint64(end))
	if err != nil {
		vm.log.Warn("resident memory is unknown", "err", err)
	}
	s.GuestResident, s.VMMResident = guest, other
	return s
}

// residentMemory sums what is resident of the mappings of a smaps file: those
// inside [start, end) and the others, in bytes. Rss leaves reserved huge pages
// out, which have lines of their own.
func residentMemory(path string, start, end uint64) (inside, outside uint64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	sum := &outside
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		line := lines.Text()
		field, size, ok := strings.Cut(line, ":")
		if ok && (field == "Rss" || field == "Private_Hugetlb" || field == "Shared_Hugetlb") {
			n, err := strconv.ParseUint(strings.TrimSpace(strings.TrimSuffix(size, "kB")), 10, 64)
			if err != nil {
				return 0, 0, fmt.Errorf("%s: %w", path, err)
			}
			*sum += n * kib
			continue
		}
		var from, to uint64
		if n, _ := fmt.Sscanf(line, "%x-%x ", &from, &to); n == 2 {
			sum = &outside
			if from >= start && to <= end {
				sum = &inside
			}
		}
	}
	return inside, outside, lines.Err()
}
