package vmm

import (
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/kvm"
)

func TestAPIC(t *testing.T) {
	state := func(registers map[int]uint32) *kvm.LAPICState {
		s := &kvm.LAPICState{}
		for at, v := range registers {
			binary.LittleEndian.PutUint32(s.Regs[at:], v)
		}
		return s
	}
	const deadline = 2 << 17
	for _, tt := range []struct {
		registers     map[int]uint32
		tsc, deadline uint64
		want          string
	}{
		{map[int]uint32{apicLVTTimer: lvtMasked}, 5, 0, "timer masked, count 0"},
		{map[int]uint32{apicLVTTimer: 0xec, apicCount: 7}, 5, 0, "timer one-shot, count 7"},
		{map[int]uint32{apicLVTTimer: deadline | 0xec}, 5, 0, "timer deadline, not armed"},
		{map[int]uint32{apicLVTTimer: deadline | 0xec}, 5, 105, "timer deadline, in 100 cycles"},
		{
			map[int]uint32{apicLVTTimer: deadline | 0xec, apicIRR + 0x70: 1<<12 | 1<<31, apicISR + 0x10: 1},
			105, 5,
			"timer deadline, passed 100 cycles ago; vectors pending: 236 255; in service: 32",
		},
	} {
		require.Equal(t, tt.want, newAPIC(state(tt.registers), tt.tsc, tt.deadline).String())
	}
}
