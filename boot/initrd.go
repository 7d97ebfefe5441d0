package boot

import (
	"io"
	"math"
)

// initrdAlign is what each of several initrds starts at a multiple of, after
// zeros (kernel Documentation/driver-api/early-userspace/buffer-format.rst).
const initrdAlign = 4

// initrdSize is the size of all initrds as they lie in memory, in bytes.
func (m Machine) initrdSize() (uint64, error) {
	var total uint64
	for _, s := range m.Initrds {
		if s.Size <= 0 {
			return 0, refuse(s.Name, ErrInitrd, "it is empty; leave it out, or give a cpio archive, plain or compressed")
		}
		total = alignUp(total, initrdAlign) + uint64(s.Size)
		if total > math.MaxUint32 { // the field ramdisk_size
			return 0, refuse(s.Name, ErrInitrd, "with it the initramfs grows to %s, and a kernel takes less than 4 GiB; use a smaller one", size(total))
		}
	}
	return total, nil
}

// writeInitrds puts all initrds into memory from gpa on. The padding between
// them is not written: memory is fresh.
func (m Machine) writeInitrds(mem io.WriterAt, gpa uint64) error {
	for _, s := range m.Initrds {
		gpa = alignUp(gpa, initrdAlign)
		if err := s.copyTo(mem, gpa, 0, s.Size, "the initramfs"); err != nil {
			return err
		}
		gpa += uint64(s.Size)
	}
	return nil
}
