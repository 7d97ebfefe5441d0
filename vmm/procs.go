package vmm

import (
	"runtime"
	"sync"
)

// busyQueues is how many queues of a machine are thought to be served at the same
// time. Who wakes a goroutine looks for work at all Ps, so there shall not be many.
const busyQueues = 4

// procsLock keeps machines apart that start and stop at the same time: the
// scheduler's setting is the process's, and can only be read and then set.
var procsLock sync.Mutex

// addProcs lets n more goroutines run at the same time, for a machine that
// starts, or -n for one that stops.
//
// A goroutine in a system call keeps its right to run (a P of Go's scheduler)
// until the runtime's monitor takes it away, which can take 10 ms. A vCPU in the
// guest is in one, and so is the thread of a queue that waits for the guest. On a
// small host, no device would be served meanwhile.
func addProcs(n int) {
	procsLock.Lock()
	defer procsLock.Unlock()
	runtime.GOMAXPROCS(max(1, runtime.GOMAXPROCS(0)+n))
}
