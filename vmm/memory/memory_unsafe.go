package memory

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

func addressOf(b []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(b))) }

// mapRAM maps size bytes, aligned to HugePage. A mapping can only be aligned by
// asking for more and giving back what lies around: a guest page of 2 MiB needs
// a host page of 2 MiB under it, or KVM maps it as 512 small ones, with a
// fault for each.
func mapRAM(size int, backing Backing) (_ *Memory, err error) {
	m := &Memory{fd: -1, backing: backing}
	defer func() {
		if err != nil {
			_ = m.Close()
		}
	}()

	flags := unix.MAP_FIXED
	switch backing {
	case THP:
		flags |= unix.MAP_PRIVATE | unix.MAP_ANONYMOUS | unix.MAP_NORESERVE
	case HugeTLB:
		flags |= unix.MAP_PRIVATE | unix.MAP_ANONYMOUS | unix.MAP_HUGETLB | unix.MAP_HUGE_2MB
	case Shared:
		flags |= unix.MAP_SHARED | unix.MAP_NORESERVE
		m.fd, err = unix.MemfdCreate("husk-ram", unix.MFD_CLOEXEC)
		if err != nil {
			return nil, fmt.Errorf("memfd_create: %w", err)
		}
		if err := unix.Ftruncate(m.fd, int64(size)); err != nil {
			return nil, fmt.Errorf("memfd of guest RAM: %w", err)
		}
	default:
		return nil, fmt.Errorf("backing %d is unknown", backing)
	}

	reserve := uintptr(size) + HugePage
	start, err := unix.MmapPtr(-1, 0, nil, reserve, unix.PROT_NONE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("reserve address space: %w; give the guest less memory", err)
	}
	head := -uintptr(start) & (HugePage - 1)
	ram := unsafe.Add(start, head)
	if head > 0 {
		err = unix.MunmapPtr(start, head)
	}
	if tail := reserve - head - uintptr(size); err == nil && tail > 0 {
		err = unix.MunmapPtr(unsafe.Add(ram, size), tail)
	}
	m.mapping = unsafe.Slice((*byte)(ram), size)
	if err != nil {
		return nil, fmt.Errorf("trim address space: %w", err)
	}
	if _, err := unix.MmapPtr(m.fd, 0, ram, uintptr(size), unix.PROT_READ|unix.PROT_WRITE, flags); err != nil {
		if backing == HugeTLB {
			return nil, fmt.Errorf("mmap of huge pages: %w; reserve them with: sysctl vm.nr_hugepages=%d", err, size/HugePage)
		}
		return nil, fmt.Errorf("mmap: %w; give the guest less memory", err)
	}
	// Advice only: a kernel without these goes on with small pages, or with
	// guest RAM in the core dump.
	if backing != HugeTLB {
		_ = unix.Madvise(m.mapping, unix.MADV_HUGEPAGE)
	}
	_ = unix.Madvise(m.mapping, unix.MADV_DONTDUMP)
	return m, nil
}

// Close gives the RAM back to the host. No slice of it may be used afterwards.
func (m *Memory) Close() error {
	var err error
	if m.mapping != nil {
		err = unix.MunmapPtr(unsafe.Pointer(unsafe.SliceData(m.mapping)), uintptr(len(m.mapping)))
		m.mapping, m.regions = nil, nil
	}
	if m.fd >= 0 {
		err = errors.Join(err, unix.Close(m.fd))
		m.fd = -1
	}
	return err
}
