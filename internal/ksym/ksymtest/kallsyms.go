package ksymtest

import (
	"encoding/binary"
	"slices"

	"github.com/huskvm/husk/internal/ksym"
)

// A Layout is a form of kallsyms.
type Layout int

// The layouts, by the first version of Linux that has them.
const (
	V5_10 Layout = iota // per-CPU symbols are absolute
	V6_2                // seqs_of_names
	V6_4                // another order
	V6_15               // no absolute symbols
	V7_0                // no relative base
)

// Layouts are all of them.
var Layouts = []Layout{V5_10, V6_2, V6_4, V6_15, V7_0}

// Kallsyms makes the tables of symbols, which are sorted by address, to be linked at
// addr.
func Kallsyms(layout Layout, addr uint64, symbols []ksym.Symbol) []byte {
	le := binary.LittleEndian
	align := 8
	if layout == V7_0 {
		align = 4
	}
	var b []byte
	label := func() {
		for len(b)%align != 0 {
			b = append(b, 0)
		}
	}
	base := uint64(0)
	for _, s := range slices.Backward(symbols) {
		if s.Addr >= ksym.KernelBase {
			base = s.Addr
		}
	}
	offsets := func() {
		label()
		for _, s := range symbols {
			offset := uint32(s.Addr - base)
			switch {
			case layout == V7_0:
				offset = uint32(s.Addr - (addr + uint64(len(b))))
			case layout < V6_15 && s.Addr < ksym.KernelBase:
				offset = uint32(s.Addr)
			case layout < V6_15:
				offset = uint32(base - 1 - s.Addr)
			}
			b = le.AppendUint32(b, offset)
		}
		if layout < V7_0 {
			label()
			b = le.AppendUint64(b, base)
		}
	}
	seqs := func() {
		label()
		for i := range symbols {
			b = append(b, byte(i>>16), byte(i>>8), byte(i))
		}
	}
	if layout < V6_4 {
		offsets()
	}
	label()
	b = le.AppendUint32(b, uint32(len(symbols)))
	label()
	var markers []uint32
	names := len(b)
	for i, s := range symbols {
		if i%256 == 0 {
			markers = append(markers, uint32(len(b)-names))
		}
		name := pack(string(s.Type) + s.Name)
		if len(name) < 0x80 {
			b = append(b, byte(len(name)))
		} else {
			b = append(b, byte(len(name))|0x80, byte(len(name)>>7))
		}
		b = append(b, name...)
	}
	label()
	for _, m := range markers {
		b = le.AppendUint32(b, m)
	}
	if layout == V6_2 {
		seqs()
	}
	label()
	var index []byte
	table := len(b)
	for i := range 256 {
		index = le.AppendUint16(index, uint16(len(b)-table))
		b = append(append(b, token(i)...), 0)
	}
	label()
	b = append(b, index...)
	if layout >= V6_4 {
		offsets()
		seqs()
	}
	return b
}

// token is what a byte stands for: letters for themselves, the rest for several.
func token(i int) string {
	switch {
	case i > ' ' && i <= '~':
		return string(rune(i))
	case i == 0:
		return "tfunction_"
	}
	return "x" + string(rune('a'+i%26)) + string(rune('a'+i/26))
}

func pack(name string) []byte {
	first := token(0)
	if len(name) >= len(first) && name[:len(first)] == first {
		return append([]byte{0}, name[len(first):]...)
	}
	return []byte(name)
}
