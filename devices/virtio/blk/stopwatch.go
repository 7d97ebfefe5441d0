package blk

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// slept tells whether f waited for something and did not just take its time: it
// took limit at least, and its thread had the processor for less than half of
// that. Copying from the page cache takes long on a slow processor, too, but
// others could not go on meanwhile.
func slept(limit time.Duration, f func()) bool {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	began, cpu := time.Now(), threadTime()
	f()
	took := time.Since(began)
	return took >= limit && threadTime()-cpu < took/2
}

// threadTime is how long the calling thread has had a processor.
func threadTime() time.Duration {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t) != nil {
		return 0 // then everything long is sleep
	}
	return time.Duration(t.Nano())
}
