package serial

import (
	"context"
	"fmt"
	"time"
)

const (
	// linger is how long output waits for more before it is written: a guest
	// sends byte by byte, and a person does not see a millisecond.
	linger = time.Millisecond
	// complainEvery is how often lost output is logged, at most.
	complainEvery = 10 * time.Second
)

// Serve writes to Out what the guest sends, in batches, until ctx ends and all
// that was sent before is out. Only one Serve may run at a time; another may
// follow it.
//
// When Out fails, Serve logs that once and goes on, dropping the guest's output;
// it returns the error after ctx has ended. While Out blocks, so does Serve.
func (u *UART) Serve(ctx context.Context) error {
	o := &u.output
	var failed error
	var reported uint64
	var reportedAt time.Time
	for {
		u.awaitOutput(ctx)
		last := ctx.Err() != nil
		end, _ := u.outputMark()
		for {
			batch := u.nextBatch(end)
			if len(batch) == 0 {
				break
			}
			n := 0
			if failed == nil {
				var err error
				if n, err = o.out.Write(batch); err != nil {
					failed = fmt.Errorf("serial port: writing the guest's output: %w", err)
					o.log.Warn("serial port: output cannot be written, the rest is dropped", "error", err)
				}
			}
			u.batchDone(batch, n)
		}
		_, dropped := u.outputMark()
		// Logged here and not where the byte is dropped: a vCPU must not wait
		// for the log, which may be as stuck as Out.
		if dropped > reported && (last || time.Since(reportedAt) >= complainEvery) {
			o.log.Warn("serial port: output was not taken in time, some is dropped", "bytes", dropped-reported)
			reported, reportedAt = dropped, time.Now()
		}
		if last {
			return failed
		}
	}
}

// awaitOutput returns when there is something to write, or ctx has ended.
func (u *UART) awaitOutput(ctx context.Context) {
	o := &u.output
	u.mu.Lock()
	o.idle = o.room() == outputSize
	idle := o.idle
	u.mu.Unlock()
	if !idle {
		return
	}
	select {
	case <-o.wake:
	case <-ctx.Done():
		u.mu.Lock()
		if !o.idle {
			<-o.wake // sent just now
		}
		o.idle = false
		u.mu.Unlock()
		return
	}
	timer := time.NewTimer(linger)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// outputMark returns how many bytes were ever added to the output, and how many
// found no room.
func (u *UART) outputMark() (end, dropped uint64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.output.added, u.output.dropped
}

// nextBatch returns the bytes before end that lie together in the ring. They
// stay there, and nothing overwrites them, until batchDone.
func (u *UART) nextBatch(end uint64) []byte {
	u.mu.Lock()
	defer u.mu.Unlock()
	o := &u.output
	from := o.taken % outputSize
	return o.ring[from:min(from+end-o.taken, outputSize)]
}

// batchDone takes a batch out of the ring, of which n bytes were written. If the
// guest found the transmitter full, it hears that there is room again.
func (u *UART) batchDone(batch []byte, n int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	o := &u.output
	full := !u.canSend()
	o.taken += uint64(len(batch))
	o.unwritten += uint64(len(batch) - n)
	o.stalled = false
	if o.freed != nil {
		close(o.freed)
		o.freed = nil
	}
	if full {
		u.regs.thrPending = true
		u.updateLine()
	}
}
