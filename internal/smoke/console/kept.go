package console

import (
	"fmt"
	"io"
)

// kept is the bytes that came: all of them up to its limits, and of more, the head
// and the tail. The head has how the machine began, the tail how it ended.
type kept struct {
	headMax, tailMax int

	head  []byte
	tail  []byte // a ring once it is full
	next  int    // where in the ring the next byte goes, its oldest
	total int64  // bytes that came
}

func (k *kept) add(p []byte) {
	k.total += int64(len(p))
	if room := k.headMax - len(k.head); room > 0 {
		n := min(room, len(p))
		k.head = append(k.head, p[:n]...)
		p = p[n:]
	}
	if len(p) > k.tailMax {
		p = p[len(p)-k.tailMax:]
	}
	if room := k.tailMax - len(k.tail); room > 0 {
		n := min(room, len(p))
		k.tail = append(k.tail, p[:n]...)
		p = p[n:]
	}
	for len(p) > 0 {
		n := copy(k.tail[k.next:], p)
		k.next = (k.next + n) % len(k.tail)
		p = p[n:]
	}
}

// left is how many bytes were left out between head and tail.
func (k *kept) left() int64 {
	return k.total - int64(len(k.head)) - int64(len(k.tail))
}

// writeTo writes head and tail, and between them what was left out.
func (k *kept) writeTo(w io.Writer) (int64, error) {
	parts := [][]byte{k.head}
	if n := k.left(); n > 0 {
		parts = append(parts, fmt.Appendf(nil, "\n… %d bytes left out …\n", n))
	}
	parts = append(parts, k.tail[k.next:], k.tail[:k.next])
	var sum int64
	for _, p := range parts {
		n, err := w.Write(p)
		if sum += int64(n); err != nil {
			return sum, err
		}
	}
	return sum, nil
}
