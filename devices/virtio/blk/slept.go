package blk

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// slept tells whether f took limit at least and its thread slept meanwhile, and
// did not just take its time. Copying from the page cache takes long on a slow
// processor, too, and so does whatever another thread interrupts, but other
// threads would not be faster.
func slept(limit time.Duration, f func()) bool {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	began, sleeps := time.Now(), threadSleeps()
	f()
	return time.Since(began) >= limit && threadSleeps() != sleeps
}

// threadSleeps is how often the calling thread has given up its processor by
// itself (getrusage(2): ru_nvcsw).
func threadSleeps() int64 {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_THREAD, &u) != nil {
		return 0 // Linux has had this since 2.6.26
	}
	return u.Nvcsw
}
