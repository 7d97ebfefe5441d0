package queue

import (
	"errors"
	"sync/atomic"
	"unsafe"
)

// Load16 loads the little-endian 16-bit field at off, which is even, and
// acquires: what the other side wrote before it stored the field is seen.
//
// Go has no atomics of this width, so the aligned word around the field is
// loaded. b must start at a multiple of 4 in host memory, and hold that word.
func Load16(b []byte, off int) uint16 {
	return uint16(atomic.LoadUint32(wordAt(b, off)) >> (off & 2 * 8))
}

// Store16 stores the field that Load16 loads, releases what was written before,
// and is a full barrier: no load after it is done before it. The rest of the word
// keeps its value, even if the other side changes it meanwhile. Only one side
// may store to a field.
func Store16(b []byte, off int, v uint16) {
	w, shift := wordAt(b, off), off&2*8
	// An addition is a single locked instruction, however much the guest writes
	// to the word; to compare and swap could fail for as long as it likes. The
	// field is ours, so the difference carries nothing into its neighbour.
	old := uint16(atomic.LoadUint32(w) >> shift)
	atomic.AddUint32(w, (uint32(v)-uint32(old))<<shift)
}

func wordAt(b []byte, off int) *uint32 {
	off &^= 3
	return (*uint32)(unsafe.Pointer(unsafe.SliceData(b[off : off+4])))
}

// An area is a ring in guest memory, with the words around its first and last
// fields.
type area struct {
	bytes []byte
	start int // of the ring in bytes, 0 or 2
}

func newArea(ask func(gpa, n uint64) ([]byte, error), gpa, n uint64) (area, error) {
	start := gpa & 3
	b, err := ask(gpa-start, (start+n+3)&^3)
	if err != nil {
		return area{}, err
	}
	if uintptr(unsafe.Pointer(unsafe.SliceData(b)))%4 != 0 {
		return area{}, errors.New("guest RAM is not aligned in host memory")
	}
	return area{bytes: b, start: int(start)}, nil
}

func (a *area) load(off int) uint16     { return Load16(a.bytes, a.start+off) }
func (a *area) store(off int, v uint16) { Store16(a.bytes, a.start+off, v) }
