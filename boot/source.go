package boot

import (
	"errors"
	"fmt"
	"io"
)

// chunk is the size of the buffer that files pass through on their way into
// guest memory, in bytes. Files are never held whole: what a monitor has
// resident counts.
const chunk = 64 << 10

// read fills p from the file's offset off. what names the part that is read.
func (s Source) read(p []byte, off int64, what string) error {
	if err := s.holds(off, int64(len(p)), what); err != nil {
		return err
	}
	if n, err := s.ReadAt(p, off); n < len(p) {
		return s.readError(err, what)
	}
	return nil
}

// holds tells whether the file has n bytes at offset off. It reads nothing.
func (s Source) holds(off, n int64, what string) error {
	if off < 0 || n < 0 || off > s.Size || n > s.Size-off {
		return refuse(s.Name, ErrTruncated, "%s is %d bytes at offset %d, and the file ends at %d; get a whole copy of it",
			what, uint64(n), uint64(off), s.Size)
	}
	return nil
}

// readError turns the error of a short read into one that names the file.
func (s Source) readError(err error, what string) error {
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return refuse(s.Name, ErrTruncated, "%s ends before the file's size of %d bytes; get a whole copy of it", what, s.Size)
	}
	return fmt.Errorf("%s: reading %s: %w", s.Name, what, err)
}

// copyTo puts n bytes of the file, from off on, into guest memory at gpa.
func (s Source) copyTo(mem io.WriterAt, gpa uint64, off, n int64, what string) error {
	if n == 0 {
		return nil
	}
	if f, ok := mem.(Filler); ok {
		if err := f.Fill(int64(gpa), s.ReaderAt, off, n); err != nil {
			return s.readError(err, what)
		}
		return nil
	}
	buf := make([]byte, min(n, chunk))
	for n > 0 {
		p := buf[:min(n, chunk)]
		if m, err := s.ReadAt(p, off); m < len(p) {
			return s.readError(err, what)
		}
		if _, err := mem.WriteAt(p, int64(gpa)); err != nil {
			return fmt.Errorf("%s: writing %s to guest memory at %#x: %w", s.Name, what, gpa, err)
		}
		gpa, off, n = gpa+uint64(len(p)), off+int64(len(p)), n-int64(len(p))
	}
	return nil
}
