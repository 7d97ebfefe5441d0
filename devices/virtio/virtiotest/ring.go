package virtiotest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/huskvm/husk/devices/virtio/queue"
)

// The flags of a Descriptor (virtio 1.2 §2.7.5).
const (
	FlagNext     = 1
	FlagWrite    = 2
	FlagIndirect = 4
)

// A Descriptor is one entry of a descriptor table.
type Descriptor struct {
	Addr  uint64
	Len   uint32
	Flags uint16
	Next  uint16
}

// A Buffer is one element of a request: bytes for the device to read, or room
// for it to write.
type Buffer struct {
	data  []byte
	room  int
	write bool
}

// Out is a device-readable buffer with a copy of b.
func Out(b []byte) Buffer { return Buffer{data: b} }

// In is a device-writable buffer of n bytes, which are 0xcc at first.
func In(n int) Buffer { return Buffer{room: n, write: true} }

func (b Buffer) len() int { return len(b.data) + b.room }

// A Request is buffers that were given to the device.
type Request struct {
	// Written is how many bytes the device says to have written.
	Written uint32

	head        uint16
	descriptors []Descriptor
	taken       []uint16 // entries of the ring's table
	table       uint64   // of indirect descriptors, or 0
}

// Head is the descriptor that the request began with.
func (q *Request) Head() uint16 { return q.head }

// A Ring is the driver's side of a virtqueue. It belongs to one goroutine.
type Ring struct {
	// State is where the rings are, as the driver tells the device.
	State queue.State
	// Indirect has requests use a table of their own.
	Indirect bool
	// Kick and Interrupt are the queue's.
	Kick, Interrupt *Signal

	mem       *Memory
	features  queue.Features
	free      []uint16
	inUse     map[uint16]*Request
	added     uint16 // the available index with what was added
	published uint16 // the available index that the device sees
	used      uint16 // the used index up to which was taken
}

// NewRing returns a ring of size descriptors in mem.
func NewRing(mem *Memory, size int, f queue.Features) *Ring {
	n := uint64(size)
	r := &Ring{
		mem: mem, features: f, inUse: map[uint16]*Request{},
		Kick: NewSignal(), Interrupt: NewSignal(),
		State: queue.State{
			Enabled: true, Size: uint16(size),
			Desc: mem.Alloc(16 * n), Driver: mem.Alloc(8 + 2*n), Device: mem.Alloc(8 + 8*n),
		},
	}
	for _, area := range [][]byte{r.desc(), r.avail(), r.usedRing()} {
		clear(area)
	}
	for i := range size {
		r.free = append(r.free, uint16(size-1-i))
	}
	return r
}

func (r *Ring) desc() []byte     { return r.mem.At(r.State.Desc, 16*uint64(r.State.Size)) }
func (r *Ring) avail() []byte    { return r.mem.At(r.State.Driver, 8+2*uint64(r.State.Size)) }
func (r *Ring) usedRing() []byte { return r.mem.At(r.State.Device, 8+8*uint64(r.State.Size)) }

// SetDescriptor writes an entry of the descriptor table.
func (r *Ring) SetDescriptor(i int, d Descriptor) { PutDescriptor(r.desc()[16*i:], d) }

// PutDescriptor writes d to b, as it stands in a descriptor table.
func PutDescriptor(b []byte, d Descriptor) {
	binary.LittleEndian.PutUint64(b, d.Addr)
	binary.LittleEndian.PutUint32(b[8:], d.Len)
	binary.LittleEndian.PutUint16(b[12:], d.Flags)
	binary.LittleEndian.PutUint16(b[14:], d.Next)
}

// Offer puts head into the next entry of the available ring, as it is. Publish
// shows it to the device.
func (r *Ring) Offer(head uint16) {
	queue.Store16(r.avail(), 4+2*int(r.added&(r.State.Size-1)), head)
	r.added++
}

// SetAvail makes v the available index, whatever stands in the ring.
func (r *Ring) SetAvail(v uint16) {
	r.added, r.published = v, v
	queue.Store16(r.avail(), 2, v)
}

// StartAt begins with the rings' indices at v, before the device takes the queue
// up.
func (r *Ring) StartAt(v uint16) {
	r.SetAvail(v)
	queue.Store16(r.usedRing(), 2, v)
	r.used, r.State.NextAvail, r.State.NextUsed = v, v, v
}

// Room is how many descriptors are free.
func (r *Ring) Room() int { return len(r.free) }

// Add makes a request of buffers, in order. The device sees it after Publish. It
// panics if there is no room.
func (r *Ring) Add(buffers ...Buffer) *Request {
	q := &Request{}
	for _, b := range buffers {
		d := Descriptor{Addr: r.mem.Alloc(uint64(b.len())), Len: uint32(b.len())}
		at := r.mem.At(d.Addr, uint64(d.Len))
		copy(at, b.data)
		if b.write {
			d.Flags = FlagWrite
			for i := range at {
				at[i] = 0xcc
			}
		}
		q.descriptors = append(q.descriptors, d)
	}
	if r.Indirect {
		r.addIndirect(q)
	} else {
		r.addDirect(q)
	}
	q.head = q.taken[0]
	r.inUse[q.head] = q
	r.Offer(q.head)
	return q
}

