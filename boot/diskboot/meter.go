package diskboot

import (
	"errors"
	"io"
	"sync/atomic"
)

// maxRead is what may be read of an image until everything is found, in bytes.
// An ordinary one takes less than a hundredth of it; one made for that purpose
// could keep us reading for hours.
const maxRead = 256 << 20

// leastRead is what the smallest read counts for.
const leastRead = 512

var errTooMuch = errors.New("the image has more to look through than a disk with an operating system has")

// A meter reads an image as long as there is something left.
type meter struct {
	image io.ReaderAt
	left  atomic.Int64 // bytes
}

// ReadAt implements io.ReaderAt.
func (m *meter) ReadAt(p []byte, off int64) (int, error) {
	if m.left.Load() <= 0 {
		return 0, errTooMuch
	}
	m.left.Add(-int64(max(len(p), leastRead)))
	return m.image.ReadAt(p, off)
}
