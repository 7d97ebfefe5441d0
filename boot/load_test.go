package boot

import (
	"debug/elf"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bobuhiro11/gokvm/bootparam"
	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/firmware/e820"
)

var update = flag.Bool("update", false, "write the golden files instead of comparing with them")

// golden compares a page with a hex dump in testdata that leaves out lines of
// zeros.
func golden(t *testing.T, name string, page []byte) {
	t.Helper()
	var dump strings.Builder
	for line := range strings.Lines(hex.Dump(page)) {
		if strings.Count(line[10:58], "0")+strings.Count(line[10:58], " ") < 48 {
			dump.WriteString(strings.TrimRight(line[:58], " ") + "\n")
		}
	}
	path := filepath.Join("testdata", name+".golden")
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(path, []byte(dump.String()), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), dump.String())
}

func testMachine() Machine {
	return Machine{
		MemoryMap:   ramOf(64),
		RSDP:        0xe0000,
		CommandLine: "console=ttyS0 quiet",
		Initrds:     []Source{bytesSource("a.cpio", []byte("070701abc")), bytesSource("b.cpio", []byte("070701defg"))},
	}
}

func le(b []byte) uint64 {
	var w [8]byte
	copy(w[:], b)
	return binary.LittleEndian.Uint64(w[:])
}

func load(t *testing.T, image []byte, m Machine) (*guest, Entry) {
	t.Helper()
	img, err := Open(bytesSource("kernel", image))
	require.NoError(t, err)
	g := newGuest(m.MemoryMap)
	e, err := img.Load(g, m)
	require.NoError(t, err)
	return g, e
}

func TestBzImage64(t *testing.T) {
	image := buildBzImage(nil)
	img, err := Open(bytesSource("vmlinuz", image))
	require.NoError(t, err)
	require.Equal(t, "bzImage 2.15 (64-bit)", img.Format())
	require.Equal(t, "6.1.0-husk (test@husk) #1 SMP", img.(Versioner).Version())

	m := testMachine()
	g, e := load(t, image, m)
	require.Equal(t, Entry{Mode: Long64, RIP: 0x1000200, RSI: 0x2000, CR3: 0x3000, GDT: 0x1000}, e)
	require.Equal(t, image[synthSetup:], g.at(0x1000000, synthKernel))
	golden(t, "zeropage64", g.at(e.RSI, pageSize))

	// boot.rst and zero-page.rst, by offset.
	z := g.at(e.RSI, pageSize)
	require.EqualValues(t, 0xff, z[0x210])
	require.EqualValues(t, 0xe0000, le(z[0x70:0x78]))
	require.EqualValues(t, 0x1000000, le(z[0x214:0x218]), "code32_start")
	cmdline, initrd, size := le(z[0x228:0x22c]), le(z[0x218:0x21c]), le(z[0x21c:0x220])
	require.Equal(t, m.CommandLine+"\x00", string(g.at(cmdline, len(m.CommandLine)+1)))
	require.EqualValues(t, 62<<20, initrd, "the start of the last huge page")
	require.EqualValues(t, 22, size)
	require.Equal(t, "070701abc\x00\x00\x00070701defg", string(g.at(initrd, int(size))))
	require.EqualValues(t, 3, z[0x1e8])
	for i, want := range m.MemoryMap {
		got := z[0x2d0+20*i:]
		require.Equal(t, want, e820.Entry{Addr: le(got[:8]), Size: le(got[8:16]), Type: e820.Type(le(got[16:20]))})
	}
}

func TestBzImage32(t *testing.T) {
	image := buildBzImage(func(h *bootparam.SetupHeader) {
		h.XloadFlags, h.Version, h.Jump = 0, 0x020a, 0x62eb
		h.PrefAddress, h.InitrdAddrMax = 0x400000, 0x37ffffff
	})
	g, e := load(t, image, testMachine())
	require.Equal(t, Entry{Mode: Protected32, RIP: 0x400000, RSI: 0x2000, GDT: 0x1000}, e)
	golden(t, "zeropage32", g.at(e.RSI, pageSize))
	require.Zero(t, le(g.at(e.RSI+zpRSDP, 8)), "protocol 2.10 does not know acpi_rsdp_addr")
}

