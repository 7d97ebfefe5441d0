package ksym_test

import (
	"bytes"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/internal/ksym"
	"github.com/huskvm/husk/internal/ksym/ksymtest"
)

func FuzzSystemMap(f *testing.F) {
	f.Add([]byte(systemMap(120)))
	f.Add([]byte("ffffffffffffffff B The real System.map is in the linux-image-<version>-dbg package\n"))
	f.Add([]byte("0000000000000000 T f\nffffffffc0001000 t probe\t[virtio_blk]\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		table, err := ksym.ParseSystemMap(bytes.NewReader(text))
		check(t, table, err)
	})
}

// FuzzKallsyms fuzzes the tables alone: debug/elf has its own fuzzers.
func FuzzKallsyms(f *testing.F) {
	for _, layout := range ksymtest.Layouts {
		symbols := functions(120)
		if layout >= ksymtest.V6_15 {
			symbols = symbols[2:]
		}
		f.Add(ksymtest.Kallsyms(layout, rodataAt, symbols))
	}
	f.Fuzz(func(t *testing.T, tables []byte) {
		m, err := ksym.OpenImage(bytes.NewReader(ksymtest.ELF([]ksymtest.Section{
			{Name: ".text", Addr: textAt, Data: make([]byte, 0x4000), Code: true},
			{Name: ".rodata", Addr: rodataAt, Data: tables},
		}, nil)))
		require.NoError(t, err)
		table, err := m.Symbols()
		check(t, table, err)
	})
}

// check holds a table to what its users rely on.
func check(t *testing.T, table *ksym.Table, err error) {
	if err != nil {
		require.ErrorIs(t, err, ksym.ErrNoSymbols)
		return
	}
	all := table.All()
	require.True(t, slices.IsSortedFunc(all, func(a, b ksym.Symbol) int { return bytes.Compare(be(a.Addr), be(b.Addr)) }))
	for _, s := range all[:min(len(all), 200)] {
		if l, ok := table.Lookup(s.Addr); ok {
			require.Zero(t, l.Offset)
			require.Positive(t, l.Size)
		}
	}
}

func be(v uint64) []byte {
	b := make([]byte, 8)
	for i := range b {
		b[i] = byte(v >> (56 - 8*i))
	}
	return b
}
