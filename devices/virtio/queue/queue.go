// Package queue is the device's side of a split virtqueue (virtio 1.2 §2.7). It
// is the only place that knows about memory order, and the only one that
// believes anything of what stands in a ring: descriptors are copied once, and
// the copy is checked.
//
// A device takes chains of buffers with Next, gives each back with Push, and
// tells the driver with Flush. When Next has nothing, Wait sleeps until the
// driver has added something.
package queue

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
)

// MaxSize is the largest size of a split virtqueue (virtio 1.2 §2.7).
const MaxSize = 32768

var (
	// ErrBadChain is a chain of descriptors that breaks the rules of §2.7.5.
	ErrBadChain = errors.New("bad descriptor chain")
	// ErrBadRing is a virtqueue whose place, size or indices are impossible.
	ErrBadRing = errors.New("bad virtqueue")
)

// Memory is the guest's RAM. Both methods return the n bytes at the
// guest-physical address gpa, or an error unless all of them are RAM. Writable
// also takes note that they will change. Addresses and lengths come from the guest
// and may be anything.
type Memory interface {
	Readable(gpa, n uint64) ([]byte, error)
	Writable(gpa, n uint64) ([]byte, error)
}

// A Kick is where the driver's notifications of one queue arrive.
//
// Wait calls idle once when it is ready to hear of notifications. If that
// returns false, so does Wait, at once. Else it returns after the next
// notification, or when ctx ends, with its error. It may return early for no
// reason. Only one Wait or Block runs at a time. Block is Wait for a goroutine that
// has its thread to itself.
type Kick interface {
	Wait(ctx context.Context, idle func() bool) error
	Block(ctx context.Context, idle func() bool) error
}

// An Interrupt tells the driver something. Signal may be called from any
// goroutine, and does not block.
type Interrupt interface {
	Signal()
}

// A Pace is of a goroutine that has its thread to itself. It hears when that takes
// a chain, and when it is about to sleep for want of one.
type Pace interface {
	Took()
	Rest()
}

// State is what a queue is set to and how far it got. It is all there is to
// keep of a queue that no device serves.
type State struct {
	Enabled bool
	Size    uint16 // descriptors, a power of two
	// Guest-physical addresses (§2.7): descriptor table, driver area (available
	// ring), device area (used ring).
	Desc, Driver, Device uint64
	// NextAvail is the index in the available ring of the next chain to take;
	// NextUsed that of the next element of the used ring. Both run freely.
	NextAvail, NextUsed uint16
}

// Features are those of virtio 1.2 §6 that the queue itself obeys.
type Features struct {
	IndirectDesc bool // VIRTIO_F_INDIRECT_DESC
	EventIdx     bool // VIRTIO_F_EVENT_IDX
}

// A Queue is a virtqueue while a device serves it.
//
// Next, Take, Return, Pending and Wait belong to one goroutine. Push and Flush may be called
// from any.
type Queue struct {
	size     uint16
	features Features
	place    State // as given to New
	mem      Memory
	kick     Kick
	irq      Interrupt
	pace     Pace        // or nil
	isIdle   func() bool // q.idle; kept, as a method value is an allocation

	desc  []byte
	avail area
	used  area

	nextAvail uint16
	seen      uint16 // the driver's index when last looked at
	failed    error  // what Next returned; it stays so

	mu       sync.Mutex
	nextUsed uint16 // after the elements that were pushed
	shown    uint16 // the used index as the driver sees it
	inFlight int    // chains taken and not pushed
	free     []*Chain
}

// Offsets in the rings (§2.7.6, §2.7.8). The rings' elements are 2 and 8 bytes
// wide, and after the last one stands the event index of the other side.
const (
	ringFlags = 0
	ringIndex = 2
	ringStart = 4

	availElement = 2
	usedElement  = 8

	availNoInterrupt = 1 // VIRTQ_AVAIL_F_NO_INTERRUPT
	usedNoNotify     = 1 // VIRTQ_USED_F_NO_NOTIFY
)

