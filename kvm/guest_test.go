package kvm_test

import (
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/kvm"
	"github.com/huskvm/husk/kvm/kvmtest"
)

// A guest is a VM with memory from 0 and one vCPU in real mode.
type guest struct {
	sys *kvm.System
	vm  *kvm.VM
	cpu *kvm.VCPU
	mem []byte
}

const (
	codeAddr  = 0x1000
	stackAddr = 0x8000
	memSize   = 1 << 20
)

// newGuest makes a guest whose first instruction is code's first byte. prepare
// is called before the vCPU is made, and may be nil.
func newGuest(t testing.TB, code []byte, prepare func(*guest)) *guest {
	t.Helper()
	g := &guest{sys: kvmtest.Need(t)}
	var err error
	g.vm, err = g.sys.CreateVM()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, g.vm.Close()) })

	g.mem = mapMemory(t, memSize)
	copy(g.mem[codeAddr:], code)
	require.NoError(t, g.vm.SetMemoryRegion(kvm.MemoryRegion{
		Slot: 0, Flags: kvm.MemLogDirtyPages, Size: memSize, HVA: addressOf(g.mem),
	}))
	require.NoError(t, g.vm.SetIdentityMapAddr(0xfffbc000))
	require.NoError(t, g.vm.SetTSSAddr(0xfffbd000))
	if prepare != nil {
		prepare(g)
	}
	g.cpu, err = g.vm.CreateVCPU(0)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, g.cpu.Close()) })
	g.start(t, codeAddr)

	// KVM wants a vCPU to stay on its thread.
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
	return g
}

// start sets real mode with all segments at 0 and the instruction pointer at ip.
func (g *guest) start(t testing.TB, ip uint64) {
	t.Helper()
	s, err := g.cpu.Sregs()
	require.NoError(t, err)
	for _, seg := range []*kvm.Segment{&s.CS, &s.DS, &s.ES, &s.FS, &s.GS, &s.SS} {
		seg.Base, seg.Selector, seg.Limit = 0, 0, 0xffff
	}
	require.NoError(t, g.cpu.SetSregs(&s))
	require.NoError(t, g.cpu.SetRegs(&kvm.Regs{RIP: ip, RSP: stackAddr, RFLAGS: 2}))
}

// run runs the guest to its next exit, which must be of type E.
func run[E kvm.Exit](t testing.TB, g *guest) E {
	t.Helper()
	exit, err := g.cpu.Run()
	require.NoError(t, err)
	e, ok := exit.(E)
	require.Truef(t, ok, "exit %s: %+v", exit.Reason(), exit)
	return e
}

// need skips the test where the VM lacks an extension.
func (g *guest) need(t testing.TB, c kvm.Cap) {
	t.Helper()
	n, err := g.vm.CheckExtension(c)
	require.NoError(t, err)
	if n == 0 {
		t.Skipf("this KVM has no %v", c)
	}
}

func mapMemory(t testing.TB, size int) []byte {
	t.Helper()
	mem, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, unix.Munmap(mem)) })
	return mem
}