func (r *Ring) take(q *Request) uint16 {
	if len(r.free) == 0 {
		panic("the ring is full")
	}
	i := r.free[len(r.free)-1]
	r.free = r.free[:len(r.free)-1]
	q.taken = append(q.taken, i)
	return i
}

func (r *Ring) addDirect(q *Request) {
	for range q.descriptors {
		r.take(q)
	}
	for i, d := range q.descriptors {
		if i+1 < len(q.taken) {
			d.Flags |= FlagNext
			d.Next = q.taken[i+1]
		}
		r.SetDescriptor(int(q.taken[i]), d)
	}
}

func (r *Ring) addIndirect(q *Request) {
	n := 16 * uint64(len(q.descriptors))
	q.table = r.mem.Alloc(n)
	for i, d := range q.descriptors {
		if i+1 < len(q.descriptors) {
			d.Flags |= FlagNext
			d.Next = uint16(i + 1)
		}
		PutDescriptor(r.mem.At(q.table+16*uint64(i), 16), d)
	}
	r.SetDescriptor(int(r.take(q)), Descriptor{Addr: q.table, Len: uint32(n), Flags: FlagIndirect})
}

// Publish shows the device what was added, and notifies it if it wants that.
func (r *Ring) Publish() {
	before := r.published
	r.published = r.added
	queue.Store16(r.avail(), 2, r.added) // and the barrier before the wish is read
	wanted := queue.Load16(r.usedRing(), 0)&1 == 0
	if r.features.EventIdx {
		event := queue.Load16(r.usedRing(), 4+8*int(r.State.Size))
		wanted = r.added-event-1 < r.added-before
	}
	if wanted {
		r.Kick.Signal()
	}
}

// SetInterrupts asks for an interrupt for each used buffer, or for none.
func (r *Ring) SetInterrupts(on bool) {
	switch {
	case !r.features.EventIdx && on:
		queue.Store16(r.avail(), 0, 0)
	case !r.features.EventIdx:
		queue.Store16(r.avail(), 0, 1)
	case on:
		r.SetUsedEvent(r.used)
	default:
		r.SetUsedEvent(r.used - 1)
	}
}

// SetUsedEvent asks for an interrupt when the used index passes v.
func (r *Ring) SetUsedEvent(v uint16) { queue.Store16(r.avail(), 4+2*int(r.State.Size), v) }

// ErrUsed is a used ring that the device may not have left so.
var ErrUsed = errors.New("the device broke the used ring")

// Used takes the next request that the device has used, nil if there is none.
func (r *Ring) Used() (*Request, error) {
	ring := r.usedRing()
	if queue.Load16(ring, 2) == r.used {
		return nil, nil
	}
	e := ring[4+8*int(r.used&(r.State.Size-1)):]
	r.used++
	id, written := binary.LittleEndian.Uint32(e), binary.LittleEndian.Uint32(e[4:])
	q := r.inUse[uint16(id)]
	if id >= uint32(r.State.Size) || q == nil {
		return nil, fmt.Errorf("%w: descriptor %d was not given to it", ErrUsed, id)
	}
	q.Written = written
	delete(r.inUse, q.head)
	r.free = append(r.free, q.taken...)
	return q, nil
}

// Await waits until the device has used a request. Free gives it back.
func (r *Ring) Await(ctx context.Context) (*Request, error) {
	for {
		q, err := r.Used()
		if q != nil || err != nil {
			return q, err
		}
		r.SetInterrupts(true)
		if q, err := r.Used(); q != nil || err != nil {
			return q, err
		}
		select {
		case <-r.Interrupt.C():
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// AwaitAny waits until the device has used something, and leaves open what: for
// benchmarks, which offer the same requests again. It does not allocate.
func (r *Ring) AwaitAny(ctx context.Context) error {
	ring := r.usedRing()
	for queue.Load16(ring, 2) == r.used {
		r.SetInterrupts(true)
		if queue.Load16(ring, 2) != r.used {
			break
		}
		select {
		case <-r.Interrupt.C():
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	r.used++
	return nil
}

// In is what stands in the device-writable buffers of a request, one after the
// other, written or not.
func (r *Ring) In(q *Request) []byte {
	var all []byte
	for _, d := range q.descriptors {
		if d.Flags&FlagWrite != 0 {
			all = append(all, r.mem.At(d.Addr, uint64(d.Len))...)
		}
	}
	return all
}

// Free gives back the buffers of a request that was used.
func (r *Ring) Free(q *Request) {
	for _, d := range q.descriptors {
		r.mem.Free(d.Addr, uint64(d.Len))
	}
	if q.table != 0 {
		r.mem.Free(q.table, 16*uint64(len(q.descriptors)))
	}
}

// Do has the device do one request, and returns what it wrote.
func (r *Ring) Do(ctx context.Context, buffers ...Buffer) ([]byte, error) {
	r.Add(buffers...)
	r.Publish()
	q, err := r.Await(ctx)
	if err != nil {
		return nil, err
	}
	in := r.In(q)
	r.Free(q)
	if uint64(q.Written) > uint64(len(in)) {
		return nil, fmt.Errorf("%w: %d bytes written of %d", ErrUsed, q.Written, len(in))
	}
	return in[:q.Written], nil
}
