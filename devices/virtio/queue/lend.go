package queue

// A Lent is a queue that somebody else serves for a while: the host's kernel
// (vhost). It is all that takes.
type Lent struct {
	// Desc, Avail and Used are the descriptor table, the available and the used ring,
	// in host memory. How long they are follows from Size.
	Desc, Avail, Used []byte
	Size              int // descriptors
	// Next is the index in both rings that comes next: nothing is in flight.
	Next uint16
	Kick Kick
	IRQ  Interrupt
}

// Lend gives the queue away until TakeBack. No chain may be in flight, and of all
// other methods only Size, State and Flush, which does nothing, may be called
// meanwhile.
func (q *Queue) Lend() Lent {
	q.Flush()
	q.mu.Lock()
	defer q.mu.Unlock()
	// The kernel goes on where the used ring's index is, which a driver could have
	// changed.
	q.used.store(ringIndex, q.shown)
	return Lent{
		Desc: q.desc, Avail: q.avail.bytes[q.avail.start:], Used: q.used.bytes[q.used.start:],
		Size: int(q.size), Next: q.nextAvail, Kick: q.kick, IRQ: q.irq,
	}
}

// TakeBack ends what Lend began. next is where the other got, with nothing in
// flight.
func (q *Queue) TakeBack(next uint16) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.nextAvail, q.seen, q.nextUsed, q.shown = next, next, next, next
}

// A Direct is an Interrupt that the kernel can raise by itself, at times: by an
// eventfd that leads to the guest.
//
// Follow calls set with that eventfd, or with -1 while there is none and only Signal
// does it right; at once, and whenever that changes, one call at a time. A call of
// set has returned before the guest can see the change. When stop has returned, set
// is not called any more. set does not call back.
type Direct interface {
	Interrupt
	Follow(set func(fd int)) (stop func())
}
