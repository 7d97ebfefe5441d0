package kstack

import (
	"encoding/binary"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// A form is one of those that ORC has had.
type form struct {
	flags flags
	regs  *[16]reg
}

var forms = map[string]form{
	"5.10": {flags5_10, &oldRegs}, "6.3": {flags6_3, &oldRegs}, "6.4": {flags6_4, &oldRegs}, "7.0": {flags6_4, &newRegs},
}

// A span is an entry and the address from which on it holds.
type span struct {
	ip uint64
	entry
}

// encode makes the tables, to be linked at addr.
func (f form) encode(addr uint64, spans []span) (ips, entries []byte) {
	for i, s := range spans {
		ips = binary.LittleEndian.AppendUint32(ips, uint32(s.ip-(addr+uint64(4*i))))
		entries = binary.LittleEndian.AppendUint16(entries, uint16(s.spOffset))
		entries = binary.LittleEndian.AppendUint16(entries, uint16(s.bpOffs))
		sp, bp := slices.Index(f.regs[:], s.spReg), slices.Index(f.regs[:], s.bpReg)
		entries = append(entries, byte(sp|bp<<4), f.lastByte(s.entry))
	}
	return ips, entries
}

func (f form) lastByte(e entry) byte {
	signal, ends := byte(0), byte(0)
	if e.signal {
		signal = 1
	}
	if e.kind == end {
		ends = 1
	}
	low := byte(0)
	if e.kind > call {
		low = byte(e.kind - call)
	}
	switch f.flags {
	case flags5_10:
		return low | ends<<2
	case flags6_3:
		return low | signal<<2 | ends<<3
	}
	return byte(e.kind) | signal<<3
}

const (
	text  = uint64(0xffff_ffff_8100_0000)
	orcAt = uint64(0xffff_ffff_8220_0000)
)

var (
	function = entry{kind: call, spReg: regSP, spOffset: 8}
	pushed   = entry{kind: call, spReg: regSP, spOffset: 16, bpReg: regPrevSP, bpOffs: -16}
	byBP     = entry{kind: call, spReg: regBP, spOffset: 16, bpReg: regPrevSP, bpOffs: -16}
	ending   = entry{kind: end}
	unknown  = entry{}
	saved    = entry{kind: regs, signal: true, spReg: regSP}
	cut      = entry{kind: iret, signal: true, spReg: regSP, spOffset: 8}
)

// spans are a kernel's few functions, and enough plain ones to be recognized.
func spans(some ...span) []span {
	for i := range 20 {
		some = append(some, span{text + 0x8000 + uint64(i)*16, function})
	}
	return some
}

func TestEveryFormOfORC(t *testing.T) {
	want := spans(
		span{text, ending}, span{text + 16, function}, span{text + 17, pushed}, span{text + 32, byBP}, span{text + 48, saved},
		span{text + 64, cut}, span{text + 80, unknown}, span{text + 96, entry{kind: call, spReg: regR10}},
		span{text + 112, entry{kind: call, spReg: regSPIndirect, spOffset: 8, bpReg: regBP, bpOffs: -40}},
	)
	for name, f := range forms {
		t.Run(name, func(t *testing.T) {
			ips, entries := f.encode(orcAt, want)
			orc, err := newORC(ips, entries, orcAt)
			require.NoError(t, err)
			for i, s := range want {
				for _, ip := range []uint64{s.ip, s.ip + 1} {
					if i+1 < len(want) && ip == want[i+1].ip {
						continue
					}
					e, ok := orc.find(ip)
					require.True(t, ok)
					require.Equal(t, s.entry, e, "%#x", ip)
				}
			}
			_, ok := orc.find(text - 1)
			require.False(t, ok)
		})
	}
}

func TestORCThatIsNotUnderstood(t *testing.T) {
	good := spans()
	ips, entries := forms["6.4"].encode(orcAt, good)
	swapped := slices.Clone(good)
	swapped[3], swapped[7] = swapped[7], swapped[3]
	unsorted, _ := forms["6.4"].encode(orcAt, swapped)
	strange, reg := slices.Clone(entries), slices.Clone(entries)
	for i := 0; i < len(entries); i += entrySize {
		strange[i+5] = 7
		reg[i+4] = 14
	}
	for name, c := range map[string]struct{ ips, entries []byte }{
		"empty": {nil, nil}, "sizes": {ips[4:], entries}, "unsorted": {unsorted, entries}, "kinds": {ips, strange}, "registers": {ips, reg},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := newORC(c.ips, c.entries, orcAt)
			require.ErrorIs(t, err, errORC)
		})
	}
}