// New takes up a queue where s left it. It fails with ErrBadRing where the
// driver has put the queue to an impossible place.
//
// The used ring counts as changed (Memory.Writable) from New on, so who tracks
// changes must look when no Queue is in use.
func New(s State, f Features, mem Memory, kick Kick, irq Interrupt) (*Queue, error) {
	if s.Size == 0 || s.Size > MaxSize || s.Size&(s.Size-1) != 0 {
		return nil, fmt.Errorf("%w: its size %d is not a power of two up to %d", ErrBadRing, s.Size, MaxSize)
	}
	if s.Desc%16 != 0 || s.Driver%2 != 0 || s.Device%4 != 0 {
		return nil, fmt.Errorf("%w: descriptors at %#x, driver area at %#x, device area at %#x are not aligned to 16, 2 and 4 bytes (virtio 1.2 §2.7)",
			ErrBadRing, s.Desc, s.Driver, s.Device)
	}
	q := &Queue{
		size: s.Size, features: f, place: s, mem: mem, kick: kick, irq: irq,
		nextAvail: s.NextAvail, seen: s.NextAvail, nextUsed: s.NextUsed, shown: s.NextUsed,
	}
	q.isIdle = q.idle
	n := uint64(s.Size)
	event := uint64(0)
	if f.EventIdx {
		event = 2
	}
	var err error
	if q.desc, err = mem.Readable(s.Desc, n*descSize); err != nil {
		return nil, fmt.Errorf("%w: descriptor table: %w", ErrBadRing, err)
	}
	if q.avail, err = newArea(mem.Readable, s.Driver, ringStart+n*availElement+event); err != nil {
		return nil, fmt.Errorf("%w: available ring: %w", ErrBadRing, err)
	}
	if q.used, err = newArea(mem.Writable, s.Device, ringStart+n*usedElement+event); err != nil {
		return nil, fmt.Errorf("%w: used ring: %w", ErrBadRing, err)
	}
	return q, nil
}

// State is where the queue stands. It is complete when no chain is in flight
// and all that was pushed was flushed.
func (q *Queue) State() State {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := q.place
	s.NextAvail, s.NextUsed = q.nextAvail, q.shown
	return s
}

// SetPace says that the queue's goroutine has its thread to itself, and who hears of
// what it does.
func (q *Queue) SetPace(p Pace) { q.pace = p }

// Size is the number of descriptors.
func (q *Queue) Size() int { return int(q.size) }

// Pending is how many chains the driver has added that Next has not returned
// yet. Like Next, it belongs to one goroutine.
func (q *Queue) Pending() int {
	if q.failed == nil {
		_ = q.look() // Next returns the error
	}
	return int(q.seen - q.nextAvail)
}

// Next takes the next chain, if the driver has added one. A chain or a ring
// that breaks the rules is an error, ErrBadChain or ErrBadRing, and so is every
// Next after it: the driver must reset the device.
//
// The chain is the caller's until it gives it to Push or Return.
func (q *Queue) Next() (c *Chain, ok bool, err error) {
	if q.failed != nil {
		return nil, false, q.failed
	}
	if q.seen == q.nextAvail {
		if err := q.look(); err != nil {
			return nil, false, err
		}
		if q.seen == q.nextAvail {
			return nil, false, nil
		}
	}
	if c = q.newChain(); c == nil {
		q.failed = fmt.Errorf("%w: more chains in flight than it has descriptors (%d)", ErrBadRing, q.size)
		return nil, false, q.failed
	}
	head := q.avail.load(ringStart + availElement*int(q.nextAvail&(q.size-1)))
	if err := q.walk(c, head); err != nil {
		q.drop(c)
		q.failed = err
		return nil, false, err
	}
	q.nextAvail++
	if q.pace != nil {
		q.pace.Took()
	}
	return c, true, nil
}

