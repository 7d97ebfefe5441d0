package kstack

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/boot"
	"github.com/huskvm/husk/internal/ksym"
	"github.com/huskvm/husk/internal/ksym/ksymtest"
	"github.com/huskvm/husk/vmm"
)

const (
	textSize = 0x1_0000
	bannerAt = text + 0x20_0000
	idtAt    = uint64(0xffff_fe00_0000_0000)
	slide    = uint64(0x1bc0_0000)
)

// code is a kernel's: no two pages of it are alike.
func code(seed byte) []byte {
	b := make([]byte, textSize)
	for i := range b {
		b[i] = byte(i*7+i>>8*31) ^ seed
	}
	return b
}

// symbols are those of a kernel that idles, with the entries that findSlide knows.
func symbols() []ksym.Symbol {
	all := []ksym.Symbol{{Name: "first", Addr: text, Type: 'T'}, {Name: "do_idle", Addr: text + 0x100, Type: 't'}, {Name: "halt", Addr: text + 0x140, Type: 't'}}
	for i := range 120 {
		all = append(all, ksym.Symbol{Name: fmt.Sprintf("function_%d", i), Addr: text + 0x1000 + uint64(i)*16, Type: 't'})
	}
	all = append(all, ksym.Symbol{Name: "entry_SYSCALL_64", Addr: text + 0x4080, Type: 'T'})
	for vector := range 32 {
		if name, ok := gates[vector]; ok {
			all = append(all, ksym.Symbol{Name: name, Addr: text + 0x5000 + uint64(vector)*16, Type: 'T'})
		}
	}
	return append(all, ksym.Symbol{Name: "_etext", Addr: text + textSize, Type: 'T'}, ksym.Symbol{Name: "linux_banner", Addr: bannerAt, Type: 'D'}, ksym.Symbol{Name: "_end", Addr: bannerAt + 0x1000, Type: 'B'})
}

// version is a kernel's, in the space for it.
func version(build string) []byte {
	b := make([]byte, 0x1000)
	copy(b, "Linux version 7.0 #1 "+build)
	return b
}

func kernelFile(seed byte) []byte {
	ips, entries := forms["7.0"].encode(orcAt, spans(
		span{text, ending}, span{text + 0x100, pushed}, span{text + 0x140, function},
	))
	const rodata = bannerAt + 0x1000
	return ksymtest.ELF([]ksymtest.Section{
		{Name: ".text", Addr: text, Data: code(seed), Code: true},
		{Name: ".rodata", Addr: bannerAt, Data: append(version("Monday"), ksymtest.Kallsyms(ksymtest.V7_0, rodata, symbols())...)},
		{Name: ".orc_unwind_ip", Addr: orcAt, Data: ips},
		{Name: ".orc_unwind", Addr: orcAt + 0x10_0000, Data: entries},
	}, nil)
}

func systemMap() []byte {
	var b bytes.Buffer
	for _, s := range symbols() {
		fmt.Fprintf(&b, "%016x %c %s\n", s.Addr, s.Type, s.Name)
	}
	return b.Bytes()
}

func source(name string, b []byte) boot.Source {
	return boot.Source{Name: name, Size: int64(len(b)), ReaderAt: bytes.NewReader(b)}
}

// guest is the memory of a machine: pieces of it, by address.
type guest map[uint64][]byte

func (g guest) ReadVirtual(_ *vmm.Dump, gva uint64, p []byte) (int, error) {
	for at, b := range g {
		if gva >= at && gva-at+uint64(len(p)) <= uint64(len(b)) {
			return copy(p, b[gva-at:]), nil
		}
	}
	return 0, errors.New("not mapped")
}

