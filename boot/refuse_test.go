package boot

import (
	"bytes"
	"debug/elf"
	"fmt"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/bobuhiro11/gokvm/bootparam"
	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/firmware/e820"
)

func TestOpenRefuses(t *testing.T) {
	pad := func(s string) []byte { return append([]byte(s), make([]byte, 4096)...) }
	at := func(off int, s string) []byte {
		b := make([]byte, 4096)
		copy(b, "MZ")
		copy(b[off:], s)
		return b
	}
	bz := func(edit func(*bootparam.SetupHeader)) []byte { return buildBzImage(edit) }
	elfOf := func(edit func(*elfSpec)) []byte {
		s := vmlinuxSpec()
		edit(&s)
		return s.build()
	}
	poke := func(b []byte, off int, v ...byte) []byte {
		copy(b[off:], v)
		return b
	}
	type H = bootparam.SetupHeader
	for name, c := range map[string]struct {
		file []byte
		kind error
		says string
	}{
		"empty":                    {nil, ErrNotKernel, "empty"},
		"one byte":                 {[]byte{0x7f}, ErrNotKernel, "only 1 bytes"},
		"text":                     {pad("#!/bin/sh\n"), ErrNotKernel, "neither"},
		"zeros":                    {pad(""), ErrNotKernel, "neither"},
		"initramfs":                {pad("070701"), ErrNotKernel, "initramfs"},
		"gzip":                     {pad("\x1f\x8b\x08"), ErrNotKernel, "compressed"},
		"zstd":                     {pad("\x28\xb5\x2f\xfd"), ErrNotKernel, "compressed"},
		"xz":                       {pad("\xfd7zXZ\x00"), ErrNotKernel, "compressed"},
		"EFI program":              {at(0, "MZ"), ErrNotKernel, "EFI"},
		"zboot":                    {at(4, "zimg"), ErrArchitecture, "zboot"},
		"arm64":                    {at(0x38, "ARM\x64"), ErrArchitecture, "arm64"},
		"riscv":                    {at(0x38, "RSC\x05"), ErrArchitecture, "RISC-V"},
		"arm":                      {at(0x24, "\x18\x28\x6f\x01"), ErrArchitecture, "32-bit ARM"},
		"bz boot flag":             {bz(func(h *H) { h.BootFlag = 0 }), ErrMalformed, "boot flag"},
		"bz old":                   {bz(func(h *H) { h.Version = 0x0205 }), ErrUnsupported, "2.05"},
		"bz zImage":                {bz(func(h *H) { h.LoadFlags = 0 }), ErrUnsupported, "zImage"},
		"bz no kernel":             {bz(func(h *H) { h.SysSize = 0 }), ErrMalformed, "0 bytes"},
		"bz kernel beyond file":    {bz(func(h *H) { h.SysSize++ }), ErrTruncated, "whole copy"},
		"bz kernel vast":           {bz(func(h *H) { h.SysSize = math.MaxUint32 }), ErrTruncated, "whole copy"},
		"bz setup beyond file":     {bz(func(h *H) { h.SetupSects = 255 }), ErrTruncated, "real-mode"},
		"bz payload":               {bz(func(h *H) { h.PayloadOffset = math.MaxUint32 }), ErrMalformed, "payload"},
		"bz init_size":             {bz(func(h *H) { h.InitSize = 0 }), ErrMalformed, "wants to run"},
		"bz pref_address low":      {bz(func(h *H) { h.PrefAddress = 0 }), ErrMalformed, "wants to run"},
		"bz pref_address high":     {bz(func(h *H) { h.PrefAddress = math.MaxUint64 }), ErrMalformed, "wants to run"},
		"bz alignment 0":           {bz(func(h *H) { h.KernelAlignment = 0 }), ErrMalformed, "power of two"},
		"bz alignment odd":         {bz(func(h *H) { h.KernelAlignment = 3 << 20 }), ErrMalformed, "power of two"},
		"bz header short":          {bz(func(h *H) { h.Jump = 0x39eb }), ErrMalformed, "ends at 0x23b"},
		"bz header long":           {bz(func(h *H) { h.Jump = 0xffeb }), ErrMalformed, "ends at 0x301"},
		"elf big-endian":           {poke(vmlinuxSpec().build(), 5, 2), ErrArchitecture, "MSB"},
		"elf class":                {poke(vmlinuxSpec().build(), 4, 9), ErrMalformed, "class"},
		"elf arm64":                {elfOf(func(s *elfSpec) { s.machine = elf.EM_AARCH64 }), ErrArchitecture, "AARCH64"},
		"elf module":               {elfOf(func(s *elfSpec) { s.typ = elf.ET_REL }), ErrNotKernel, "module"},
		"elf core":                 {elfOf(func(s *elfSpec) { s.typ = elf.ET_CORE }), ErrNotKernel, "CORE"},
		"elf program":              {elfOf(func(s *elfSpec) { s.segments[0].typ = elf.PT_INTERP }), ErrNotKernel, "program"},
		"elf static C program":     {elfOf(func(s *elfSpec) { *s = s.with(elf.PT_TLS, elf.PT_GNU_STACK) }), ErrNotKernel, "program for Linux"},
		"elf static Go program":    {elfOf(func(s *elfSpec) { *s = s.with(elf.PT_PHDR, elf.PT_GNU_STACK) }), ErrNotKernel, "program for Linux"},
		"elf static musl program":  {elfOf(func(s *elfSpec) { *s = s.with(elf.PT_GNU_RELRO) }), ErrNotKernel, "program for Linux"},
		"elf i386 without PVH":     {elfOf(func(s *elfSpec) { s.class, s.machine, s.notes = elf.ELFCLASS32, elf.EM_386, nil }), ErrArchitecture, "CONFIG_PVH"},
		"elf x32":                  {elfOf(func(s *elfSpec) { s.class, s.notes = elf.ELFCLASS32, nil }), ErrMalformed, "32-bit ELF"},
		"elf no segments":          {elfOf(func(s *elfSpec) { s.segments = nil }), ErrMalformed, "entry"},
		"elf no program headers":   {elfOf(func(s *elfSpec) { s.segments, s.notes = nil, nil }), ErrMalformed, "0 program headers"},
		"elf many program headers": {poke(vmlinuxSpec().build(), 56, 0xff, 0xff), ErrMalformed, "65535 program headers"},
		"elf phentsize":            {poke(vmlinuxSpec().build(), 54, 57), ErrMalformed, "57 bytes"},
		"elf phoff":                {poke(vmlinuxSpec().build(), 32, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff), ErrTruncated, "program header table"},
		"elf shoff":                {poke(vmlinuxSpec().build(), 40, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f), ErrTruncated, "section header table"},
		"elf filesz over memsz":    {elfOf(func(s *elfSpec) { s.segments[1].memsz = 1 }), ErrMalformed, "segment 1"},
		"elf memsz wraps":          {elfOf(func(s *elfSpec) { s.segments[1].memsz = math.MaxUint64 }), ErrMalformed, "below 4 GiB"},
		"elf paddr high":           {elfOf(func(s *elfSpec) { s.segments[1].paddr = 0xffffffff81000000 }), ErrMalformed, "below 4 GiB"},
		"elf overlap":              {elfOf(func(s *elfSpec) { s.segments[1].paddr = 0x1002fff }), ErrMalformed, "overlaps"},
		"elf entry in bss":         {elfOf(func(s *elfSpec) { s.notes, s.entry = nil, 0x1200000+0x1234 }), ErrMalformed, "0x1201234"},
		"elf entry virtual":        {elfOf(func(s *elfSpec) { s.notes, s.entry = nil, 0xffffffff81000000 }), ErrMalformed, "entry"},
		"elf PVH entry":            {elfOf(func(s *elfSpec) { s.notes = buildNote("Xen\x00", 18, le64(1)) }), ErrMalformed, "entry 0x1"},
		"elf PVH note size":        {elfOf(func(s *elfSpec) { s.notes = buildNote("Xen\x00", 18, []byte{1}) }), ErrMalformed, "PVH note has 1"},
		"elf note breaks off":      {elfOf(func(s *elfSpec) { s.notes = s.notes[:len(s.notes)-9] }), ErrMalformed, "breaks off"},
		"elf notes vast":           {elfOf(func(s *elfSpec) { s.notes = make([]byte, maxNotes+1) }), ErrMalformed, "note segment"},
	} {
		t.Run(name, func(t *testing.T) {
			img, err := Open(bytesSource("some/file", c.file))
			require.ErrorIs(t, err, c.kind)
			require.ErrorContains(t, err, c.says)
			require.ErrorContains(t, err, "some/file: ")
			require.Nil(t, img)
		})
	}
}

