package devices

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
)

// ErrMap is why a Bus does not take a device: its range is empty, runs past the
// end of the address space, or overlaps another's. It is also why a Bus gives
// none up: it has none there.
var ErrMap = errors.New("cannot map device")

// A Range is a device's place in an address space, in bytes.
type Range struct {
	Name       string
	Base, Size uint64
}

// last is the highest address of r. An end would not fit a range that reaches
// the top of the address space.
func (r Range) last() uint64 { return r.Base + r.Size - 1 }

func (r Range) String() string { return fmt.Sprintf("%s at %#x-%#x", r.Name, r.Base, r.last()) }

// A Bus finds the device for an address. Port space and memory space are each
// one Bus.
//
// Load and Store take no lock and do not allocate: they look into a sorted
// slice that never changes, and Map and Unmap put a new slice in its place. So
// devices may come and go while vCPUs run.
type Bus struct {
	space string
	mu    sync.Mutex // serialises Map and Unmap
	slots atomic.Pointer[[]slot]
}

type slot struct {
	Range
	dev Device
}

// NewBus returns an empty bus. space names it in errors: "pio" or "mmio".
func NewBus(space string) *Bus {
	b := &Bus{space: space}
	b.slots.Store(new([]slot))
	return b
}

// Map puts dev at base, for size bytes. It refuses with ErrMap an empty range,
// one that passes the end of the address space, and one that overlaps another.
func (b *Bus) Map(name string, base, size uint64, dev Device) error {
	r := Range{Name: name, Base: base, Size: size}
	if size == 0 {
		return fmt.Errorf("%s: %w %s at %#x: its size is 0", b.space, ErrMap, name, base)
	}
	if r.last() < base {
		return fmt.Errorf("%s: %w %s at %#x: its size %#x passes the end of the address space", b.space, ErrMap, name, base, size)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	old := *b.slots.Load()
	i := search(old, base)
	for _, s := range old[max(i-1, 0):min(i+1, len(old))] {
		if s.Base <= r.last() && base <= s.last() {
			return fmt.Errorf("%s: %w %s: it overlaps %s; give one of them another address", b.space, ErrMap, r, s.Range)
		}
	}
	slots := slices.Insert(slices.Clone(old), i, slot{r, dev})
	b.slots.Store(&slots)
	return nil
}

// Unmap takes away the device whose range begins at base. It refuses with
// ErrMap if there is none. An access that was under way may still reach the
// device after Unmap has returned, but none that begins later does.
func (b *Bus) Unmap(base uint64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	old := *b.slots.Load()
	i := search(old, base)
	if i == len(old) || old[i].Base != base {
		return fmt.Errorf("%s: %w: nothing to unmap begins at %#x", b.space, ErrMap, base)
	}
	slots := slices.Concat(old[:i], old[i+1:])
	b.slots.Store(&slots)
	return nil
}

// Ranges lists what is mapped, by address.
func (b *Bus) Ranges() []Range {
	slots := *b.slots.Load()
	ranges := make([]Range, len(slots))
	for i, s := range slots {
		ranges[i] = s.Range
	}
	return ranges
}

// Load fills p from the device at addr. Bytes that no device claims read as
// 0xff, as from a bus whose data lines nobody drives.
//
// A device gets an access that lies whole inside its range as it is. Any other
// is taken apart into bytes, each with its own owner, as ISA bridges do for a
// device that is narrower than the access.
func (b *Bus) Load(addr uint64, p []byte) {
	slots := *b.slots.Load()
	if s := find(slots, addr, len(p)); s != nil {
		s.dev.Load(addr-s.Base, p)
		return
	}
	for i := range p {
		a := addr + uint64(i)
		if s := find(slots, a, 1); s != nil {
			s.dev.Load(a-s.Base, p[i:i+1])
		} else {
			p[i] = 0xff
		}
	}
}

// Store gives p to the device at addr. Bytes that no device claims are lost. An
// access across the end of a range is taken apart as Load does it.
func (b *Bus) Store(addr uint64, p []byte) {
	slots := *b.slots.Load()
	if s := find(slots, addr, len(p)); s != nil {
		s.dev.Store(addr-s.Base, p)
		return
	}
	for i := range p {
		a := addr + uint64(i)
		if s := find(slots, a, 1); s != nil {
			s.dev.Store(a-s.Base, p[i:i+1])
		}
	}
}

// find returns the slot that holds all n bytes at addr, or nil.
func find(slots []slot, addr uint64, n int) *slot {
	i := search(slots, addr)
	if i == len(slots) || slots[i].Base != addr {
		i--
	}
	if i < 0 {
		return nil
	}
	s := &slots[i]
	if off := addr - s.Base; off >= s.Size || uint64(n) > s.Size-off {
		return nil
	}
	return s
}

// search returns the index of the first slot at or above addr. It is written
// out because slices.BinarySearchFunc calls through a function value, and this
// runs on every exit.
func search(slots []slot, addr uint64) int {
	lo, hi := 0, len(slots)
	for lo < hi {
		mid := int(uint(lo+hi) / 2)
		if slots[mid].Base < addr {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}
