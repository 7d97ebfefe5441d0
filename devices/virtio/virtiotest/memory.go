// Package virtiotest is a virtio driver for tests: real rings in plain memory,
// without a machine around them. It follows the rules as Linux does, and breaks
// them where a test asks for that.
package virtiotest

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"sync"
	"sync/atomic"
)

// ErrBounds is what Memory says of an address that is not RAM.
var ErrBounds = errors.New("not RAM")

// Memory is guest RAM: one range of addresses.
type Memory struct {
	base  uint64
	bytes []byte

	mu   sync.Mutex
	next uint64              // the first byte never allocated
	free map[uint64][]uint64 // by size
}

// NewMemory returns size bytes of RAM at the guest-physical address base. Both
// are multiples of a page.
func NewMemory(base, size uint64) *Memory {
	return &Memory{base: base, bytes: make([]byte, size), next: base, free: map[uint64][]uint64{}}
}

// Readable implements queue.Memory.
func (m *Memory) Readable(gpa, n uint64) ([]byte, error) {
	off := gpa - m.base
	if size := uint64(len(m.bytes)); gpa < m.base || off > size || n > size-off {
		return nil, fmt.Errorf("%w: %#x+%#x", ErrBounds, gpa, n)
	}
	return m.bytes[off : off+n : off+n], nil
}

// Writable implements queue.Memory.
func (m *Memory) Writable(gpa, n uint64) ([]byte, error) { return m.Readable(gpa, n) }

// At is the n bytes at gpa, which the caller knows to be RAM.
func (m *Memory) At(gpa, n uint64) []byte {
	b, err := m.Readable(gpa, n)
	if err != nil {
		panic(err)
	}
	return b
}

// Alloc returns the address of n bytes that nobody uses, aligned to 16, or to a
// page if n is one or more. It panics when RAM is used up.
func (m *Memory) Alloc(n uint64) uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	n = sizeClass(n)
	if l := m.free[n]; len(l) > 0 {
		m.free[n] = l[:len(l)-1]
		return l[len(l)-1]
	}
	align := min(n, 4096)
	gpa := (m.next + align - 1) &^ (align - 1)
	m.At(gpa, n)
	m.next = gpa + n
	return gpa
}

// Free gives back what Alloc(n) returned.
func (m *Memory) Free(gpa, n uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n = sizeClass(n)
	m.free[n] = append(m.free[n], gpa)
}

// sizeClass rounds up to a power of two, at least 16.
func sizeClass(n uint64) uint64 { return 1 << bits.Len64(max(n, 16)-1) }

// A Signal is a notification or an interrupt: a Kick and an Interrupt in one.
type Signal struct {
	c chan struct{}
	n atomic.Int64
}

// NewSignal returns a Signal that nobody has signalled.
func NewSignal() *Signal { return &Signal{c: make(chan struct{}, 1)} }

// Signal implements queue.Interrupt.
func (s *Signal) Signal() {
	s.n.Add(1)
	select {
	case s.c <- struct{}{}:
	default: // one is waiting already
	}
}

// Wait implements queue.Kick.
func (s *Signal) Wait(ctx context.Context, idle func() bool) error {
	if !idle() {
		return nil
	}
	select {
	case <-s.c:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Block implements queue.Kick.
func (s *Signal) Block(ctx context.Context, idle func() bool) error { return s.Wait(ctx, idle) }

// C has a token after a Signal.
func (s *Signal) C() <-chan struct{} { return s.c }

// Count is how often Signal was called.
func (s *Signal) Count() int { return int(s.n.Load()) }
