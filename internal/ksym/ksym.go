// Package ksym names the addresses of a Linux kernel. It reads the symbols from a
// System.map, from the symbol table of a vmlinux, or from the tables that the kernel
// itself carries for its own traces (kallsyms): those are in every distribution's
// kernel, whatever it was stripped of.
//
// Addresses are those the kernel was linked for. One that runs may be elsewhere by a
// multiple of 2 MiB (KASLR).
package ksym

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ErrNoSymbols is a file that names no addresses.
var ErrNoSymbols = errors.New("no symbols of a kernel")

// A Symbol is a name and its address. Type is as nm prints it: T and t are code.
type Symbol struct {
	Name string
	Addr uint64
	Type byte
}

// A Location is a place in or behind a symbol.
type Location struct {
	Name string
	// Offset is from the symbol's start, Size how far it reaches, in bytes.
	Offset, Size uint64
}

// String is in the form of the kernel's own traces: native_halt+0xb/0x10.
func (l Location) String() string { return fmt.Sprintf("%s+%#x/%#x", l.Name, l.Offset, l.Size) }

// KernelBase is the lowest address of the mapping that a kernel for x86-64 is linked
// into (kernel Documentation/arch/x86/x86_64/mm.rst).
const KernelBase = 0xffff_ffff_8000_0000

// minSymbols is less than any kernel has. A smaller table is something else.
const minSymbols = 100

// A Table is the symbols of one kernel.
type Table struct {
	symbols []Symbol // by address; of those with the same, the best name first
	names   map[string]uint64
}

// newTable takes symbols in any order. Those outside of the kernel's mapping, such as
// offsets into per-CPU memory, are of no use.
func newTable(symbols []Symbol) (*Table, error) {
	symbols = slices.DeleteFunc(symbols, func(s Symbol) bool { return s.Addr < KernelBase || s.Name == "" })
	code := 0
	for _, s := range symbols {
		if s.isCode() {
			code++
		}
	}
	if code < minSymbols {
		return nil, fmt.Errorf("%w: only %d functions are named", ErrNoSymbols, code)
	}
	slices.SortStableFunc(symbols, func(a, b Symbol) int {
		if c := cmp.Compare(a.Addr, b.Addr); c != 0 {
			return c
		}
		// As the kernel orders them: weak ones, and those of the linker's scripts, are not
		// what people know the place by.
		if c := cmp.Compare(a.rank(), b.rank()); c != 0 {
			return c
		}
		return cmp.Compare(leadingUnderscores(a.Name), leadingUnderscores(b.Name))
	})
	t := &Table{symbols: symbols, names: make(map[string]uint64, len(symbols))}
	for _, s := range symbols {
		if _, ok := t.names[s.Name]; !ok { // static functions may share a name
			t.names[s.Name] = s.Addr
		}
	}
	return t, nil
}

func (s Symbol) isCode() bool { return s.Type|0x20 == 't' || s.Type|0x20 == 'w' }

func (s Symbol) rank() int {
	if s.Type|0x20 == 'w' {
		return 1
	}
	if name, ok := strings.CutPrefix(s.Name, "__"); ok {
		for _, word := range []string{"start", "stop", "end"} {
			if strings.HasPrefix(name, word+"_") || strings.HasSuffix(name, "_"+word) {
				return 2
			}
		}
	}
	return 0
}

func leadingUnderscores(name string) int { return len(name) - len(strings.TrimLeft(name, "_")) }

// Len is how many symbols there are.
func (t *Table) Len() int { return len(t.symbols) }

// All gives the symbols by rising address.
func (t *Table) All() []Symbol { return t.symbols }

// Address is where a symbol is.
func (t *Table) Address(name string) (uint64, bool) {
	a, ok := t.names[name]
	return a, ok
}

// Lookup names an address. Before the first symbol, and from the last one on, there
// is nothing that can be named.
func (t *Table) Lookup(addr uint64) (Location, bool) {
	next, _ := slices.BinarySearchFunc(t.symbols, addr, func(s Symbol, addr uint64) int {
		if s.Addr <= addr {
			return -1
		}
		return 1
	})
	if next == 0 || next == len(t.symbols) {
		return Location{}, false
	}
	first := next - 1
	for first > 0 && t.symbols[first-1].Addr == t.symbols[first].Addr {
		first--
	}
	s := t.symbols[first]
	return Location{Name: s.Name, Offset: addr - s.Addr, Size: t.symbols[next].Addr - s.Addr}, true
}
