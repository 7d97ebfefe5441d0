package main

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestMessagesAreOrdinaryInterrupts, however the table of MSI-X is written: of
// fixed delivery (bits 8 to 10), and neither an exception nor the kernel's own.
func TestMessagesAreOrdinaryInterrupts(t *testing.T) {
	a := &attack{Rand: rand.New(rand.NewPCG(1, 1)), mem: &pages{gpa: []uint64{0x1234_5000}}}
	table := make([]byte, 64)
	for i := 8; i < len(table); i += 16 {
		table[i] = 0x30
	}
	for range 100_000 {
		size := pick(a, []int{1, 2, 4, 8})
		off := a.IntN(len(table) - size + 1)
		var b [8]byte
		binary.LittleEndian.PutUint64(b[:], ordinary(off, size, a.value()))
		copy(table[off:], b[:size])
		for i := 0; i < len(table); i += 16 {
			data := binary.LittleEndian.Uint32(table[i+8:])
			require.Zero(t, data>>8&7)
			require.GreaterOrEqual(t, data&0xff, uint32(0x30))
			require.Less(t, data&0xff, uint32(0xe0))
		}
	}
}

// TestNoValueIsAnAddressInRAM, but for those of its own pages.
func TestNoValueIsAnAddressInRAM(t *testing.T) {
	a := &attack{Rand: rand.New(rand.NewPCG(1, 1)), mem: &pages{gpa: []uint64{0x1234_5000}}}
	for range 100_000 {
		v := a.value()
		for _, gpa := range []uint64{v, v & 0xffff_ffff} { // 64 bits or 32
			require.True(t, gpa < pageSize || gpa >= noRAM || gpa == 0x1234_5000, "%#x", gpa)
		}
	}
}

func TestTheConsoleAndPowerAreSpared(t *testing.T) {
	p := &ports{spared: append(spared, power...)}
	for _, port := range []uint16{0x3f5, 0x3f8, 0x3ff, 0x61, 0x64, 0x505, 0x602, 0xcf5, 0xcff, 0xffff} {
		require.True(t, p.spares(port, 4), "%#x", port)
	}
	for _, port := range []uint16{0x3f4, 0x400, 0x60, 0x70, 0x520, 0xd00} {
		require.False(t, p.spares(port, 4), "%#x", port)
	}
}
