package ksym

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// The tables that a kernel has for its own traces, as its build writes them (kernel
// scripts/kallsyms.c). Nothing says where they are; each is found by what it must look
// like, from the one that cannot be mistaken to those that follow from it:
//
//	until 6.3   offsets, relative_base, num_syms, names, markers, (seqs_of_names,)
//	            token_table, token_index
//	since 6.4   num_syms, names, markers, token_table, token_index, offsets,
//	            relative_base, seqs_of_names
//	since 7.0   the same without relative_base: each offset is relative to its own place
//
// A name is a length and as many bytes, each of which stands for a token of up to some
// letters. Markers are the offsets of every 256th name.
const (
	tokenCount = 256
	indexSize  = 2 * tokenCount // bytes of token_index
	maxToken   = 64             // letters of a token; more than any has
	maxName    = 1024           // letters of a name; the kernel's limit is 512
	perMarker  = 256            // names between two markers
	maxSymbols = 1 << 22
	// maxTables bounds how far before token_table num_syms is, in bytes: a kernel's
	// names have about 3 MiB.
	maxTables = 64 << 20
	// maxTries bounds the names looked at in one search, so that a file made for it
	// takes a second and not a day. A kernel's take about a tenth of this.
	maxTries = 1 << 26
)

var le = binary.LittleEndian

// kallsyms finds the symbols that a kernel carries. What it finds has proved itself:
// all markers fit, addresses rise, and code lies where code can be executed.
func (m *Image) kallsyms() (*Table, error) {
	tries := maxTries
	for _, s := range m.segments {
		for off := 0; off+indexSize <= len(s.data); off += 4 {
			size, ok := isIndex(s.data[off : off+indexSize])
			if !ok {
				continue
			}
			tokens, ok := tokensBefore(s.data, off, size)
			if !ok {
				continue
			}
			l := list{data: s.data, addr: s.addr, tokens: tokens, index: off}
			if !l.findNames(&tries) {
				continue
			}
			for _, addresses := range l.addresses() {
				if symbols := l.symbols(addresses); m.proves(symbols) {
					return newTable(symbols)
				}
			}
		}
	}
	return nil, fmt.Errorf("%w: its kallsyms tables were not found; it may have been built without CONFIG_KALLSYMS, or have a form that husk does not know; give its System.map or its vmlinux with symbols",
		ErrNoSymbols)
}

// A list is the tables of a kernel, as far as they have been found.
type list struct {
	data   []byte // of the segment
	addr   uint64 // of it
	tokens *tokens
	index  int // offset of token_index

	count  int // offset of num_syms
	first  int // offset of names
	number int // of symbols
	names  []string
	types  []byte
}

type tokens struct {
	text  [tokenCount]string
	start int // offset of token_table
}

// isIndex tells whether data may be token_index: offsets of tokens that follow each
// other. The last one is returned.
func isIndex(data []byte) (last int, ok bool) {
	if le.Uint16(data) != 0 {
		return 0, false
	}
	for i := 2; i < indexSize; i += 2 {
		next := int(le.Uint16(data[i:]))
		if next <= last || next-last > maxToken+1 {
			return 0, false
		}
		last = next
	}
	return last, true
}

// tokensBefore takes off for the start of token_index, and reads the table before it,
// whose last token starts at last.
func tokensBefore(data []byte, off, last int) (*tokens, bool) {
	t := new(tokens)
	for pad := range 8 { // of zeros, between the last token's own and the index
		end := off - pad // behind the zero that ends the last token
		if end < 1 || data[end-1] != 0 {
			return nil, false
		}
		start := end - 1
		for start > 0 && data[start-1] != 0 && end-start <= maxToken {
			start--
		}
		if t.start = start - last; t.start >= 0 && t.read(data, off, end) {
			return t, true
		}
	}
	return nil, false
}

func (t *tokens) read(data []byte, index, end int) bool {
	for i := range tokenCount {
		from := t.start + int(le.Uint16(data[index+2*i:]))
		to := end
		if i+1 < tokenCount {
			to = t.start + int(le.Uint16(data[index+2*i+2:]))
		}
		if from >= to || to > end || data[to-1] != 0 {
			return false
		}
		for _, c := range data[from : to-1] {
			if c <= ' ' || c > '~' {
				return false
			}
		}
		t.text[i] = string(data[from : to-1])
	}
	return true
}

// findNames looks for num_syms before the tokens: as many names must follow it, and
// behind them the markers that belong to them.
func (l *list) findNames(tries *int) bool {
	for off := max(0, l.tokens.start-maxTables) &^ 3; off+8 < l.tokens.start; off += 4 {
		if *tries--; *tries <= 0 {
			return false
		}
		n := int(le.Uint32(l.data[off:]))
		if n < minSymbols || n > maxSymbols || n > (l.tokens.start-off)/2 {
			continue
		}
		for _, gap := range []int{4, 8} { // names are aligned to as much
			if gap == 8 && le.Uint32(l.data[off+4:]) != 0 {
				continue
			}
			if l.fits(off+gap, n, tries) {
				l.count, l.first, l.number = off, off+gap, n
				return l.read()
			}
			if *tries <= 0 {
				return false
			}
		}
	}
	return false
}

