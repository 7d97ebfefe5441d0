package ksym_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/internal/ksym"
	"github.com/huskvm/husk/internal/ksym/ksymtest"
)

const (
	textAt   = uint64(0xffff_ffff_8100_0000)
	rodataAt = uint64(0xffff_ffff_8120_0000)
	step     = 0x40 // bytes of a function
)

// functions is n of them, some with a second name, behind two per-CPU symbols.
func functions(n int) []ksym.Symbol {
	s := []ksym.Symbol{{"fixed_percpu_data", 0, 'A'}, {"cpu_tss", 0x1000, 'D'}, {"_text", textAt, 'T'}}
	for i := range n {
		addr := textAt + uint64(i*step)
		s = append(s, ksym.Symbol{Name: fmt.Sprintf("function_%d", i), Addr: addr, Type: "tT"[i%2]})
		if i%50 == 7 {
			s = append(s, ksym.Symbol{Name: fmt.Sprintf("__alias_of_%d", i), Addr: addr, Type: 't'})
		}
	}
	long := strings.Repeat("crate::", 30) + "main"
	return append(s, ksym.Symbol{Name: long, Addr: textAt + uint64(n*step), Type: 't'}, ksym.Symbol{Name: "data", Addr: rodataAt, Type: 'r'})
}

// carrying is a kernel with kallsyms.
func carrying(layout ksymtest.Layout, symbols []ksym.Symbol) []byte {
	if layout >= ksymtest.V6_15 {
		symbols = symbols[2:]
	}
	pad := make([]byte, 0x148)
	return ksymtest.ELF([]ksymtest.Section{
		{Name: ".text", Addr: textAt, Data: make([]byte, 0x10_0000), Code: true},
		{Name: ".rodata", Addr: rodataAt, Data: append(pad, ksymtest.Kallsyms(layout, rodataAt+uint64(len(pad)), symbols)...)},
	}, nil)
}

func open(t *testing.T, file []byte) (*ksym.Table, error) {
	t.Helper()
	m, err := ksym.OpenImage(bytes.NewReader(file))
	require.NoError(t, err)
	return m.Symbols()
}

func TestKallsymsOfEveryLayout(t *testing.T) {
	for _, layout := range ksymtest.Layouts {
		for _, n := range []int{200, 203, 3000, 3001} {
			t.Run(fmt.Sprint(layout, n), func(t *testing.T) {
				want := functions(n)
				table, err := open(t, carrying(layout, want))
				require.NoError(t, err)
				require.Len(t, table.All(), len(want)-2, "without those of per-CPU memory")
				for _, s := range want[2:] {
					if addr, ok := table.Address(s.Name); !ok || addr != s.Addr {
						t.Errorf("%s: %#x, not %#x", s.Name, addr, s.Addr)
					}
				}
				l, ok := table.Lookup(textAt + 8*step + 5)
				require.True(t, ok)
				require.Equal(t, "function_8+0x5/0x40", l.String())
			})
		}
	}
}

// TestDamagedKallsymsNameNothing: no symbols are better than wrong ones.
func TestDamagedKallsymsNameNothing(t *testing.T) {
	symbols := functions(1000)
	damage := map[string]func(b []byte) []byte{
		"none at all":     func([]byte) []byte { return ksymtest.ELF(nil, nil) },
		"a name too long": func(b []byte) []byte { return replace(t, b, "\x0dTfunction_501", "\x0eTfunction_501") },
		"not a type":      func(b []byte) []byte { return replace(t, b, "Tfunction_501", "!function_501") },
		"a token less":    func(b []byte) []byte { return replace(t, b, "\x00a\x00b\x00c\x00", "\x00a\x00bbc\x00") },
		"banner is not one": func([]byte) []byte {
			return carrying(ksymtest.V7_0, append(symbols, ksym.Symbol{Name: "linux_banner", Addr: rodataAt, Type: 'D'}))
		},
		"code is elsewhere": func([]byte) []byte {
			moved := functions(1000)
			for i := range moved[2:] {
				moved[i+2].Addr += 0x40_0000
			}
			return carrying(ksymtest.V6_4, moved)
		},
		"not by address": func([]byte) []byte {
			mixed := functions(1000)
			mixed[20], mixed[500] = mixed[500], mixed[20]
			return carrying(ksymtest.V6_4, mixed)
		},
	}
	for name, f := range damage {
		t.Run(name, func(t *testing.T) {
			_, err := open(t, f(carrying(ksymtest.V6_2, symbols)))
			require.ErrorIs(t, err, ksym.ErrNoSymbols)
			require.ErrorContains(t, err, "System.map", "what to do")
		})
	}
}

