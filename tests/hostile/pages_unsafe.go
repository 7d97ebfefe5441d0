package main

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// pages is memory that stays where it is, with what a device calls it.
type pages struct {
	bytes []byte
	gpa   []uint64 // by page
}

const pageSize = 4096

// newPages locks n pages and looks up where they are (kernel
// Documentation/admin-guide/mm/pagemap.rst).
func newPages(n int) (*pages, error) {
	// Locked pages may be moved all the same, unless told.
	_ = os.WriteFile("/proc/sys/vm/compact_unevictable_allowed", []byte("0"), 0)
	b, err := unix.Mmap(-1, 0, n*pageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE)
	if err != nil {
		return nil, err
	}
	_ = unix.Madvise(b, unix.MADV_NOHUGEPAGE)
	if err := unix.Mlock(b); err != nil {
		return nil, fmt.Errorf("memory for rings: %w", err)
	}
	f, err := os.Open("/proc/self/pagemap")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	p := &pages{bytes: b}
	for i := range n {
		b[i*pageSize] = 1 // its own page, not that of zeroes
		var entry [8]byte
		at := uintptr(unsafe.Pointer(&b[i*pageSize])) / pageSize
		if _, err := f.ReadAt(entry[:], int64(at)*8); err != nil {
			return nil, err
		}
		const present, frame = 1 << 63, 1<<55 - 1
		v := *(*uint64)(unsafe.Pointer(&entry))
		if v&present == 0 || v&frame == 0 {
			return nil, errors.New("where memory is cannot be seen; that takes root")
		}
		p.gpa = append(p.gpa, v&frame*pageSize)
	}
	return p, nil
}

// at is a page's bytes.
func (p *pages) at(i int) []byte { return p.bytes[i*pageSize : (i+1)*pageSize] }
