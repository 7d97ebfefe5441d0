// Package runs reads a file that lies in pieces in an image: which bytes of the
// file are where, and the rest are zeros.
package runs

import (
	"errors"
	"fmt"
	"io"
	"math"
	"sort"
)

// Max bounds the pieces of one file. Neighbours count as one, so it is far above
// what a kernel in a worn file system has.
const Max = 1 << 17

// ErrMap says that a file's pieces cannot be right.
var ErrMap = errors.New("bad map of a file's blocks")

// A run is n bytes of the file from logical on, which the image has at physical.
type run struct{ logical, physical, n int64 }

// A Map says where the bytes of a file are. The zero Map is a file of zeros.
type Map struct{ list []run }

// Add appends a piece of n bytes. Pieces come in the file's order; what is left
// out between them is a hole.
func (m *Map) Add(logical, physical, n int64) error {
	if logical < 0 || physical < 0 || n <= 0 || logical > math.MaxInt64-n || physical > math.MaxInt64-n {
		return fmt.Errorf("%w: %d bytes at %d of the file and %d of the image", ErrMap, n, logical, physical)
	}
	if len(m.list) > 0 {
		last := &m.list[len(m.list)-1]
		switch {
		case logical < last.logical+last.n:
			return fmt.Errorf("%w: byte %d of the file is mapped twice, or out of order", ErrMap, logical)
		case logical == last.logical+last.n && physical == last.physical+last.n:
			last.n += n
			return nil
		case len(m.list) == Max:
			return fmt.Errorf("%w: the file is in more than %d pieces", ErrMap, Max)
		}
	}
	m.list = append(m.list, run{logical, physical, n})
	return nil
}

// Open gives the first size bytes of the file, read from image. The Map must
// not change any more. Reads may come from several goroutines at once if image
// allows them.
func (m *Map) Open(image io.ReaderAt, size int64) *io.SectionReader {
	return io.NewSectionReader(reader{m.list, image}, 0, size)
}

// reader is the file without an end: a SectionReader around it gives it one.
type reader struct {
	list  []run
	image io.ReaderAt
}

// ReadAt implements io.ReaderAt. An image that ends inside a piece is
// io.ErrUnexpectedEOF.
func (r reader) ReadAt(p []byte, off int64) (n int, err error) {
	i := sort.Search(len(r.list), func(i int) bool { return r.list[i].logical+r.list[i].n > off })
	for n < len(p) {
		rest, at := p[n:], off+int64(n)
		if i == len(r.list) {
			clear(rest)
			return len(p), nil
		}
		next := r.list[i]
		if hole := next.logical - at; hole > 0 {
			k := min(hole, int64(len(rest)))
			clear(rest[:k])
			n += int(k)
			continue
		}
		skip := at - next.logical
		k := int(min(next.n-skip, int64(len(rest))))
		m, err := r.image.ReadAt(rest[:k], next.physical+skip)
		n += m
		if m < k {
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return n, err
		}
		i++
	}
	return n, nil
}
