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
		require.Equal(t, uint64(1)<<5, log())
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

func TestCoalescedMemoryWrapsAround(t *testing.T) {
	g := newGuest(t, []byte{
		0xb8, 0xff, 0xff, // mov ax, 0xffff
		0x8e, 0xd8, // mov ds, ax
		0xb9, 0x64, 0x00, // mov cx, 100
		0x88, 0x0e, 0x10, 0x00, // mov [0x10], cl: address 0x100000
		0xe2, 0xfa, // loop to the store
		0xf4, // hlt
	}, nil)
	g.need(t, kvm.CapCoalescedMMIO)
	require.NoError(t, g.vm.RegisterCoalesced(0x100000, 8, false))
	for range 5 { // 500 stores in a ring of 170
		g.start(t, codeAddr)
		run[*kvm.HaltExit](t, g)
		got := drain(g.cpu)
		require.Len(t, got, 100)
		for i, s := range got {
			require.Equal(t, store{0x100000, false, string([]byte{byte(100 - i)})}, s)
		}
	}
}

func TestFullCoalescedRingEndsRun(t *testing.T) {
	g := newGuest(t, []byte{
		0xe6, 0x30, // out 0x30, al
		0xeb, 0xfc, // jmp to the start
	}, nil)
	g.need(t, kvm.CapCoalescedPIO)
	require.NoError(t, g.vm.RegisterCoalesced(0x30, 1, true))
	g.expectPort(t, 0x30)
	full := len(drain(g.cpu))
	require.Positive(t, full)
	g.expectPort(t, 0x30)
	require.Len(t, drain(g.cpu), full)
}
