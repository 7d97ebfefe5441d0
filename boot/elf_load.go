package boot

import (
	"debug/elf"
	"fmt"
	"io"

	"github.com/bobuhiro11/gokvm/bootparam"

	"github.com/huskvm/husk/firmware/pvh"
)

// What an ELF file does not say, and x86 Linux's setup header would.
const (
	elfCmdlineMax = 2047       // COMMAND_LINE_SIZE - 1, arch/x86/include/asm/setup.h
	elfInitrdMax  = 0x7fffffff // initrd_addr_max of 64-bit kernels
	elfProtocol   = 0x020f     // the newest setup header we know
)

// Load implements Image by PVH or the 64-bit boot protocol. The bss is not
// written: memory is fresh.
func (k *elfImage) Load(mem io.WriterAt, m Machine) (Entry, error) {
	if err := m.check(k.src.Name, elfCmdlineMax); err != nil {
		return Entry{}, err
	}
	initrd, err := m.initrdSize()
	if err != nil {
		return Entry{}, err
	}
	r := request{
		name:      k.src.Name,
		kernel:    k.place,
		needs:     k.needs(),
		tables:    k.mode == Long64,
		cmdline:   uint64(len(m.CommandLine)) + 1,
		initrd:    initrd,
		initrdEnd: elfInitrdMax + 1,
	}
	if k.class == elf.ELFCLASS32 {
		r.initrdEnd = initrdMaxDefault + 1
	}
	l, err := r.fit(m)
	if err != nil {
		return Entry{}, err
	}
	for i, s := range k.segments {
		if err := k.src.copyTo(mem, s.mem.start, s.off, s.filesz, fmt.Sprintf("segment %d", i)); err != nil {
			return Entry{}, err
		}
	}
	if k.mode == Protected32 {
		return k.enterPVH(mem, m, l)
	}
	var zero zeroPage
	zero.setHeader(bootparam.SetupHeader{
		BootFlag:  bootFlag,
		Header:    bootparam.MagicSignature,
		Version:   elfProtocol,
		LoadFlags: bootparam.LoadedHigh,
	})
	zero.setMachine(l, m)
	zero.setRSDP(m.RSDP)
	return l.enterLinux(mem, m, Long64, &zero, k.entry)
}

// enterPVH writes the start info, with the list of modules and the memory map
// behind it in the same page.
func (k *elfImage) enterPVH(mem io.WriterAt, m Machine, l layout) (Entry, error) {
	info := pvh.StartInfo{
		CommandLine: l.cmdline,
		RSDP:        m.RSDP,
		MemMap:      l.info + pvh.StartInfoSize + pvh.ModuleSize,
		MemEntries:  uint32(len(m.MemoryMap)),
	}
	initrd := pvh.Module{Addr: l.initrd.start, Size: l.initrd.end - l.initrd.start}
	if initrd.Size > 0 {
		info.Modules, info.ModuleList = 1, l.info+pvh.StartInfoSize
	}
	page := info.Append(make([]byte, 0, infoSize))
	page = initrd.Append(page)
	page = pvh.AppendMemMap(page, m.MemoryMap)
	if err := l.writeCommon(mem, m, Protected32, page); err != nil {
		return Entry{}, err
	}
	return Entry{Mode: Protected32, RIP: k.entry, RBX: l.info, GDT: l.gdt}, nil
}

// place takes the segments' own places. What it returns spans all of them.
func (k *elfImage) place(free *space) (span, bool) {
	for _, s := range k.segments {
		if !free.take(s.mem) {
			return span{}, false
		}
	}
	return k.extent(), true
}

// extent is from the first segment's start to the last one's end.
func (k *elfImage) extent() span {
	all := k.segments[0].mem
	for _, s := range k.segments {
		all.start, all.end = min(all.start, s.mem.start), max(all.end, s.mem.end)
	}
	return all
}

func (k *elfImage) needs() string {
	all := k.extent()
	return fmt.Sprintf("the kernel takes %s of RAM from %#x on", size(all.end-all.start), all.start)
}
