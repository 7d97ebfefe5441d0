package load

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/devices/pace"
)

// device is the guest's disk.
const device = "/dev/vda"

// A disk is a load of a disk, past the guest's page cache.
type disk struct {
	size   int // of a request, in bytes
	depth  int // requests under way
	random bool
	write  bool
}

func (d disk) run(limit time.Duration) (Result, error) { return d.on(device, unix.O_DIRECT, limit) }

// on loads a file or block device. Every request under way has a thread.
func (d disk) on(path string, flags int, limit time.Duration) (Result, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC|flags, 0)
	if err != nil {
		return Result{}, fmt.Errorf("%s: %w", path, err)
	}
	defer unix.Close(fd) //nolint:errcheck // all was written past the cache
	end, err := unix.Seek(fd, 0, unix.SEEK_END)
	if err != nil {
		return Result{}, fmt.Errorf("%s: %w", path, err)
	}
	blocks := end / int64(d.size)
	if blocks == 0 {
		return Result{}, fmt.Errorf("%s: %d bytes are too few for requests of %d", path, end, d.size)
	}
	// A goroutine in a system call keeps its place, so that none waits for another.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(d.depth + 1))
	counts := make([]uint64, d.depth)
	errs := make([]error, d.depth)
	var wg sync.WaitGroup
	start := time.Now()
	deadline := start.Add(limit)
	for i := range d.depth {
		wg.Go(func() { counts[i], errs[i] = d.requests(fd, blocks, i, deadline) })
	}
	wg.Wait()
	r := Result{Seconds: time.Since(start).Seconds()}
	for _, n := range counts {
		r.Ops += n
	}
	r.Bytes = r.Ops * uint64(d.size)
	return r, errors.Join(errs...)
}

// requests makes one request after the other, and returns how many.
func (d disk) requests(fd int, blocks int64, seed int, deadline time.Time) (uint64, error) {
	thread := pace.Own()
	defer thread.Release()
	p, err := unix.Mmap(-1, 0, d.size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE) // aligned
	if err != nil {
		return 0, err
	}
	defer unix.Munmap(p) //nolint:errcheck // it was mapped
	call := unix.Pread
	if d.write {
		call = unix.Pwrite
	}
	random := rand.New(rand.NewPCG(1, uint64(seed))) //nolint:gosec // the same places for every monitor
	for n := uint64(0); ; n++ {
		if n > 0 && time.Now().After(deadline) {
			return n, nil
		}
		block := int64(n % uint64(blocks))
		if d.random {
			block = random.Int64N(blocks)
		}
		got, err := call(fd, p, block*int64(d.size))
		if err != nil {
			return n, err
		}
		if got != d.size {
			return n, fmt.Errorf("%d of %d bytes at block %d", got, d.size, block)
		}
		if d.depth == 1 {
			// Else the timers of Go's monitor in the guest are measured, too. Many
			// threads would pay more for it than they save.
			thread.Breathe()
		}
	}
}
