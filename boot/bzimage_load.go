package boot

import (
	"fmt"
	"io"
)

// Load implements Image by the 64-bit or the 32-bit boot protocol.
func (k *bzImage) Load(mem io.WriterAt, m Machine) (Entry, error) {
	if err := m.check(k.src.Name, uint64(k.hdr.CmdlineSize)); err != nil {
		return Entry{}, err
	}
	initrd, err := m.initrdSize()
	if err != nil {
		return Entry{}, err
	}
	l, err := request{
		name:      k.src.Name,
		kernel:    k.place,
		needs:     fmt.Sprintf("the kernel unpacks itself to %s of RAM from %#x on", size(k.extent()), k.hdr.PrefAddress),
		tables:    k.mode() == Long64,
		cmdline:   uint64(len(m.CommandLine)) + 1,
		initrd:    initrd,
		initrdEnd: uint64(k.hdr.InitrdAddrMax) + 1,
	}.fit(m)
	if err != nil {
		return Entry{}, err
	}

	zero := k.zero
	h := zero.header()
	h.Code32Start = uint32(l.kernel.start)
	zero.setHeader(h)
	zero.setMachine(l, m)
	if k.hdr.Version >= protocolRSDP {
		zero.setRSDP(m.RSDP)
	}
	if err := k.src.copyTo(mem, l.kernel.start, k.code, k.size, "the kernel proper"); err != nil {
		return Entry{}, err
	}
	return l.enterLinux(mem, m, k.mode(), &zero, l.kernel.start+k.entryOffset())
}

func (k *bzImage) entryOffset() uint64 {
	if k.mode() == Long64 {
		return entry64
	}
	return 0
}

// extent is the memory that the kernel has for itself from its start, in bytes:
// all that it needs before it can read its memory map.
func (k *bzImage) extent() uint64 { return max(uint64(k.hdr.InitSize), uint64(k.size)) }

// place takes the preferred address, or, for a relocatable kernel, the lowest
// aligned one above it: below, it would move itself up again.
func (k *bzImage) place(free *space) (span, bool) {
	start := k.hdr.PrefAddress
	if k.hdr.RelocatableKernel != 0 {
		return free.lowest(k.extent(), uint64(k.hdr.KernelAlignment), span{start, fourGiB})
	}
	r := span{start, start + k.extent()}
	return r, r.end <= fourGiB && free.take(r)
}
