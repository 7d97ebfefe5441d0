package serial

import (
	"io"
	"log/slog"
	"sync"
	"time"
)

const (
	outputSize = 64 << 10 // bytes, a power of two

	// patience is how long a vCPU waits for room for a byte.
	patience = 100 * time.Millisecond
)

// output is what the guest has sent and Out has not taken yet: a ring. vCPUs add
// to it, Serve takes from it. The UART's lock guards it.
type output struct {
	out io.Writer
	log *slog.Logger

	ring  []byte
	added uint64        // bytes ever added
	taken uint64        // bytes ever taken
	idle  bool          // Serve waits for the first byte
	wake  chan struct{} // ends that wait; holds one token
	freed chan struct{} // closed when there may be room; nil if nobody waits

	// stalled is set when a byte was dropped, until Out takes something.
	// Meanwhile further bytes are dropped at once: a guest that does not look
	// at the line status waits once, and not for each byte.
	stalled   bool
	dropped   uint64 // bytes for which there was no room
	unwritten uint64 // bytes that Out refused
}

func newOutput(out io.Writer, log *slog.Logger) output {
	return output{out: out, log: log, ring: make([]byte, outputSize), wake: make(chan struct{}, 1)}
}

// room is how many bytes may be added.
func (o *output) room() int { return outputSize - int(o.added-o.taken) }

// add takes a byte from the guest. Without room it releases mu and waits for
// patience, then drops the byte.
func (o *output) add(mu *sync.Mutex, v byte) {
	if o.room() == 0 && !o.stalled {
		o.awaitRoom(mu)
	}
	if o.room() == 0 {
		o.stalled = true
		o.dropped++
		return
	}
	o.ring[o.added%outputSize] = v
	o.added++
	if o.idle {
		o.idle = false
		o.wake <- struct{}{} // has room: idle was set after the token was taken
	}
}

func (o *output) awaitRoom(mu *sync.Mutex) {
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for o.room() == 0 && !o.stalled {
		if o.freed == nil {
			o.freed = make(chan struct{})
		}
		freed := o.freed
		mu.Unlock()
		expired := false
		select {
		case <-freed:
		case <-timeout.C:
			expired = true
		}
		mu.Lock()
		if expired {
			return
		}
	}
}

// Dropped is how many bytes the guest has sent that Out did not get: there was no
// room in time, or Out had failed.
func (u *UART) Dropped() uint64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.output.dropped + u.output.unwritten
}