// Take is Next, and where that has nothing, Wait. It fails with the error of ctx
// when that has ended, even if there are chains.
func (q *Queue) Take(ctx context.Context) (*Chain, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if c, ok, err := q.Next(); ok || err != nil {
			return c, err
		}
		if err := q.Wait(ctx); err != nil {
			return nil, err
		}
	}
}

// look loads the driver's index. That acquires what the driver wrote before.
func (q *Queue) look() error {
	seen := q.avail.load(ringIndex)
	if n := seen - q.nextAvail; n > q.size {
		q.failed = fmt.Errorf("%w: available index %d is %d after %d, but the ring holds %d", ErrBadRing, seen, n, q.nextAvail, q.size)
		return q.failed
	}
	q.seen = seen
	return nil
}

// Return gives a chain back as if Next had not returned it: the next Next reads
// it again. Only the last chains taken can be returned, the last one first. A
// device that holds a chain when its Serve ends returns it.
func (q *Queue) Return(c *Chain) {
	q.nextAvail--
	q.drop(c)
}

// Push puts a chain into the used ring, with the number of bytes written to the
// front of its In. The driver sees it after Flush. Chains may be pushed in any
// order.
func (q *Queue) Push(c *Chain, written uint32) {
	q.mu.Lock()
	at := ringStart + usedElement*int(q.nextUsed&(q.size-1))
	e := q.used.bytes[at : at+usedElement]
	binary.LittleEndian.PutUint32(e, uint32(c.head))
	binary.LittleEndian.PutUint32(e[4:], written)
	q.nextUsed++
	q.inFlight--
	q.free = append(q.free, c)
	q.mu.Unlock()
}

// Flush shows the driver all that was pushed, at once, and interrupts it if it
// asked for that.
func (q *Queue) Flush() {
	q.mu.Lock()
	before, now := q.shown, q.nextUsed
	if before == now {
		q.mu.Unlock()
		return
	}
	q.shown = now
	// Releases the elements. It is also the barrier before the driver's wish is
	// read: of our index and its wish, one side must see the other's.
	q.used.store(ringIndex, now)
	var wanted bool
	if q.features.EventIdx {
		event := q.avail.load(ringStart + availElement*int(q.size))
		wanted = now-event-1 < now-before // §2.7.7.2
	} else {
		wanted = q.avail.load(ringFlags)&availNoInterrupt == 0
	}
	q.mu.Unlock()
	if wanted {
		q.irq.Signal()
	}
}

// Wait flushes, and returns when Next may have a chain or an error, or with
// the error of ctx when that ends. It may return early.
func (q *Queue) Wait(ctx context.Context) error {
	q.Flush()
	if q.failed != nil || q.seen != q.nextAvail {
		return ctx.Err()
	}
	err := q.sleep(ctx)
	if !q.features.EventIdx {
		q.used.store(ringFlags, usedNoNotify)
	}
	// With EVENT_IDX there is nothing to undo: the driver notifies once, when its
	// index passes the event.
	return err
}

func (q *Queue) sleep(ctx context.Context) error {
	if q.pace == nil {
		return q.kick.Wait(ctx, q.isIdle)
	}
	q.pace.Rest()
	return q.kick.Block(ctx, q.isIdle)
}

// idle asks the driver for notifications, and then looks again, because it may
// have added a chain before it saw that.
func (q *Queue) idle() bool {
	if q.features.EventIdx {
		q.used.store(ringStart+usedElement*int(q.size), q.nextAvail)
	} else {
		q.used.store(ringFlags, 0)
	}
	return q.look() == nil && q.seen == q.nextAvail
}

// newChain returns an empty chain, or nil if as many are in flight as there can be.
func (q *Queue) newChain() *Chain {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.inFlight == int(q.size) {
		return nil
	}
	q.inFlight++
	if n := len(q.free); n > 0 {
		c := q.free[n-1]
		q.free = q.free[:n-1]
		return c
	}
	return new(Chain)
}

func (q *Queue) drop(c *Chain) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.inFlight--
	q.free = append(q.free, c)
}