// A header of protocol 2.06 ends before pref_address and init_size.
func TestBzImageOldest(t *testing.T) {
	image := buildBzImage(func(h *bootparam.SetupHeader) {
		h.Version, h.Jump = 0x0206, 0x3aeb
	})
	g, e := load(t, image, testMachine())
	require.EqualValues(t, 0x200000, e.RIP, "0x100000, aligned")
	require.Zero(t, le(g.at(e.RSI+0x23c, 8)), "what is behind the header is code, and is not copied")
}

func TestVersionIsSanitised(t *testing.T) {
	image := buildBzImage(nil)
	copy(image[0x300:], "6.1\x1b[31m\nü\xff"+strings.Repeat("x", 300))
	img, err := Open(bytesSource("vmlinuz", image))
	require.NoError(t, err)
	v := img.(Versioner).Version()
	require.True(t, strings.HasPrefix(v, "6.1[31mxx"), v)
	require.LessOrEqual(t, len(v), 255)

	image = buildBzImage(func(h *bootparam.SetupHeader) { h.KernelVersion = 0x7000 })
	img, err = Open(bytesSource("vmlinuz", image))
	require.NoError(t, err)
	require.Empty(t, img.(Versioner).Version())
}

func TestPageTables(t *testing.T) {
	image := buildBzImage(nil)
	g, e := load(t, image, testMachine())
	golden(t, "gdt64", g.at(e.GDT, GDTSize))
	// Walk them as the processor does.
	for _, gpa := range []uint64{0, 0x1234, 0x1000200, 0x3ffffff, 1 << 30, 0xfee00000, 0xffffffff} {
		entry := e.CR3
		for _, shift := range []int{39, 30, 21} {
			entry = le(g.at(entry&^0xfff+(gpa>>shift&511)*8, 8))
			require.EqualValues(t, 3, entry&3, "present and writable")
		}
		require.EqualValues(t, 0x80, entry&0xf80, "a huge page")
		require.Equal(t, gpa, entry&^0xfff+gpa&(hugePage-1))
	}
	golden(t, "pagetables", g.at(e.CR3, 2*pageSize))
}

func TestELFByPVH(t *testing.T) {
	spec := vmlinuxSpec()
	img, err := Open(bytesSource("vmlinux", spec.build()))
	require.NoError(t, err)
	require.Equal(t, "ELF vmlinux (PVH)", img.Format())
	m := testMachine()
	g, e := load(t, spec.build(), m)
	require.Equal(t, Entry{Mode: Protected32, RIP: 0x1000040, RBX: 0x2000, GDT: 0x1000}, e)
	golden(t, "startinfo", g.at(e.RBX, pageSize))
	golden(t, "gdt32", g.at(e.GDT, GDTSize))
	for _, s := range spec.segments {
		require.Equal(t, s.data, g.at(s.paddr, len(s.data)))
	}
	// start_info.h, by offset.
	info := g.at(e.RBX, pageSize)
	require.EqualValues(t, 0x336ec578, le(info[0:4]))
	require.EqualValues(t, 1, le(info[4:8]))
	require.EqualValues(t, 1, le(info[12:16]))
	mod := g.at(le(info[16:24]), 32)
	require.Equal(t, "070701abc\x00\x00\x00070701defg", string(g.at(le(mod[:8]), int(le(mod[8:16])))))
	require.Equal(t, m.CommandLine+"\x00", string(g.at(le(info[24:32]), len(m.CommandLine)+1)))
	require.EqualValues(t, 0xe0000, le(info[32:40]))
	require.EqualValues(t, 3, le(info[48:52]))
	memmap := g.at(le(info[40:48]), 24*3)
	require.EqualValues(t, oneMiB, le(memmap[48:56]))

	m.Initrds = nil
	g, e = load(t, spec.build(), m)
	require.Zero(t, le(g.at(e.RBX+12, 4)), "no module")
	require.Zero(t, le(g.at(e.RBX+16, 8)))
}

func TestELFBy64BitEntry(t *testing.T) {
	spec := vmlinuxSpec()
	spec.notes = nil
	img, err := Open(bytesSource("vmlinux", spec.build()))
	require.NoError(t, err)
	require.Equal(t, "ELF vmlinux (64-bit)", img.Format())
	g := newGuest(ramOf(64))
	e, err := img.Load(g, testMachine())
	require.NoError(t, err)
	require.Equal(t, Entry{Mode: Long64, RIP: 0x1000000, RSI: 0x2000, CR3: 0x3000, GDT: 0x1000}, e)
	golden(t, "zeropage_elf", g.at(e.RSI, pageSize))
}

