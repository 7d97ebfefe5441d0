package acpi

import (
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/arch/x86/x86asm"
)

func TestResetCode(t *testing.T) {
	code := Power{Reset: 0x602, ResetValue: 1}.ResetCode()
	require.LessOrEqual(t, ResetVector+len(code), 1<<20, "the end of real mode's memory")

	var said []string
	for pc := uint64(ResetVector); len(code) > 0; {
		inst, err := x86asm.Decode(code, 16)
		require.NoError(t, err)
		said = append(said, x86asm.IntelSyntax(inst, pc, nil))
		pc += uint64(inst.Len)
		code = code[inst.Len:]
	}
	require.Equal(t, []string{
		"cli", "mov dx, 0x602", "mov al, 0x1", "out dx, al", "hlt", "jmp 0xffff7",
	}, said)
}
