package vhost

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// A bell is an eventfd that the kernel signals, with a goroutine that does something
// whenever it has.
type bell struct {
	fd   int
	file *os.File
	done chan struct{}
}

func newBell(rung func()) (*bell, error) {
	fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("eventfd: %w; too many open files? raise the limit (ulimit -n)", err)
	}
	b := &bell{fd: fd, file: os.NewFile(uintptr(fd), "eventfd"), done: make(chan struct{})}
	go func() {
		defer close(b.done)
		var count [8]byte
		for {
			if _, err := b.file.Read(count[:]); err != nil {
				break
			}
			rung()
		}
		if n, err := unix.Read(b.fd, count[:]); n > 0 && err == nil { // it rang, and close came first
			rung()
		}
	}()
	return b, nil
}

// close returns when rung has been called for all signals before, and will not be
// again.
func (b *bell) close() {
	_ = b.file.SetReadDeadline(time.Unix(1, 0)) // it is in Go's poller, as it does not block
	<-b.done
	_ = b.file.Close()
}