func TestELF32ByPVH(t *testing.T) {
	spec := vmlinuxSpec()
	spec.class, spec.machine = elf.ELFCLASS32, elf.EM_386
	spec.notes = buildNote("Xen\x00", 18, le32(0x1000040))
	_, e := load(t, spec.build(), testMachine())
	require.Equal(t, Entry{Mode: Protected32, RIP: 0x1000040, RBX: 0x2000, GDT: 0x1000}, e)
}

// A Filler is given files, and nothing else changes.
func TestFiller(t *testing.T) {
	for name, image := range map[string][]byte{"bzImage": buildBzImage(nil), "ELF": vmlinuxSpec().build()} {
		t.Run(name, func(t *testing.T) {
			m := testMachine()
			plain, e := load(t, image, m)
			img, err := Open(bytesSource("kernel", image))
			require.NoError(t, err)
			f := &fillingGuest{guest: newGuest(m.MemoryMap)}
			e2, err := img.Load(f, m)
			require.NoError(t, err)
			require.Equal(t, e, e2)
			require.Greater(t, f.fills, 2)
			for _, w := range plain.writes {
				require.Equal(t, w.data, f.at(w.start, len(w.data)))
			}
		})
	}
}

// Files larger than the buffer arrive whole, in pieces of its size.
func TestFilesAreStreamed(t *testing.T) {
	m := testMachine()
	big := pattern(3*chunk + 5)
	m.Initrds = []Source{bytesSource("big", big)}
	g, e := load(t, buildBzImage(nil), m)
	initrd := le(g.at(e.RSI+0x218, 4))
	require.Equal(t, big, g.at(initrd, len(big)))
	for _, w := range g.writes {
		require.LessOrEqual(t, len(w.data), chunk)
	}
}

func TestKernelMovesUpIfRelocatable(t *testing.T) {
	m := testMachine()
	m.MemoryMap = slices.Concat(m.MemoryMap, []e820.Entry{{Addr: 0x1100000, Size: 0x1000, Type: e820.ACPI}})
	_, e := load(t, buildBzImage(nil), m)
	require.EqualValues(t, 0x1200200, e.RIP)

	img, err := Open(bytesSource("fixed", buildBzImage(func(h *bootparam.SetupHeader) { h.RelocatableKernel = 0 })))
	require.NoError(t, err)
	_, err = img.Load(newGuest(m.MemoryMap), m)
	require.ErrorIs(t, err, ErrNoRoom)
	require.ErrorContains(t, err, "leaves no such place")
}

var errDisk = errors.New("disk on fire")

type burning struct{}

func (burning) ReadAt([]byte, int64) (int, error)  { return 0, errDisk }
func (burning) WriteAt([]byte, int64) (int, error) { return 0, errDisk }

func TestErrorsOfReadingAndWriting(t *testing.T) {
	_, err := Open(Source{"vmlinuz", 4096, burning{}})
	require.ErrorIs(t, err, errDisk)
	require.ErrorContains(t, err, "vmlinuz")

	for name, image := range map[string][]byte{"bzImage": buildBzImage(nil), "ELF": vmlinuxSpec().build()} {
		img, err := Open(bytesSource(name, image))
		require.NoError(t, err)
		_, err = img.Load(burning{}, testMachine())
		require.ErrorIs(t, err, errDisk)

		m := testMachine()
		m.Initrds[1].ReaderAt = burning{}
		_, err = img.Load(newGuest(m.MemoryMap), m)
		require.ErrorIs(t, err, errDisk)
		require.ErrorContains(t, err, "b.cpio")

		m = testMachine()
		m.Initrds[1].Size++ // it shrank after it was opened
		_, err = img.Load(newGuest(m.MemoryMap), m)
		require.ErrorIs(t, err, ErrTruncated)
		f := &fillingGuest{guest: newGuest(m.MemoryMap)}
		_, err = img.Load(f, m)
		require.ErrorIs(t, err, ErrTruncated)
	}
}