// idle is a guest whose processor halts, with its kernel moved by slide.
func idle() (vmm.Dump, guest) {
	var words []byte
	for _, w := range []uint64{text + 0x110, 0, text + 0x10} {
		if w != 0 {
			w += slide
		}
		words = le.AppendUint64(words, w)
	}
	var idt []byte
	for i := range uint64(32) {
		handler := text + 0x5000 + i*16 + slide
		idt = le.AppendUint16(idt, uint16(handler))
		idt = append(idt, 0x10, 0, 0, 0x8e)
		idt = le.AppendUint16(idt, uint16(handler>>16))
		idt = le.AppendUint64(idt, handler>>32)
	}
	d := vmm.Dump{State: vmm.CPUHalted, LSTAR: text + 0x4080 + slide}
	d.Regs.RIP, d.Regs.RSP = text+0x145+slide, task
	d.Sregs.IDT.Base, d.Sregs.IDT.Limit = idtAt, 0xfff
	return d, guest{text + slide: code(0), task: words, idtAt: idt, bannerAt + slide: version("Monday")}
}

var asleep = Place{Symbol: "halt+0x5/0xec0", Backtrace: []string{"do_idle+0x10/0x40", "first+0x10/0x100"}}

func TestDescribe(t *testing.T) {
	k, err := Open(source("vmlinux", kernelFile(0)))
	require.NoError(t, err)
	d, mem := idle()
	program, waiting, early, module := d, d, d, d
	program.CPL, program.Regs.RIP = 3, 0x40_1000
	waiting.State = vmm.CPUWaiting
	early.Regs.RIP = 0x100_0000
	module.Regs.RIP = 0xffff_ffff_c012_3456
	places, err := k.Describe([]vmm.Dump{program, waiting, d, early, module}, mem)
	require.NoError(t, err)
	require.Equal(t, Place{Symbol: UserMode}, places[0])
	require.Equal(t, Place{Symbol: "not started"}, places[1])
	require.Equal(t, asleep, places[2])
	require.Equal(t, Place{}, places[3])
	require.Equal(t, "module text 0xffffffffc0123456", places[4].Symbol)
	require.Len(t, places[4].Backtrace, 1)
	require.Contains(t, places[4].Backtrace[0], "(no more: 0x0 is no frame pointer)")
}

// TestWhereTheKernelIs is told by several things, and by none of them alone.
func TestWhereTheKernelIs(t *testing.T) {
	both := []boot.Source{source("vmlinux", kernelFile(0))}
	onlyMap := []boot.Source{source("System.map", systemMap())}
	for name, c := range map[string]struct {
		files []boot.Source
		spoil func(d *vmm.Dump, mem guest)
		found bool
	}{
		"by all":                        {both, func(*vmm.Dump, guest) {}, true},
		"by LSTAR":                      {both, func(_ *vmm.Dump, mem guest) { delete(mem, idtAt) }, true},
		"by exceptions":                 {both, func(d *vmm.Dump, _ guest) { d.LSTAR = 0 }, true},
		"by code, early":                {both, func(d *vmm.Dump, _ guest) { d.LSTAR, d.Sregs.IDT.Limit = 0, 0 }, true},
		"LSTAR is wrong":                {both, func(d *vmm.Dump, _ guest) { d.LSTAR += slideStep; d.Sregs.IDT.Limit = 0 }, true},
		"other code":                    {both, func(_ *vmm.Dump, mem guest) { mem[text+slide] = code(0x55) }, false},
		"another kernel":                {[]boot.Source{source("vmlinux", kernelFile(0x55))}, func(*vmm.Dump, guest) {}, false},
		"System.map":                    {onlyMap, func(*vmm.Dump, guest) {}, true},
		"System.map, no LSTAR":          {onlyMap, func(d *vmm.Dump, _ guest) { d.LSTAR = 0 }, true},
		"System.map, LSTAR alone":       {onlyMap, func(d *vmm.Dump, _ guest) { d.Sregs.IDT.Limit = 0 }, false},
		"System.map, not by 2 MiB":      {onlyMap, func(d *vmm.Dump, mem guest) { mem[idtAt][1] ^= 0x10; mem[idtAt][14*16+1] ^= 0x10; d.LSTAR ^= 0x1000 }, false},
		"another build":                 {both, func(_ *vmm.Dump, mem guest) { mem[bannerAt+slide] = version("Tuesday") }, false},
		"System.map of another build":   {onlyMap, func(_ *vmm.Dump, mem guest) { mem[bannerAt+slide] = mem[bannerAt+slide][1:] }, false},
		"the banner is not mapped":      {both, func(_ *vmm.Dump, mem guest) { delete(mem, bannerAt+slide) }, true},
		"no processor is in the kernel": {both, func(d *vmm.Dump, _ guest) { d.Regs.RIP, d.LSTAR, d.Sregs.IDT.Limit = 0x1000, 0, 0 }, false},
	} {
		t.Run(name, func(t *testing.T) {
			k, err := Open(c.files...)
			require.NoError(t, err)
			d, mem := idle()
			c.spoil(&d, mem)
			places, err := k.Describe([]vmm.Dump{d}, mem)
			if !c.found {
				require.ErrorIs(t, err, errNoSlide)
				require.Equal(t, []Place{{}}, places)
				return
			}
			require.NoError(t, err)
			require.Equal(t, asleep.Symbol, places[0].Symbol)
			if k.image != nil {
				require.Equal(t, asleep, places[0])
			}
		})
	}
}

