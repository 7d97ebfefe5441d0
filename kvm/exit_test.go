package kvm

import (
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"
)

// page makes the shared pages of a vCPU whose exit has these words in its union.
func page(reason uint32, union ...uint64) []byte {
	run := make([]byte, 3*pageSize)
	binary.LittleEndian.PutUint32(run[offExitReason:], reason)
	for i, w := range union {
		binary.LittleEndian.PutUint64(run[offUnion+8*i:], w)
	}
	return run
}

// ioWord is the first word of an IO exit.
func ioWord(out bool, size uint8, port uint16, count uint32) uint64 {
	w := uint64(size)<<8 | uint64(port)<<16 | uint64(count)<<32
	if out {
		w |= 1
	}
	return w
}

func TestDecode(t *testing.T) {
	instruction := []uint64{1 | 4<<32, flagInstructionBytes, 0x0000_0000_c70f_f003, 0, 99}
	for _, c := range []struct {
		name string
		run  []byte
		want Exit
	}{
		{"out", page(exitIO, ioWord(true, 2, 0x3f8, 1), pageSize), &IOExit{Size: 2, Port: 0x3f8, Count: 1, Data: []byte{0, 0}}},
		{
			"string in to the end", page(exitIO, ioWord(false, 4, 0xffff, 1024), 2*pageSize),
			&IOExit{In: true, Size: 4, Port: 0xffff, Count: 1024, Data: make([]byte, pageSize)},
		},
		{"mmio read", page(exitMMIO, 0xfee00000, 0, 4), &MMIOExit{Addr: 0xfee00000, Data: make([]byte, 4)}},
		{
			"mmio write", page(exitMMIO, 1<<40, 0x0807060504030201, 8|1<<32),
			&MMIOExit{Addr: 1 << 40, Write: true, Data: []byte{1, 2, 3, 4, 5, 6, 7, 8}},
		},
		{"hlt", page(exitHalt), &HaltExit{}},
		{"shutdown", page(exitShutdown), &ShutdownExit{}},
		{"fail entry", page(exitFailEntry, 0x80000021, 3), &FailEntryExit{HardwareReason: 0x80000021, CPU: 3}},
		{
			"internal error", page(exitInternalError, 3|2<<32, 7, 8),
			&InternalErrorExit{Suberror: InternalErrorDelivery, Data: []uint64{7, 8}, data: [16]uint64{7, 8}},
		},
		{"emulation error with instruction", page(exitInternalError, instruction...), &InternalErrorExit{
			Suberror:    InternalErrorEmulation,
			Data:        instruction[1:],
			Instruction: []byte{0xf0, 0x0f, 0xc7},
			data:        [16]uint64(append(instruction[1:], make([]uint64, 12)...)),
			instruction: [15]byte{0xf0, 0x0f, 0xc7},
		}},
		{"emulation error without", page(exitInternalError, 1), &InternalErrorExit{Suberror: InternalErrorEmulation, Data: []uint64{}}},
		{
			"too much data is cut", page(exitInternalError, 2|0xffffffff<<32),
			&InternalErrorExit{Suberror: InternalErrorSimultaneousEx, Data: make([]uint64, 16)},
		},
		{
			"system event", page(exitSystemEvent, 2|1<<32, 0x55),
			&SystemEventExit{Type: SystemEventReset, Data: []uint64{0x55}, data: [16]uint64{0x55}},
		},
		{"debug", page(exitDebug, 3, 0x1000, 0x4000, 0x400), &DebugExit{Exception: 3, PC: 0x1000, DR6: 0x4000, DR7: 0x400}},
		{"irq window", page(exitIRQWindow), &InterruptWindowExit{}},
		{"ioapic eoi", page(exitIOAPICEOI, 0x31), &IOAPICEOIExit{Vector: 0x31}},
		{"unknown of the processor", page(exitUnknown, 77), &UnknownExit{Hardware: 77}},
		{"unknown to us", page(39, 77), &UnknownExit{Code: 39}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var x exits
			got, err := x.decode(c.run)
			require.NoError(t, err)
			require.Equal(t, c.want, got)
			require.NotEmpty(t, got.Reason())
		})
	}
}

