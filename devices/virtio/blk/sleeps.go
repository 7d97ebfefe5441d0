package blk

import "golang.org/x/sys/unix"

// threadSleeps is how often the calling thread has given up its processor by
// itself (getrusage(2): ru_nvcsw): it had to wait.
func threadSleeps() int64 {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_THREAD, &u) != nil {
		return 0 // Linux has had this since 2.6.26
	}
	return u.Nvcsw
}