// The test itself is a program: a static one, or with -race a dynamic one.
func TestOpenRefusesProgram(t *testing.T) {
	path, err := os.Executable()
	require.NoError(t, err)
	_, err = Open(openSource(t, path))
	require.ErrorIs(t, err, ErrNotKernel)
	require.ErrorContains(t, err, "program for Linux")
}

// What programs have does not keep a kernel from being one.
func TestOpenTakesKernelsLikePrograms(t *testing.T) {
	all := []elf.ProgType{elf.PT_PHDR, elf.PT_TLS, elf.PT_GNU_RELRO, elf.PT_GNU_STACK}
	tests := []struct {
		name string
		edit func(*elfSpec)
		mode string
	}{
		{"a unikernel with a PVH note", func(s *elfSpec) {
			note := s.notes
			*s = s.with(all...)
			s.notes = note
		}, "ELF vmlinux (PVH)"},
		{"linked for a virtual address", func(s *elfSpec) {
			*s = s.with(all...)
			s.offset = 0xffffffff80000000
		}, "ELF vmlinux (64-bit)"},
		{"C without a linker script", func(s *elfSpec) { *s = s.with(elf.PT_GNU_STACK) }, "ELF vmlinux (64-bit)"},
		{"nothing but segments", func(s *elfSpec) { *s = s.with() }, "ELF vmlinux (64-bit)"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			spec := vmlinuxSpec()
			tt.edit(&spec)
			img, err := Open(bytesSource("kernel", spec.build()))
			require.NoError(t, err)
			require.Equal(t, tt.mode, img.Format())
		})
	}
}

