// Package iovec cuts, fills and copies vectors of byte slices, in the form that
// preadv(2) and pwritev(2) take them. Nothing here changes a vector itself: its
// slices are the guest's memory, and belong to the caller.
package iovec

// Len is the number of bytes in v.
func Len(v [][]byte) int64 {
	var n int64
	for _, s := range v {
		n += int64(len(s))
	}
	return n
}

// Slice returns the n bytes of v from off on. It panics if v is shorter, as
// slicing does.
func Slice(v [][]byte, off, n int64) [][]byte {
	if off == 0 && n == Len(v) {
		return v
	}
	for len(v) > 0 && off >= int64(len(v[0])) {
		off -= int64(len(v[0]))
		v = v[1:]
	}
	if n == 0 {
		return nil
	}
	if rest := int64(len(v[0])) - off; n <= rest {
		return [][]byte{v[0][off : off+n : off+n]}
	}
	cut := make([][]byte, 0, len(v))
	for n > 0 {
		s := v[0][off:]
		s = s[:min(int64(len(s)), n)]
		if len(s) > 0 {
			cut = append(cut, s)
		}
		n -= int64(len(s))
		off = 0
		v = v[1:]
	}
	return cut
}

// Zero fills v with zeroes.
func Zero(v [][]byte) {
	for _, s := range v {
		clear(s)
	}
}

// Scatter copies src to the start of v, and returns how many bytes had room.
func Scatter(v [][]byte, src []byte) int {
	n := 0
	for _, s := range v {
		n += copy(s, src[n:])
	}
	return n
}

// Gather copies the start of v to dst, and returns how many bytes there were.
func Gather(dst []byte, v [][]byte) int {
	n := 0
	for _, s := range v {
		n += copy(dst[n:], s)
	}
	return n
}
