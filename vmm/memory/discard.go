package memory

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Page is the size of the smallest piece of RAM that can be given back, in bytes.
const Page = 4096

// ErrAlignment is a range that is not made of pages.
var ErrAlignment = errors.New("not made of pages")

// Discard gives the n bytes of RAM at gpa back to the host: they read as zero, and
// take host memory again when they are touched. Both are multiples of Page, or it
// fails with ErrAlignment; it fails with ErrBounds unless all lie in one region.
//
// HugeTLB gives back whole huge pages only; less is left as it is. They go back to
// the host's pool of those, where kernels before 6.10 let others have them, so
// that a later touch can fail.
func (m *Memory) Discard(gpa, n uint64) error {
	if gpa%Page != 0 || n%Page != 0 {
		return fmt.Errorf("guest RAM %#x+%#x: %w of %d bytes", gpa, n, ErrAlignment, Page)
	}
	if m.backing == HugeTLB {
		if _, err := m.Readable(gpa, n); err != nil {
			return err
		}
		start, end := (gpa+HugePage-1)&^(HugePage-1), (gpa+n)&^(HugePage-1)
		if start >= end {
			return nil
		}
		gpa, n = start, end-start
	}
	b, err := m.Writable(gpa, n)
	if err != nil || n == 0 {
		return err
	}
	advice := unix.MADV_DONTNEED
	if m.backing == Shared {
		advice = unix.MADV_REMOVE // the memfd has the pages, not the mapping
	}
	for {
		err = unix.Madvise(b, advice)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("giving back guest RAM %#x+%#x: madvise: %w", gpa, n, err)
	}
	return nil
}
