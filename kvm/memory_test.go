package kvm_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/kvm"
)

const pages = memSize / 4096

// storeCode stores to page 5 each time it is run.
var storeCode = []byte{
	0xa2, 0x00, 0x50, // mov [0x5000], al
	0xf4, // hlt
}

func TestDirtyLog(t *testing.T) {
	g := newGuest(t, storeCode, nil)
	log := func() uint64 {
		bitmap, err := g.vm.DirtyLog(0, pages)
		require.NoError(t, err)
		require.Len(t, bitmap, pages/64)
		return bitmap[0]
	}
	log()
	require.Zero(t, log(), "reading it empties it")
	for range 2 {
		g.start(t, codeAddr)
		run[*kvm.HaltExit](t, g)
		// KVM may call a page written that it has only mapped for writing, as
		// the one with the code.
		got := log()
		require.NotZero(t, got&(1<<5), "page 5 is written")
		require.Zero(t, got&(1<<6), "page 6 is not")
		require.Zero(t, log())
	}

	_, err := g.vm.DirtyLog(3, pages)
	require.ErrorIs(t, err, unix.ENOENT)
	require.ErrorContains(t, err, "KVM_GET_DIRTY_LOG slot 3")
	_, err = g.vm.DirtyLog(0, 0)
	require.ErrorIs(t, err, unix.EINVAL)
}

func TestClearDirtyLog(t *testing.T) {
	g := newGuest(t, storeCode, func(g *guest) {
		g.need(t, kvm.CapManualDirtyLog2)
		require.NoError(t, g.vm.EnableCap(kvm.CapManualDirtyLog2, 0, 1))
	})
	run[*kvm.HaltExit](t, g)
	for range 2 {
		bitmap, err := g.vm.DirtyLog(0, pages)
		require.NoError(t, err)
		require.NotZero(t, bitmap[0]&(1<<5), "reading it does not empty it")
	}
	require.NoError(t, g.vm.ClearDirtyLog(0, 0, 64, []uint64{1 << 5}))
	bitmap, err := g.vm.DirtyLog(0, pages)
	require.NoError(t, err)
	require.Zero(t, bitmap[0]&(1<<5))

	g.start(t, codeAddr)
	run[*kvm.HaltExit](t, g)
	bitmap, err = g.vm.DirtyLog(0, pages)
	require.NoError(t, err)
	require.NotZero(t, bitmap[0]&(1<<5), "and is written again")

	require.ErrorIs(t, g.vm.ClearDirtyLog(0, 0, 65, []uint64{0}), unix.EINVAL, "the bitmap is too short")
	require.ErrorIs(t, g.vm.ClearDirtyLog(0, 1, 64, []uint64{0}), unix.EINVAL, "first is no multiple of 64")
}

func TestMemoryRegionErrorsSayWhere(t *testing.T) {
	g := newGuest(t, nil, nil)
	mem := mapMemory(t, 8192)
	region := kvm.MemoryRegion{Slot: 1, GPA: memSize - 4096, Size: 8192, HVA: addressOf(mem)}
	err := g.vm.SetMemoryRegion(region)
	require.ErrorIs(t, err, unix.EEXIST, "overlaps slot 0")
	require.ErrorContains(t, err, "KVM_SET_USER_MEMORY_REGION slot 1 gpa 0xff000 size 0x2000")

	region.GPA = memSize + 1
	require.ErrorIs(t, g.vm.SetMemoryRegion(region), unix.EINVAL, "not on a page")

	region.GPA = memSize
	require.NoError(t, g.vm.SetMemoryRegion(region))
	region.Size = 0
	require.NoError(t, g.vm.SetMemoryRegion(region), "deleted")
}

// A store is what DrainCoalesced gives, with data of its own.
type store struct {
	addr uint64
	pio  bool
	data string
}

func drain(c *kvm.VCPU) []store {
	var s []store
	c.DrainCoalesced(func(x kvm.CoalescedStore) { s = append(s, store{x.Addr, x.PIO, string(x.Data)}) })
	return s
}

func TestCoalescedPorts(t *testing.T) {
	g := newGuest(t, []byte{
		0xba, 0x00, 0x03, // mov dx, 0x300
		0xb8, 'a', 'b', // mov ax, 'ab'
		0xee, // out dx, al
		0xef, // out dx, ax
		0xf4, // hlt
	}, nil)
	g.need(t, kvm.CapCoalescedPIO)
	require.NoError(t, g.vm.RegisterCoalesced(0x300, 2, true))
	require.Empty(t, drain(g.cpu))
	run[*kvm.HaltExit](t, g)
	require.Equal(t, []store{{0x300, true, "a"}, {0x300, true, "ab"}}, drain(g.cpu))
	require.Empty(t, drain(g.cpu))

	require.NoError(t, g.vm.UnregisterCoalesced(0x300, 2, true))
	g.start(t, codeAddr)
	g.expectPort(t, 0x300)
	require.Empty(t, drain(g.cpu))
}

// TestCoalescedMemory has more stores than the ring has room for. A full ring
// ends Run; older KVM (seen on Linux 6.1) takes a ring for full that is
// not. Either way the order must hold.
func TestCoalescedMemory(t *testing.T) {
	g := newGuest(t, []byte{
		0xb8, 0xff, 0xff, // mov ax, 0xffff
		0x8e, 0xd8, // mov ds, ax
		0xb9, 0xc8, 0x00, // mov cx, 200
		0x88, 0x0e, 0x10, 0x00, // mov [0x10], cl: address 0x100000
		0xe2, 0xfa, // loop to the store
		0xf4, // hlt
	}, nil)
	g.need(t, kvm.CapCoalescedMMIO)
	require.NoError(t, g.vm.RegisterCoalesced(0x100000, 8, false))
	for range 5 {
		g.start(t, codeAddr)
		var got []store
		exits := 0
		for halted := false; !halted; exits++ {
			exit, err := g.cpu.Run()
			require.NoError(t, err)
			got = append(got, drain(g.cpu)...)
			if m, ok := exit.(*kvm.MMIOExit); ok {
				got = append(got, store{m.Addr, false, string(m.Data)})
			} else {
				require.IsType(t, &kvm.HaltExit{}, exit)
				halted = true
			}
		}
		require.Less(t, exits, 10, "stores are collected")
		require.Len(t, got, 200)
		for i, s := range got {
			require.Equal(t, store{0x100000, false, string([]byte{byte(200 - i)})}, s)
		}
	}
}