// fits tells whether n names start at off, with their markers behind them.
func (l *list) fits(off, n int, tries *int) bool {
	var markers []uint32
	at := off
	for i := range n {
		*tries--
		packed, next := l.name(at)
		if packed == nil || *tries <= 0 || !l.startsWithType(packed) {
			return false
		}
		if i%perMarker == 0 {
			markers = append(markers, uint32(at-off))
		}
		at = next
	}
	for pad := range 8 {
		table := at + pad
		if table%4 != 0 || table+4*len(markers) > l.tokens.start {
			continue
		}
		same := true
		for i, m := range markers {
			same = same && le.Uint32(l.data[table+4*i:]) == m
		}
		if same {
			return true
		}
	}
	return false
}

// name is the packed name at an offset, and the offset of the next; nil where none can
// be. Since 6.1 names of 128 bytes and more have a length of two.
func (l *list) name(at int) (packed []byte, next int) {
	end := l.tokens.start
	if at+2 > end {
		return nil, 0
	}
	n := int(l.data[at])
	at++
	if n&0x80 != 0 {
		n = n&0x7f | int(l.data[at])<<7
		at++
	}
	if n == 0 || n > maxName || n > end-at {
		return nil, 0
	}
	return l.data[at : at+n], at + n
}

// startsWithType tells whether a name begins with a letter of nm, as all do.
func (l *list) startsWithType(packed []byte) bool {
	first := l.tokens.text[packed[0]]
	if first == "" {
		return false
	}
	switch first[0] {
	case 'A', 'a', 'B', 'b', 'C', 'c', 'D', 'd', 'G', 'g', 'I', 'i', 'N', 'n', 'R', 'r', 'S', 's', 'T', 't', 'u', 'V', 'v', 'W', 'w', '?', '-', 'p':
		return true
	}
	return false
}

// read unpacks the names.
func (l *list) read() bool {
	at := l.first
	for range l.number {
		packed, next := l.name(at)
		var name []byte
		for _, b := range packed {
			if name = append(name, l.tokens.text[b]...); len(name) > maxName {
				return false
			}
		}
		if len(name) < 2 {
			return false
		}
		l.types = append(l.types, name[0])
		l.names = append(l.names, string(name[1:]))
		at = next
	}
	return true
}

// addresses gives what the addresses may be: one proposal for each place and form of
// the offsets that has room for them.
func (l *list) addresses() (all [][]uint64) {
	size := 4 * l.number
	after := l.index + indexSize
	before := l.count - 8
	for _, at := range []struct{ offsets, base int }{
		{after, -1},
		{after, (after + size + 7) &^ 7},
		{before - size, before},
		{before - size - 4, before}, // an odd number of offsets, aligned to 8
	} {
		if at.offsets < 0 || at.offsets+size > len(l.data) || at.base+8 > len(l.data) {
			continue
		}
		offsets := l.data[at.offsets : at.offsets+size]
		if at.base < 0 {
			own := make([]uint64, l.number)
			for i := range own {
				place := l.addr + uint64(at.offsets+4*i)
				own[i] = place + uint64(int64(int32(le.Uint32(offsets[4*i:]))))
			}
			all = append(all, own)
			continue
		}
		base := le.Uint64(l.data[at.base:])
		plain, percpu := make([]uint64, l.number), make([]uint64, l.number)
		for i := range plain {
			o := le.Uint32(offsets[4*i:])
			plain[i] = base + uint64(o)
			// CONFIG_KALLSYMS_ABSOLUTE_PERCPU, until 6.14: what is not negative is an
			// absolute value, the rest counts from the base on, from -1 down.
			if percpu[i] = uint64(o); int32(o) < 0 {
				percpu[i] = base - 1 - uint64(int64(int32(o)))
			}
		}
		all = append(all, plain, percpu)
	}
	return all
}

func (l *list) symbols(addresses []uint64) []Symbol {
	all := make([]Symbol, l.number)
	for i := range all {
		all[i] = Symbol{Name: l.names[i], Addr: addresses[i], Type: l.types[i]}
	}
	return all
}

// proves tells whether symbols are true of the image. The kernel looks them up by
// bisection, so they must rise; and nearly all code must be where code is (some of it
// is a trampoline that is copied elsewhere).
func (m *Image) proves(symbols []Symbol) bool {
	if !slices.IsSortedFunc(symbols, func(a, b Symbol) int {
		if a.Addr < b.Addr {
			return -1
		}
		if a.Addr > b.Addr {
			return 1
		}
		return 0
	}) {
		return false
	}
	code, inside := 0, 0
	for _, s := range symbols {
		if s.Name == "linux_banner" && string(m.Bytes(s.Addr, uint64(len(banner)))) != banner {
			return false
		}
		if s.Type|0x20 == 't' {
			code++
			if m.IsCode(s.Addr) {
				inside++
			}
		}
	}
	return code >= minSymbols && inside >= code-code/50
}

// banner begins what the kernel says first.
const banner = "Linux version "
