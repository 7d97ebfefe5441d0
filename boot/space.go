package boot

import (
	"cmp"
	"slices"

	"github.com/huskvm/husk/firmware/e820"
)

// A span is the guest-physical range [start, end).
type span struct{ start, end uint64 }

// A space is the RAM that is still free: sorted spans that neither overlap nor
// touch.
type space []span

// newSpace is all RAM of a memory map, less what an entry of another type
// covers.
func newSpace(m []e820.Entry) space {
	var ram space
	for _, e := range m {
		if e.Type == e820.RAM && e.Size > 0 {
			ram = append(ram, spanOf(e))
		}
	}
	slices.SortFunc(ram, func(a, b span) int { return cmp.Compare(a.start, b.start) })
	var s space
	for _, r := range ram {
		if last := len(s) - 1; last >= 0 && r.start <= s[last].end {
			s[last].end = max(s[last].end, r.end)
			continue
		}
		s = append(s, r)
	}
	for _, e := range m {
		if e.Type != e820.RAM {
			s.remove(spanOf(e))
		}
	}
	return s
}

// spanOf is an entry's range, ending at the last address when it would wrap.
func spanOf(e e820.Entry) span {
	end := e.End()
	if end < e.Addr {
		end = ^uint64(0)
	}
	return span{e.Addr, end}
}

// remove takes r out of s, whether all of it was free or not.
func (s *space) remove(r span) {
	if r.start >= r.end {
		return
	}
	rest := make(space, 0, len(*s)+1)
	for _, f := range *s {
		if left := (span{f.start, min(f.end, r.start)}); left.start < left.end {
			rest = append(rest, left)
		}
		if right := (span{max(f.start, r.end), f.end}); right.start < right.end {
			rest = append(rest, right)
		}
	}
	*s = rest
}

// take takes exactly r, if all of it is free.
func (s *space) take(r span) bool {
	for _, f := range *s {
		if f.start <= r.start && r.start <= r.end && r.end <= f.end {
			s.remove(r)
			return true
		}
	}
	return false
}

// lowest takes the lowest size bytes inside within whose start is a multiple of
// align, a power of two.
func (s *space) lowest(size, align uint64, within span) (span, bool) {
	for _, f := range *s {
		lo, hi := max(f.start, within.start), min(f.end, within.end)
		start := alignUp(lo, align)
		if lo > start || start > hi || hi-start < size {
			continue
		}
		r := span{start, start + size}
		s.remove(r)
		return r, true
	}
	return span{}, false
}

// highest takes the highest such bytes.
func (s *space) highest(size, align uint64, within span) (span, bool) {
	for _, f := range slices.Backward(*s) {
		lo, hi := max(f.start, within.start), min(f.end, within.end)
		if lo > hi || hi-lo < size {
			continue
		}
		start := (hi - size) &^ (align - 1)
		if start < lo {
			continue
		}
		r := span{start, start + size}
		s.remove(r)
		return r, true
	}
	return span{}, false
}

// alignUp rounds n up to a multiple of align, a power of two. It wraps to 0
// above the last multiple.
func alignUp(n, align uint64) uint64 { return (n + align - 1) &^ (align - 1) }
