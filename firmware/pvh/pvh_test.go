package pvh_test

import (
	"encoding/hex"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/firmware/e820"
	"github.com/huskvm/husk/firmware/pvh"
)

// unhex is the bytes of hexadecimal text with blanks.
func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	require.NoError(t, err)
	return b
}

// The layouts are spelled out from start_info.h.
func TestStartInfo(t *testing.T) {
	got := pvh.StartInfo{
		Modules: 2, ModuleList: 0x1122334455667788, CommandLine: 0x20000,
		RSDP: 0xe0000, MemMap: 0x7000, MemEntries: 3,
	}.Append([]byte{0xaa})
	require.Len(t, got, 1+pvh.StartInfoSize)
	require.Equal(t, unhex(t, `aa
		78c56e33 01000000 00000000 02000000
		8877665544332211 0000020000000000
		00000e0000000000 0070000000000000
		03000000 00000000`), got)
}

func TestModule(t *testing.T) {
	got := pvh.Module{Addr: 0x7000000, Size: 0x123456}.Append(nil)
	require.Len(t, got, pvh.ModuleSize)
	require.Equal(t, unhex(t, `0000000700000000 5634120000000000 0000000000000000 0000000000000000`), got)
}

func TestMemMap(t *testing.T) {
	got := pvh.AppendMemMap(nil, []e820.Entry{
		{Addr: 0, Size: 0x9fc00, Type: e820.RAM},
		{Addr: 0x100000000, Size: 0x80000000, Type: e820.ACPI},
	})
	require.Len(t, got, 2*pvh.MemMapSize)
	require.Equal(t, unhex(t, `
		0000000000000000 00fc090000000000 01000000 00000000
		0000000001000000 0000008000000000 03000000 00000000`), got)
}