func TestOpenRefusesDirectory(t *testing.T) {
	d, err := os.Open(t.TempDir())
	require.NoError(t, err)
	defer d.Close()
	_, err = Open(Source{d.Name(), 4096, d})
	require.ErrorIs(t, err, ErrNotKernel)
	require.ErrorContains(t, err, "directory")
}

// Cut anywhere, a file is refused; with every byte it is taken.
func TestEveryTruncation(t *testing.T) {
	spec32 := vmlinuxSpec()
	spec32.class, spec32.machine = elf.ELFCLASS32, elf.EM_386
	for name, image := range map[string][]byte{"bzImage": buildBzImage(nil), "ELF": vmlinuxSpec().build(), "ELF32": spec32.build()} {
		t.Run(name, func(t *testing.T) {
			for n := range image {
				_, err := Open(bytesSource("cut", image[:n]))
				if n < hdrMagic+4 && !isELF(image[:n]) {
					require.ErrorIs(t, err, ErrNotKernel, "at %d", n)
				} else {
					require.ErrorIs(t, err, ErrTruncated, "at %d", n)
				}
				// The same, when the size promises more than there is.
				img, err := Open(Source{"shrunk", int64(len(image)), bytes.NewReader(image[:n])})
				if err == nil {
					_, err = img.Load(newGuest(ramOf(64)), testMachine())
				}
				if name == "bzImage" || n < len(image)-64 { // section headers are not read
					require.ErrorIs(t, err, ErrTruncated, "at %d", n)
				}
			}
			_, err := Open(bytesSource("whole", image))
			require.NoError(t, err)
		})
	}
}

// Any one byte overwritten is refused, or loads within RAM.
func TestEveryByteOverwritten(t *testing.T) {
	for name, image := range map[string][]byte{"bzImage": buildBzImage(nil)[:0x300], "ELF": vmlinuxSpec().build()[:64+3*56]} {
		t.Run(name, func(t *testing.T) {
			whole := map[string][]byte{"bzImage": buildBzImage(nil), "ELF": vmlinuxSpec().build()}[name]
			for i := range image {
				for _, v := range []byte{0, 1, 0x7f, 0x80, 0xff} {
					b := slices.Clone(whole)
					b[i] = v
					img, err := Open(bytesSource("overwritten", b))
					if err == nil {
						m := testMachine()
						_, err = img.Load(newGuest(m.MemoryMap), m)
					}
					require.NotErrorIs(t, err, errOutside, "byte %#x is %#x", i, v)
				}
			}
		})
	}
}

