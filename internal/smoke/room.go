package smoke

import (
	"context"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/huskvm/husk/internal/cgroup"
)

// A room is what the host has for machines: so many at a time, so many virtual
// processors, and so much memory.
type room struct {
	jobs   int
	cpus   int    // of all machines together; 0 for any number
	memory uint64 // bytes; what is not known, 0, counts as enough

	mu      sync.Mutex
	running int
	used    needs
	alone   map[string]bool
	changed chan struct{} // closed, and made anew, when one leaves
}

// needs are what a machine takes of a room.
type needs struct {
	memory uint64 // bytes
	cpus   int
	alone  []string // what no two machines can have at the same time, by any names
}

// overhead is what a machine takes besides its guest's memory, in bytes.
const overhead = 64 << 20

// newRoom is a room for jobs machines. With 0 there are as many as the processors that
// husk may use, and no more virtual processors than these: guests that wait for one
// another's processors look like guests that hang.
func newRoom(jobs int) *room {
	r := &room{jobs: jobs, alone: map[string]bool{}, changed: make(chan struct{})}
	if jobs == 0 {
		// Go's own number heeds what cpusets and cgroups allow.
		r.jobs = runtime.GOMAXPROCS(0)
		r.cpus = r.jobs
	}
	r.memory = availableMemory()
	if group := cgroup.Host().FreeMemory(); group > 0 && (r.memory == 0 || group < r.memory) {
		r.memory = group
	}
	r.memory = r.memory / 10 * 9
	return r
}

// admit waits until there is room for a machine. One that is too big for the host goes in
// alone: whether it is, will be seen.
func (r *room) admit(ctx context.Context, n needs) (leave func(), err error) {
	n.memory += overhead
	for {
		r.mu.Lock()
		if ctx.Err() != nil {
			r.mu.Unlock()
			return nil, context.Cause(ctx)
		}
		if r.running == 0 || r.fits(n) {
			r.running++
			r.used.memory += n.memory
			r.used.cpus += n.cpus
			for _, name := range n.alone {
				r.alone[name] = true
			}
			r.mu.Unlock()
			return func() { r.leave(n) }, nil
		}
		changed := r.changed
		r.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// fits tells whether there is room for one more. The caller holds r.mu.
func (r *room) fits(n needs) bool {
	return r.running < r.jobs &&
		(r.cpus == 0 || r.used.cpus+n.cpus <= r.cpus) &&
		(r.memory == 0 || r.used.memory+n.memory <= r.memory) &&
		!slices.ContainsFunc(n.alone, func(name string) bool { return r.alone[name] })
}

func (r *room) leave(n needs) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running--
	r.used.memory -= n.memory
	r.used.cpus -= n.cpus
	for _, name := range n.alone {
		delete(r.alone, name)
	}
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
