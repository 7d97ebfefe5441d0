package vsock

import (
	"slices"
	"sync"

	"github.com/huskvm/husk/devices/virtio/queue"
)

// chunkSize is the unit, in bytes, of what is buffered.
const chunkSize = 8 << 10

type chunk [chunkSize]byte

// A chunks is where chunks come from and go to.
type chunks struct{ pool sync.Pool }

func (p *chunks) get() *chunk {
	if c, ok := p.pool.Get().(*chunk); ok {
		return c
	}
	return new(chunk)
}

func (p *chunks) put(c *chunk) { p.pool.Put(c) }

// A fifo holds bytes in chunks: memory follows what is in it.
type fifo struct {
	chunks []*chunk
	head   int // in the first chunk
	n      int // bytes in all
}

// fill appends the n bytes at the front of from, which has as many.
func (f *fifo) fill(p *chunks, from *queue.Chain, n int) {
	for n > 0 {
		tail := f.head + f.n - chunkSize*(len(f.chunks)-1) // in the last chunk
		if len(f.chunks) == 0 || tail == chunkSize {
			f.chunks = append(f.chunks, p.get())
			tail = f.head + f.n - chunkSize*(len(f.chunks)-1)
		}
		last := f.chunks[len(f.chunks)-1]
		m, err := from.Read(last[tail:min(chunkSize, tail+n)])
		if err != nil {
			return
		}
		f.n += m
		n -= m
	}
}

// peek appends to b what lies at the front, up to limit bytes. It stays there
// and does not change until discard.
func (f *fifo) peek(b [][]byte, limit int) [][]byte {
	at, left := f.head, min(f.n, limit)
	for i := 0; left > 0; i++ {
		m := min(left, chunkSize-at)
		b = append(b, f.chunks[i][at:at+m])
		at, left = 0, left-m
	}
	return b
}

// discard takes n bytes off the front. There are as many.
func (f *fifo) discard(p *chunks, n int) {
	f.head += n
	f.n -= n
	done := f.head / chunkSize
	f.head %= chunkSize
	if f.n == 0 {
		done, f.head = len(f.chunks), 0
	}
	for _, c := range f.chunks[:done] {
		p.put(c)
	}
	f.chunks = slices.Delete(f.chunks, 0, done)
}

// read takes bytes off the front, into b.
func (f *fifo) read(p *chunks, b []byte) int {
	n := 0
	for n < len(b) && f.n > 0 {
		m := copy(b[n:], f.chunks[0][f.head:min(chunkSize, f.head+f.n)])
		f.discard(p, m)
		n += m
	}
	return n
}