func TestLoadRefuses(t *testing.T) {
	small := func(m *Machine) { m.MemoryMap = ramOf(16) }
	for name, c := range map[string]struct {
		edit func(*Machine)
		kind error
		says string
	}{
		"long command line":   {func(m *Machine) { m.CommandLine = strings.Repeat("x", 2048) }, ErrCommandLine, "2048 bytes long, and this kernel takes no more than 2047"},
		"NUL in command line": {func(m *Machine) { m.CommandLine = "a\x00b" }, ErrCommandLine, `byte 1 is '\x00'`},
		"newline":             {func(m *Machine) { m.CommandLine = "quiet\n" }, ErrCommandLine, `byte 5 is '\n'`},
		"empty initrd":        {func(m *Machine) { m.Initrds[1].Size = 0 }, ErrInitrd, "b.cpio"},
		"negative initrd":     {func(m *Machine) { m.Initrds[1].Size = -1 }, ErrInitrd, "b.cpio"},
		"vast initrd":         {func(m *Machine) { m.Initrds[0].Size = 1 << 40 }, ErrInitrd, "a.cpio"},
		"vast initrds":        {func(m *Machine) { m.Initrds[0].Size, m.Initrds[1].Size = math.MaxUint32, math.MaxInt64 }, ErrInitrd, "b.cpio"},
		"large initrd":        {func(m *Machine) { m.Initrds[0].Size = 100 << 20 }, ErrNoRoom, "the machine has 64 MiB: give the machine at least"},
		"initrd over limit":   {func(m *Machine) { m.Initrds[0].Size = 2040 << 20 }, ErrNoRoom, "smaller initramfs"},
		"little memory":       {small, ErrNoRoom, "the machine has 16 MiB: give the machine at least 20 MiB (-m 20M)"},
		"no memory":           {func(m *Machine) { m.MemoryMap = nil }, ErrNoRoom, "-m 20M"},
		"no low memory":       {func(m *Machine) { m.MemoryMap[0].Size = 0x2000 }, ErrNoRoom, "640 KiB"},
		"many ranges":         {func(m *Machine) { m.MemoryMap = make([]e820.Entry, 129) }, ErrMemoryMap, "129"},
	} {
		for format, image := range map[string][]byte{"bzImage": buildBzImage(nil), "ELF": vmlinuxSpec().build()} {
			t.Run(name+"/"+format, func(t *testing.T) {
				img, err := Open(bytesSource("kernel", image))
				require.NoError(t, err)
				m := testMachine()
				c.edit(&m)
				g := newGuest(m.MemoryMap)
				_, err = img.Load(g, m)
				require.ErrorIs(t, err, c.kind)
				if format == "bzImage" {
					require.ErrorContains(t, err, c.says)
				}
				require.Empty(t, g.writes, "refused before the first write")
			})
		}
	}
}

// The memory size that an error advises is the smallest that does.
func TestAdviceIsTight(t *testing.T) {
	for _, mib := range []int64{1, 3, 20, 100, 700, 1900} {
		m := testMachine()
		m.Initrds = []Source{{"initrd", mib << 20, bytes.NewReader(nil)}}
		img, err := Open(bytesSource("vmlinuz", buildBzImage(nil)))
		require.NoError(t, err)
		m.MemoryMap = ramOf(16)
		_, err = img.Load(newGuest(m.MemoryMap), m)
		require.ErrorIs(t, err, ErrNoRoom)
		var need uint64
		_, advice, _ := strings.Cut(err.Error(), "(-m ")
		_, err = fmt.Sscanf(advice, "%dM)", &need)
		require.NoError(t, err, advice)
		m.MemoryMap = ramOf(need - 2)
		_, err = img.Load(newGuest(m.MemoryMap), m)
		require.ErrorIs(t, err, ErrNoRoom)
		m.MemoryMap = ramOf(need)
		_, err = img.Load(newGuest(m.MemoryMap), m)
		require.ErrorIs(t, err, ErrTruncated, "there is room, and the file is not there")
	}
}

// initrd_addr_max is the address of the last byte, not of the one behind it.
func TestInitrdLimit(t *testing.T) {
	for _, limit := range []uint32{0, 0x37ffffff, 0x7fffffff, 0x2fffffe} {
		m := testMachine()
		m.MemoryMap = ramOf(3 << 10)
		m.Initrds = m.Initrds[:1]
		m.Initrds[0].Size = 9
		g, e := load(t, buildBzImage(func(h *bootparam.SetupHeader) { h.InitrdAddrMax = limit }), m)
		start := le(g.at(e.RSI+0x218, 4))
		if limit == 0 {
			limit = 0x37ffffff
		}
		require.EqualValues(t, (uint64(limit)+1-9)&^(hugePage-1), start)
	}
}

// What Open and Load hold of a file does not grow with what the file claims.
func TestMemoryIsBounded(t *testing.T) {
	allocated := func(f func()) uint64 {
		var a, b runtime.MemStats
		runtime.ReadMemStats(&a)
		f()
		runtime.ReadMemStats(&b)
		return b.TotalAlloc - a.TotalAlloc
	}
	m := testMachine()
	m.MemoryMap = ramOf(2 << 10)
	m.Initrds = []Source{{"zeros", 512 << 20, zeros{}}}
	require.Less(t, allocated(func() {
		img, err := Open(bytesSource("vmlinuz", buildBzImage(nil)))
		require.NoError(t, err)
		_, err = img.Load(nowhere{}, m)
		require.NoError(t, err)
	}), uint64(1<<20))
}

// zeros is an endless file of zeros; nowhere swallows what is written to it.
type (
	zeros   struct{}
	nowhere struct{}
)

func (zeros) ReadAt(p []byte, _ int64) (int, error)    { return len(p), nil }
func (nowhere) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }
