package kvm

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
)

// Stats reads the counters of a VM or vCPU from a file of its own (KVM API
// §4.133). It outlives the VM or vCPU, and its methods may be called from any
// goroutine.
type Stats struct {
	file  *os.File
	descs []statDesc
	start int64 // of the data block in the file
	size  int   // of the data block
}

// A statDesc is what we need of struct kvm_stats_desc.
type statDesc struct {
	name  string
	off   int // bytes into the data block
	count int // of 64-bit values
}

// Stats opens the VM's counters. Without CapBinaryStatsFD errors.Is finds
// errors.ErrUnsupported.
func (v *VM) Stats() (*Stats, error) { return openStats(v, v.fd, "kvm-vm-stats") }

// Stats opens the vCPU's counters, "exits" among them. Without CapBinaryStatsFD
// errors.Is finds errors.ErrUnsupported.
func (c *VCPU) Stats() (*Stats, error) { return openStats(c.vm, c.fd, "kvm-vcpu-stats") }

func openStats(v *VM, fd int, name string) (*Stats, error) {
	n, err := v.CheckExtension(CapBinaryStatsFD)
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, unsupported(reqGetStatsFD, CapBinaryStatsFD)
	}
	sfd, err := ioctl(fd, reqGetStatsFD, 0)
	if err != nil {
		return nil, err
	}
	s := &Stats{file: os.NewFile(uintptr(sfd), name)}
	if err := s.parse(s.file); err != nil {
		_ = s.file.Close()
		return nil, &Error{Op: reqGetStatsFD.name, Err: err}
	}
	return s, nil
}

// Close closes the file.
func (s *Stats) Close() error { return s.file.Close() }

// Read reads all counters by name. Of a histogram it returns the number of
// samples. Units are those of the kernel: most counters have none, times are in ns.
func (s *Stats) Read() (map[string]uint64, error) { return s.read(s.file) }

// More than any kernel has, to bound what a strange file makes us allocate.
const (
	maxStats    = 4096
	maxStatName = 256
	maxStatData = 1 << 20 // bytes
)

// The sizes of struct kvm_stats_header and, without its name, kvm_stats_desc.
const (
	statHeaderSize = 24
	statDescSize   = 16
)

// parse reads the header and the descriptors, which never change.
func (s *Stats) parse(r io.ReaderAt) error {
	le := binary.LittleEndian
	head := make([]byte, statHeaderSize)
	if _, err := r.ReadAt(head, 0); err != nil {
		return fmt.Errorf("read header: %w", err)
	}
	nameSize, count := le.Uint32(head[4:]), le.Uint32(head[8:])
	if count > maxStats || nameSize == 0 || nameSize > maxStatName {
		return fmt.Errorf("header has %d counters with names of %d bytes", count, nameSize)
	}
	stride := statDescSize + int(nameSize)
	block := make([]byte, int(count)*stride)
	if _, err := r.ReadAt(block, int64(le.Uint32(head[16:]))); err != nil {
		return fmt.Errorf("read %d descriptors: %w", count, err)
	}
	s.start = int64(le.Uint32(head[20:]))
	for ; len(block) > 0; block = block[stride:] {
		name, _, _ := bytes.Cut(block[statDescSize:stride], []byte{0})
		d := statDesc{name: string(name), count: int(le.Uint16(block[6:])), off: int(le.Uint32(block[8:]))}
		end := d.off + 8*d.count
		if end > maxStatData {
			return fmt.Errorf("counter %q ends at %#x of its data block, expect at most %#x", d.name, end, maxStatData)
		}
		s.size = max(s.size, end)
		s.descs = append(s.descs, d)
	}
	return nil
}

func (s *Stats) read(r io.ReaderAt) (map[string]uint64, error) {
	data := make([]byte, s.size)
	if _, err := r.ReadAt(data, s.start); err != nil {
		return nil, fmt.Errorf("read KVM counters: %w", err)
	}
	m := make(map[string]uint64, len(s.descs))
	for _, d := range s.descs {
		for i := range d.count {
			m[d.name] += binary.LittleEndian.Uint64(data[d.off+8*i:])
		}
	}
	return m, nil
}
