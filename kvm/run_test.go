package kvm_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/kvm"
)

func TestPortOutAndIn(t *testing.T) {
	g := newGuest(t, []byte{
		0xb0, 'x', // mov al, 'x'
		0xe6, 0x80, // out 0x80, al
		0xba, 0xf8, 0x03, // mov dx, 0x3f8
		0x66, 0xed, // in eax, dx
		0x66, 0xe7, 0x81, // out 0x81, eax
		0xf4, // hlt
	}, nil)

	out := run[*kvm.IOExit](t, g)
	require.Equal(t, kvm.IOExit{Size: 1, Port: 0x80, Count: 1, Data: []byte{'x'}}, *out)
	require.Equal(t, "io", out.Reason())

	in := run[*kvm.IOExit](t, g)
	require.True(t, in.In)
	require.Equal(t, uint16(0x3f8), in.Port)
	require.Equal(t, 4, in.Size)
	require.Len(t, in.Data, 4)
	copy(in.Data, []byte{1, 2, 3, 4})

	out = run[*kvm.IOExit](t, g)
	require.Equal(t, kvm.IOExit{Size: 4, Port: 0x81, Count: 1, Data: []byte{1, 2, 3, 4}}, *out)

	require.Equal(t, "hlt", run[*kvm.HaltExit](t, g).Reason())
}