func TestDecodeRefusesDataOutsideThePages(t *testing.T) {
	for _, c := range []struct {
		name string
		run  []byte
	}{
		{"size 0", page(exitIO, ioWord(true, 0, 1, 1), pageSize)},
		{"size 3", page(exitIO, ioWord(true, 3, 1, 1), pageSize)},
		{"size 8", page(exitIO, ioWord(true, 8, 1, 1), pageSize)},
		{"count 0", page(exitIO, ioWord(true, 1, 1, 0), pageSize)},
		{"one too many", page(exitIO, ioWord(true, 4, 1, 1025), 2*pageSize)},
		{"most of all", page(exitIO, ioWord(true, 4, 1, 0xffffffff), pageSize)},
		{"behind the end", page(exitIO, ioWord(true, 1, 1, 1), 3*pageSize)},
		{"offset that wraps", page(exitIO, ioWord(true, 4, 1, 1), 1<<64-2)},
		{"MMIO of nothing", page(exitMMIO, 0, 0, 0)},
		{"MMIO of 9 bytes", page(exitMMIO, 0, 0, 9)},
		{"MMIO of 4 GiB", page(exitMMIO, 0, 0, 0xffffffff)},
	} {
		t.Run(c.name, func(t *testing.T) {
			var x exits
			got, err := x.decode(c.run)
			require.Nil(t, got)
			require.ErrorIs(t, err, ErrExit)
			require.ErrorContains(t, err, "KVM_RUN")
		})
	}
}

// An earlier exit must not show through a later one of the same kind.
func TestDecodeForgetsTheLastExit(t *testing.T) {
	var x exits
	_, err := x.decode(page(exitInternalError, 1|4<<32, flagInstructionBytes, 0xf4_01, 0, 0))
	require.NoError(t, err)
	got, err := x.decode(page(exitInternalError, 4|0<<32))
	require.NoError(t, err)
	e := got.(*InternalErrorExit)
	require.Empty(t, e.Data)
	require.Empty(t, e.Instruction)
	require.Equal(t, "suberror 4 (unexpected exit of the processor), data []", e.String())
}

func FuzzDecode(f *testing.F) {
	for _, run := range [][]byte{
		page(exitIO, ioWord(true, 1, 0x80, 1), pageSize),
		page(exitIO, ioWord(false, 4, 0x1f0, 128), pageSize),
		page(exitMMIO, 0xfee00000, 0x11, 4|1<<32),
		page(exitInternalError, 1|4<<32, 1, 0x0f_02, 0, 0),
		page(exitSystemEvent, 1|1<<32, 5),
		page(exitDebug, 1, 2, 3, 4),
		page(exitFailEntry, 5, 1),
	} {
		f.Add(run[:runSize])
	}
	f.Fuzz(func(t *testing.T, run []byte) {
		if len(run) < runSize {
			return
		}
		var x exits
		exit, err := x.decode(run)
		if err != nil {
			require.ErrorIs(t, err, ErrExit)
			return
		}
		switch e := exit.(type) {
		case *IOExit:
			require.Len(t, e.Data, e.Size*e.Count)
			require.Contains(t, []int{1, 2, 4}, e.Size)
		case *MMIOExit:
			require.NotEmpty(t, e.Data)
			require.LessOrEqual(t, len(e.Data), 8)
		case *InternalErrorExit:
			require.LessOrEqual(t, len(e.Data), maxData)
			_ = e.String()
		}
	})
}

func TestDrainCoalescedStopsAtAStrangeRing(t *testing.T) {
	for _, c := range []struct {
		name        string
		first, last uint32
		want        int
	}{
		{"empty", 5, 5, 0},
		{"around the end", coalescedEntries - 2, 1, 3},
		{"first behind the ring", coalescedEntries, 1, 0},
		{"last behind the ring", 0, coalescedEntries, 0},
		{"both far away", 1 << 31, 1<<32 - 1, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			run := page(exitHalt)
			binary.LittleEndian.PutUint32(run[offCoalesced:], c.first)
			binary.LittleEndian.PutUint32(run[offCoalescedLast:], c.last)
			for i := offCoalescedRing; i+coalescedSize <= len(run); i += coalescedSize {
				binary.LittleEndian.PutUint32(run[i+8:], 1<<30) // len
			}
			cpu := &VCPU{vm: &VM{}, run: run}
			var n int
			cpu.DrainCoalesced(func(s CoalescedStore) {
				require.Len(t, s.Data, 8)
				n++
			})
			require.Equal(t, c.want, n)
		})
	}
	(&VCPU{run: make([]byte, 2*pageSize)}).DrainCoalesced(func(CoalescedStore) { t.Error("there is no ring") })
}