func replace(t *testing.T, b []byte, from, to string) []byte {
	t.Helper()
	require.Equal(t, 1, bytes.Count(b, []byte(from)))
	require.Len(t, to, len(from))
	return bytes.Replace(b, []byte(from), []byte(to), 1)
}

func TestTheSymbolTableComesFirst(t *testing.T) {
	symbols := functions(300)
	symbols[10].Type = 'W'
	text := ksymtest.Section{Name: ".text", Addr: textAt, Data: make([]byte, 0x10_0000), Code: true}
	table, err := open(t, ksymtest.ELF([]ksymtest.Section{text}, symbols))
	require.NoError(t, err)
	l, ok := table.Lookup(textAt + 7*step)
	require.True(t, ok)
	require.Equal(t, "__alias_of_7+0x0/0x40", l.String(), "the other name is weak")
	l, ok = table.Lookup(textAt + 57*step + 1)
	require.True(t, ok)
	require.Equal(t, "function_57+0x1/0x40", l.String())
}

func TestLookupEndsWhereTheSymbolsDo(t *testing.T) {
	table, err := open(t, carrying(ksymtest.V7_0, functions(200)))
	require.NoError(t, err)
	for _, addr := range []uint64{0, 0x1000, textAt - 1, rodataAt, rodataAt + 5, 1<<64 - 1} {
		_, ok := table.Lookup(addr)
		require.False(t, ok, "%#x", addr)
	}
	l, ok := table.Lookup(textAt)
	require.True(t, ok)
	require.Equal(t, "function_0", l.Name, "and not _text")
}

func systemMap(n int) string {
	var b strings.Builder
	for _, s := range functions(n) {
		fmt.Fprintf(&b, "%016x %c %s\n", s.Addr, s.Type, s.Name)
	}
	return b.String()
}

func TestSystemMap(t *testing.T) {
	table, err := ksym.ParseSystemMap(strings.NewReader(systemMap(200) + "ffffffffc0001000 t virtblk_probe\t[virtio_blk]\n\n"))
	require.NoError(t, err)
	l, ok := table.Lookup(textAt + 199*step + 0x3f)
	require.True(t, ok)
	require.Equal(t, "function_199+0x3f/0x40", l.String())
	_, ok = table.Address("virtblk_probe")
	require.False(t, ok)

	for name, c := range map[string]struct{ text, err string }{
		"Debian's":   {"ffffffffffffffff B The real System.map is in the linux-image-<version>-dbg package\n", "linux-image-<version>-dbg package"},
		"hidden":     {strings.Repeat("0000000000000000 T f\n", 200), "all addresses are 0"},
		"empty":      {"", "0 functions"},
		"prose":      {"This is no list of symbols.\n", "line 1 "},
		"no address": {systemMap(1) + "zz T f\n", "line 7 "},
		"a long one": {strings.Repeat("f", 10000), "too long"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ksym.ParseSystemMap(strings.NewReader(c.text))
			require.ErrorIs(t, err, ksym.ErrNoSymbols)
			require.ErrorContains(t, err, c.err)
		})
	}
}

func TestOtherFilesAreRefused(t *testing.T) {
	arm := ksymtest.ELF(nil, nil)
	arm[18] = 183 // EM_AARCH64
	short := carrying(ksymtest.V6_2, functions(200))
	for name, file := range map[string][]byte{"no ELF": []byte("hello"), "another architecture": arm, "cut short": short[:0x1000]} {
		t.Run(name, func(t *testing.T) {
			_, err := ksym.OpenImage(bytes.NewReader(file))
			require.ErrorIs(t, err, ksym.ErrNoSymbols)
		})
	}
}
