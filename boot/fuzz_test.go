package boot

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"runtime"
	"testing"

	"github.com/bobuhiro11/gokvm/bootparam"
	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/firmware/e820"
)

// allocMax bounds what Open and Load may allocate for one file, in bytes.
const allocMax = 4 << 20

// openAndLoad takes any file, and checks that nothing goes outside RAM, and
// little into the heap.
func openAndLoad(t *testing.T, file []byte, m Machine) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	img, err := Open(bytesSource("fuzzed", file))
	if err == nil {
		require.NotEmpty(t, img.Format())
		if v, ok := img.(Versioner); ok {
			require.LessOrEqual(t, len(v.Version()), versionMax)
		}
		g := newGuest(m.MemoryMap)
		g.quiet = true
		e, err := img.Load(g, m)
		require.NotErrorIs(t, err, errOutside)
		if err == nil {
			require.Less(t, e.RIP, uint64(fourGiB))
		}
	}
	runtime.ReadMemStats(&after)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(allocMax))
}

// Small inputs make a quick fuzzer, so the seeds are no whole files: only what
// is parsed, at an offset of the file, and the file's size.

func FuzzOpenBzImage(f *testing.F) {
	seed := func(edit func(*bootparam.SetupHeader)) {
		b := buildBzImage(edit)
		f.Add(b[zpHeader:zpHeaderEnd], b[0x300:0x310], uint16(len(b)))
	}
	seed(nil)
	seed(func(h *bootparam.SetupHeader) { h.XloadFlags, h.Version = 0, 0x020a })
	seed(func(h *bootparam.SetupHeader) { h.Version, h.Jump = 0x0206, 0x3aeb })
	seed(func(h *bootparam.SetupHeader) { h.RelocatableKernel = 0 })
	f.Fuzz(func(t *testing.T, header, version []byte, size uint16) {
		file := make([]byte, size)
		copy(file[min(zpHeader, len(file)):], header)
		copy(file[min(0x300, len(file)):], version)
		openAndLoad(t, file, testMachine())
	})
}

func FuzzOpenELF(f *testing.F) {
	seed := func(s elfSpec) {
		for i := range s.segments { // the content is of no interest, the notes and headers are
			s.segments[i].data = s.segments[i].data[:0x60]
		}
		b := s.build()
		f.Add(b[:min(len(b), 512)], uint16(len(b)))
	}
	seed(vmlinuxSpec())
	spec := vmlinuxSpec()
	spec.notes = nil
	seed(spec)
	spec = vmlinuxSpec()
	spec.sections, spec.segments = false, spec.segments[:1]
	seed(spec)
	spec.class, spec.machine, spec.notes = elf.ELFCLASS32, elf.EM_386, buildNote("Xen\x00", 18, le32(0x1000040))
	seed(spec)
	f.Fuzz(func(t *testing.T, head []byte, size uint16) {
		file := make([]byte, size)
		copy(file, head)
		openAndLoad(t, file, testMachine())
	})
}

// FuzzLoad varies the machine: its memory map comes as packed entries of 17
// bytes, address, size and type.
func FuzzLoad(f *testing.F) {
	pack := func(m []e820.Entry) (b []byte) {
		for _, e := range m {
			b = binary.LittleEndian.AppendUint64(b, e.Addr)
			b = binary.LittleEndian.AppendUint64(b, e.Size)
			b = append(b, byte(e.Type))
		}
		return b
	}
	f.Add(pack(ramOf(64)), "console=ttyS0", int64(5), int64(9), uint32(3<<20), uint64(0x1000000), uint32(0x7fffffff))
	f.Add(pack(ramOf(3<<10)), "", int64(70000), int64(1), uint32(1<<30), uint64(0x100000), uint32(0))
	f.Add(pack(ramOf(17)), "a\nb", int64(0), int64(-1), uint32(1), uint64(1<<32-1), uint32(1<<20))
	f.Add(pack([]e820.Entry{{Addr: 0, Size: 1 << 63, Type: e820.RAM}, {Addr: 1 << 63, Size: 1 << 63, Type: e820.RAM}}),
		"quiet", int64(1<<32), int64(1), uint32(1<<31), uint64(0x1000000), uint32(1<<32-1))
	f.Fuzz(func(t *testing.T, packed []byte, cmdline string, size1, size2 int64, initSize uint32, pref uint64, initrdMax uint32) {
		m := Machine{CommandLine: cmdline, Initrds: []Source{
			{"one", size1, bytes.NewReader(pattern(100 << 10))},
			{"two", size2, bytes.NewReader(pattern(10))},
		}}
		for ; len(packed) >= 17; packed = packed[17:] {
			m.MemoryMap = append(m.MemoryMap, e820.Entry{Addr: le(packed[:8]), Size: le(packed[8:16]), Type: e820.Type(packed[16])})
		}
		openAndLoad(t, buildBzImage(func(h *bootparam.SetupHeader) {
			h.InitSize, h.PrefAddress, h.InitrdAddrMax = initSize, pref, initrdMax
		}), m)
		spec := vmlinuxSpec()
		openAndLoad(t, spec.build(), m)
		spec.notes = nil
		openAndLoad(t, spec.build(), m)
	})
}