func TestOpen(t *testing.T) {
	stripped := ksymtest.ELF([]ksymtest.Section{{Name: ".text", Addr: text, Data: code(0), Code: true}}, nil)
	stub := []byte("ffffffffffffffff B The real System.map is in the linux-image-<version>-dbg package\n")
	bzImage := make([]byte, 0x1000)
	copy(bzImage[0x202:], "HdrS")
	for name, c := range map[string]struct {
		files []boot.Source
		err   []string // "" for none
	}{
		"vmlinux":                      {[]boot.Source{source("vmlinux", kernelFile(0))}, nil},
		"a stripped one and a map":     {[]boot.Source{source("vmlinux", stripped), source("System.map", systemMap())}, nil},
		"a map and a stripped one":     {[]boot.Source{source("System.map", systemMap()), source("vmlinux", stripped)}, nil},
		"a stripped one":               {[]boot.Source{source("vmlinux", stripped)}, []string{"vmlinux: ", "CONFIG_KALLSYMS"}},
		"Debian's map":                 {[]boot.Source{source("vmlinux", kernelFile(0)), source("System.map-6.1", stub)}, []string{"System.map-6.1: ", "dbg package"}},
		"a bzImage without its kernel": {[]boot.Source{source("vmlinuz", bzImage)}, []string{"vmlinuz: ", "cannot unpack"}},
		"nothing":                      {nil, []string{"no file was given"}},
	} {
		t.Run(name, func(t *testing.T) {
			k, err := Open(c.files...)
			for _, text := range c.err {
				require.ErrorContains(t, err, text)
			}
			if c.err == nil {
				require.NoError(t, err)
				require.NotNil(t, k.image)
				require.NotNil(t, k.symbols)
			}
		})
	}
}

func TestOpenFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "System.map")
	_, err := OpenFiles(path)
	require.ErrorIs(t, err, os.ErrNotExist)
	require.NoError(t, os.WriteFile(path, systemMap(), 0o600))
	k, err := OpenFiles(path)
	require.NoError(t, err)
	require.Equal(t, len(symbols()), k.symbols.Len())
	require.Equal(t, 1, strings.Count(k.name(frame{ip: text + 0x100}, 0), "first"), "behind a call at its function's end")
}

// TestDistributionKernels: their ORC is understood.
func TestDistributionKernels(t *testing.T) {
	for _, flavour := range []string{"cloud", "generic"} {
		t.Run(flavour, func(t *testing.T) {
			if testing.Short() {
				t.Skip("it unpacks a whole kernel")
			}
			path := "../../build/kernels/" + flavour + "/vmlinuz"
			if _, err := os.Stat(path); err != nil {
				t.Skip("no kernel is there; make kernels fetches it")
			}
			k, err := OpenFiles(path)
			require.NoError(t, err)
			require.NotNil(t, k.orc)
			addr, ok := k.symbols.Address("do_idle")
			require.True(t, ok)
			e, ok := k.orc.find(addr)
			require.True(t, ok)
			require.Equal(t, function, e, "at its first instruction")
			addr, ok = k.symbols.Address("ret_from_fork")
			require.True(t, ok)
			e, ok = k.orc.find(addr)
			require.True(t, ok)
			require.Contains(t, []kind{end, regs}, e.kind)
		})
	}
}
