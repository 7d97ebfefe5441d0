package kvm_test

import (
	"encoding/binary"
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
	faultAddr = 0x0f00 // where all interrupts go at first
	codeAddr  = 0x1000
	stackAddr = 0x8000
	memSize   = 1 << 20
	faultPort = 0xee
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
	// An exception that nobody expects ends in an exit that nobody expects.
	copy(g.mem[faultAddr:], []byte{0xe6, faultPort, 0xf4}) // out faultPort, al; hlt
	for v := range 256 {
		g.handle(uint8(v), faultAddr)
	}
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

// protect switches to flat 32-bit protected mode, without an interrupt table.
func (g *guest) protect(t testing.TB) {
	t.Helper()
	s, err := g.cpu.Sregs()
	require.NoError(t, err)
	s.CR0 |= 1 // PE
	s.IDT = kvm.Descriptor{}
	data := kvm.Segment{Selector: 16, Limit: 0xffffffff, Typ: 3, Present: 1, DB: 1, S: 1, G: 1}
	s.DS, s.ES, s.FS, s.GS, s.SS = data, data, data, data, data
	s.CS = data
	s.CS.Selector, s.CS.Typ = 8, 11
	require.NoError(t, g.cpu.SetSregs(&s))
}

// handle points a vector of the real-mode interrupt table to addr.
func (g *guest) handle(vector uint8, addr uint16) {
	binary.LittleEndian.PutUint32(g.mem[4*int(vector):], uint32(addr))
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
