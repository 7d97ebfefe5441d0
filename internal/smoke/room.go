package smoke

import (
	"context"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
)

// A room is what the host has for machines: so many at a time, and so much memory.
type room struct {
	jobs   int
	memory uint64 // bytes; what is not known counts as enough

	mu      sync.Mutex
	running int
	used    uint64
	changed chan struct{} // closed, and made anew, when one leaves
}

// overhead is what a machine takes besides its guest's memory, in bytes.
const overhead = 64 << 20

// newRoom is a room for jobs machines; 0 for as many as the host has processors.
func newRoom(jobs int) *room {
	if jobs == 0 {
		jobs = runtime.NumCPU()
	}
	return &room{jobs: jobs, memory: availableMemory() / 10 * 9, changed: make(chan struct{})}
}

// enter waits until there is room for a machine with so much memory. One that is too big
// for the host goes in alone: whether it is, will be seen.
func (r *room) enter(ctx context.Context, memory uint64) (leave func(), err error) {
	memory += overhead
	for {
		r.mu.Lock()
		if ctx.Err() != nil {
			r.mu.Unlock()
			return nil, context.Cause(ctx)
		}
		fits := r.running < r.jobs && (r.memory == 0 || r.used+memory <= r.memory)
		if fits || r.running == 0 {
			r.running++
			r.used += memory
			r.mu.Unlock()
			return func() { r.leave(memory) }, nil
		}
		changed := r.changed
		r.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

func (r *room) leave(memory uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running--
	r.used -= memory
	close(r.changed)
	r.changed = make(chan struct{})
}

// availableMemory is what the host can give without swapping, in bytes, by the kernel's
// own estimate (proc(5), MemAvailable); 0 if it does not tell.
func availableMemory() uint64 {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(b), "MemAvailable:")
	words := strings.Fields(rest)
	if len(words) == 0 {
		return 0
	}
	kib, err := strconv.ParseUint(words[0], 10, 64)
	if err != nil {
		return 0
	}
	return kib << 10
}
