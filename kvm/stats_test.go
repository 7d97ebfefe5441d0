package kvm_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/kvm"
)

func TestStats(t *testing.T) {
	g := newGuest(t, []byte{
		0xe6, 0x80, // out 0x80, al
		0xeb, 0xfc, // jmp to the start
	}, nil)
	g.need(t, kvm.CapBinaryStatsFD)
	cpu, err := g.cpu.Stats()
	require.NoError(t, err)
	defer func() { require.NoError(t, cpu.Close()) }()
	vm, err := g.vm.Stats()
	require.NoError(t, err)
	defer func() { require.NoError(t, vm.Close()) }()

	before, err := cpu.Read()
	require.NoError(t, err)
	require.Contains(t, before, "exits")
	for range 50 {
		run[*kvm.IOExit](t, g)
	}
	after, err := cpu.Read()
	require.NoError(t, err)
	require.GreaterOrEqual(t, after["exits"], before["exits"]+50)

	ofVM, err := vm.Read()
	require.NoError(t, err)
	require.Contains(t, ofVM, "mmu_cache_miss")
	require.NotContains(t, ofVM, "exits", "that is a vCPU's")
}
