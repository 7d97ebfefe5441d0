package main

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A region is registers in memory space.
type region struct {
	bytes []byte
}

// mapRegion maps size bytes of a file at an offset.
func mapRegion(path string, off int64, size int) (*region, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_SYNC, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := unix.Mmap(int(f.Fd()), off, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("%s: mmap: %w", path, err)
	}
	return &region{b}, nil
}

// store is one store of size bytes, if they are in the region.
func (r *region) store(off, size int, v uint64) {
	if off < 0 || off+size > len(r.bytes) {
		return
	}
	p := unsafe.Pointer(&r.bytes[off])
	switch size {
	case 1:
		*(*uint8)(p) = uint8(v)
	case 2:
		*(*uint16)(p) = uint16(v)
	case 4:
		*(*uint32)(p) = uint32(v)
	case 8:
		*(*uint64)(p) = v
	}
}

// load is one load.
func (r *region) load(off, size int) uint64 {
	if off < 0 || off+size > len(r.bytes) {
		return 0
	}
	p := unsafe.Pointer(&r.bytes[off])
	switch size {
	case 1:
		return uint64(*(*uint8)(p))
	case 2:
		return uint64(*(*uint16)(p))
	case 4:
		return uint64(*(*uint32)(p))
	}
	return *(*uint64)(p)
}
