// Package memory is the guest's RAM as the host sees it: one mapping of the
// host, aligned and backed so that both page tables can use 2 MiB pages, seen
// through guest-physical addresses.
//
// Devices ask for memory with intent: Readable for what they only look at,
// Writable for what they will change. A slice stays valid until Close. The
// guest goes on changing RAM under such a slice, so what must be validated is
// copied first.
package memory

import (
	"errors"
	"fmt"
	"io"
	"math"
)

// HugePage is the alignment of every range, guest-physical and host-virtual.
const HugePage = 2 << 20

// ErrBounds is a guest-physical range that is not all RAM.
var ErrBounds = errors.New("not guest RAM")

// ErrNoMemory is RAM that the host would not give.
var ErrNoMemory = errors.New("guest RAM not available")

// A Backing says where the host takes RAM from.
type Backing int

// The backings.
const (
	THP     Backing = iota // anonymous memory, with transparent huge pages asked for
	HugeTLB                // hugetlbfs pages of 2 MiB, reserved when mapped
	Shared                 // a memfd
)

// A Range is a piece of RAM in guest-physical space, in bytes. Both are
// multiples of HugePage.
type Range struct {
	GPA, Size uint64
}

// A Region is a Range with its place in host memory.
type Region struct {
	Range
	host []byte
}

// HVA is the host-virtual address of the region, for KVM_SET_USER_MEMORY_REGION.
func (r Region) HVA() uintptr { return addressOf(r.host) }

// Memory is the RAM of one guest.
type Memory struct {
	regions []Region
	mapping []byte // what is unmapped at the end
	fd      int    // the memfd of Shared, or -1
	backing Backing
}

// New maps RAM for ranges, which are sorted and do not overlap. Pages are given
// by the host as they are touched, and are zero.
func New(ranges []Range, backing Backing) (*Memory, error) {
	var total uint64
	for i, r := range ranges {
		if r.Size == 0 || r.GPA%HugePage != 0 || r.Size%HugePage != 0 {
			return nil, fmt.Errorf("guest RAM range %#x+%#x is not made of 2 MiB pages", r.GPA, r.Size)
		}
		if i > 0 && r.GPA < ranges[i-1].GPA+ranges[i-1].Size {
			return nil, fmt.Errorf("guest RAM range %#x+%#x overlaps the one before", r.GPA, r.Size)
		}
		total += r.Size
	}
	if total == 0 || total > math.MaxInt-HugePage {
		return nil, fmt.Errorf("guest RAM of %d bytes cannot be mapped", total)
	}
	m, err := mapRAM(int(total), backing)
	if err != nil {
		return nil, fmt.Errorf("%w: %d MiB: %w", ErrNoMemory, total>>20, err)
	}
	host := m.mapping
	for _, r := range ranges {
		m.regions = append(m.regions, Region{Range: r, host: host[:r.Size:r.Size]})
		host = host[r.Size:]
	}
	return m, nil
}

// Regions are the pieces of RAM, by rising address.
func (m *Memory) Regions() []Region { return m.regions }

// Size is all RAM, in bytes.
func (m *Memory) Size() uint64 { return uint64(len(m.mapping)) }

// HostRange is where RAM lies in the host process, for accounting.
func (m *Memory) HostRange() (start, end uintptr) {
	start = addressOf(m.mapping)
	return start, start + uintptr(len(m.mapping))
}

// Readable is the n bytes of RAM at gpa, to be read. It fails with ErrBounds
// unless all of them lie in one region.
func (m *Memory) Readable(gpa, n uint64) ([]byte, error) {
	for _, r := range m.regions {
		if off := gpa - r.GPA; gpa >= r.GPA && off < r.Size {
			if n > r.Size-off {
				break
			}
			return r.host[off : off+n : off+n], nil
		}
	}
	return nil, fmt.Errorf("%w: %#x+%#x", ErrBounds, gpa, n)
}

// Writable is the n bytes of RAM at gpa, to be changed.
func (m *Memory) Writable(gpa, n uint64) ([]byte, error) { return m.Readable(gpa, n) }

// ReadAt copies RAM at the guest-physical address gpa.
func (m *Memory) ReadAt(p []byte, gpa int64) (int, error) {
	b, err := m.Readable(uint64(gpa), uint64(len(p)))
	if err != nil {
		return 0, err
	}
	return copy(p, b), nil
}

// WriteAt copies p into RAM at the guest-physical address gpa.
func (m *Memory) WriteAt(p []byte, gpa int64) (int, error) {
	b, err := m.Writable(uint64(gpa), uint64(len(p)))
	if err != nil {
		return 0, err
	}
	return copy(b, p), nil
}

// Fill reads n bytes of r, from off on, straight into RAM at gpa: a file
// reaches the guest without a copy in the VMM's own memory.
func (m *Memory) Fill(gpa int64, r io.ReaderAt, off, n int64) error {
	b, err := m.Writable(uint64(gpa), uint64(n))
	if err != nil {
		return err
	}
	got, err := r.ReadAt(b, off)
	if got == len(b) {
		return nil // io.EOF may come with the last byte
	}
	if err == nil || errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
