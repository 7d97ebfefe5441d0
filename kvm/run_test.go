package kvm_test

import (
	"errors"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

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

func TestStringOutWithREP(t *testing.T) {
	g := newGuest(t, []byte{
		0xbe, 0x00, 0x20, // mov si, 0x2000
		0xb9, 0x05, 0x00, // mov cx, 5
		0xba, 0xf8, 0x03, // mov dx, 0x3f8
		0xfc,       // cld
		0xf3, 0x6e, // rep outsb
		0xf4, // hlt
	}, nil)
	copy(g.mem[0x2000:], "hello")

	// KVM is free to give the elements one by one or all at once.
	var got []byte
	for len(got) < 5 {
		out := run[*kvm.IOExit](t, g)
		require.False(t, out.In)
		require.Equal(t, uint16(0x3f8), out.Port)
		require.Len(t, out.Data, out.Size*out.Count)
		got = append(got, out.Data...)
	}
	require.Equal(t, "hello", string(got))
	run[*kvm.HaltExit](t, g)
}

func TestStringInWithREP(t *testing.T) {
	g := newGuest(t, []byte{
		0xbf, 0x00, 0x20, // mov di, 0x2000
		0xb9, 0x06, 0x00, // mov cx, 6
		0xba, 0xf0, 0x01, // mov dx, 0x1f0
		0xfc,       // cld
		0xf3, 0x6d, // rep insw
		0xf4, // hlt
	}, nil)

	var n byte
	for n < 12 {
		in := run[*kvm.IOExit](t, g)
		require.True(t, in.In)
		require.Equal(t, 2, in.Size)
		require.Len(t, in.Data, in.Size*in.Count)
		for i := range in.Data {
			n++
			in.Data[i] = n
		}
	}
	run[*kvm.HaltExit](t, g)
	require.Equal(t, []byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, g.mem[0x2000:0x200c])
}

func TestMMIO(t *testing.T) {
	g := newGuest(t, []byte{
		0xb8, 0xff, 0xff, // mov ax, 0xffff
		0x8e, 0xd8, // mov ds, ax
		0xa0, 0x10, 0x00, // mov al, [0x10]: address 0x100000, behind the memory
		0xe6, 0x80, // out 0x80, al
		0x66, 0xb8, 0x44, 0x33, 0x22, 0x11, // mov eax, 0x11223344
		0x66, 0xa3, 0x14, 0x00, // mov [0x14], eax
		0xf4, // hlt
	}, nil)

	read := run[*kvm.MMIOExit](t, g)
	require.Equal(t, kvm.MMIOExit{Addr: 0x100000, Data: read.Data}, *read)
	require.Len(t, read.Data, 1)
	read.Data[0] = 0x5a
	require.Equal(t, []byte{0x5a}, run[*kvm.IOExit](t, g).Data)

	write := run[*kvm.MMIOExit](t, g)
	require.Equal(t, kvm.MMIOExit{Addr: 0x100004, Write: true, Data: []byte{0x44, 0x33, 0x22, 0x11}}, *write)
	run[*kvm.HaltExit](t, g)
}

func TestStoreToReadOnlyMemoryIsMMIO(t *testing.T) {
	g := newGuest(t, []byte{
		0xb8, 0xff, 0xff, // mov ax, 0xffff
		0x8e, 0xd8, // mov ds, ax
		0xa0, 0x10, 0x00, // mov al, [0x10]: address 0x100000
		0xfe, 0xc0, // inc al
		0xa2, 0x11, 0x00, // mov [0x11], al
		0xf4, // hlt
	}, nil)
	g.need(t, kvm.CapReadOnlyMem)
	rom := mapMemory(t, 4096)
	rom[0] = 0x41
	require.NoError(t, g.vm.SetMemoryRegion(kvm.MemoryRegion{
		Slot: 1, Flags: kvm.MemReadOnly, GPA: 0x100000, Size: 4096, HVA: addressOf(rom),
	}))

	write := run[*kvm.MMIOExit](t, g)
	require.Equal(t, kvm.MMIOExit{Addr: 0x100001, Write: true, Data: []byte{0x42}}, *write)
	run[*kvm.HaltExit](t, g)
	require.Zero(t, rom[1])
}

func TestTripleFault(t *testing.T) {
	g := newGuest(t, []byte{0x0f, 0x0b}, nil) // ud2
	g.protect(t)
	require.Equal(t, "shutdown", run[*kvm.ShutdownExit](t, g).Reason())
}

func TestCodeOutsideMemoryIsAnEmulationError(t *testing.T) {
	g := newGuest(t, []byte{
		0xea, 0x10, 0x00, 0xff, 0xff, // jmp 0xffff:0x10: address 0x100000
	}, nil)
	e := run[*kvm.InternalErrorExit](t, g)
	require.Equal(t, kvm.InternalErrorEmulation, e.Suberror)
	require.Contains(t, e.String(), "could not be emulated")
}

func TestUnknownHypercallIsAnsweredByKVM(t *testing.T) {
	if _, err := os.Stat("/sys/module/kvm_pvm"); err == nil {
		t.Skip("kvm_pvm does not get past VMCALL in real mode")
	}
	g := newGuest(t, []byte{
		0x66, 0xb8, 0x78, 0x56, 0x34, 0x12, // mov eax, 0x12345678
		0x0f, 0x01, 0xc1, // vmcall; KVM puts vmmcall in its place on AMD
		0x66, 0xe7, 0x80, // out 0x80, eax
		0xf4, // hlt
	}, nil)
	out := run[*kvm.IOExit](t, g)
	require.Equal(t, []byte{0x18, 0xfc, 0xff, 0xff}, out.Data, "-KVM_ENOSYS, -1000")
	run[*kvm.HaltExit](t, g)
}

func TestImmediateExitCompletesIO(t *testing.T) {
	g := newGuest(t, []byte{
		0xe4, 0x60, // in al, 0x60
		0xe6, 0x80, // out 0x80, al
	}, nil)
	g.need(t, kvm.CapImmediateExit)
	run[*kvm.IOExit](t, g).Data[0] = 0x77

	g.cpu.SetImmediateExit(true)
	for range 3 {
		exit, err := g.cpu.Run()
		require.ErrorIs(t, err, unix.EINTR)
		require.Nil(t, exit)
	}
	r, err := g.cpu.Regs()
	require.NoError(t, err)
	require.Equal(t, uint64(0x77), r.RAX&0xff)
	require.Equal(t, uint64(codeAddr+2), r.RIP)

	g.cpu.SetImmediateExit(false)
	require.Equal(t, []byte{0x77}, run[*kvm.IOExit](t, g).Data)
}

func TestSignalEndsRun(t *testing.T) {
	g := newGuest(t, []byte{0xeb, 0xfe}, nil) // jmp $
	tid, running, done := unix.Gettid(), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		g.cpu.SetImmediateExit(true)
		for {
			select {
			case <-running:
				return
			default:
				_ = unix.Tgkill(os.Getpid(), tid, unix.SIGURG)
			}
		}
	}()
	exit, err := g.cpu.Run()
	close(running)
	<-done
	require.ErrorIs(t, err, unix.EINTR)
	require.Nil(t, exit)
}

func TestRunDoesNotAllocate(t *testing.T) {
	g := newGuest(t, []byte{
		0xe6, 0x80, // out 0x80, al
		0xe4, 0x60, // in al, 0x60
		0xeb, 0xfa, // jmp to the start
	}, nil)
	require.Zero(t, testing.AllocsPerRun(200, func() {
		if _, err := g.cpu.Run(); err != nil {
			t.Error(err)
		}
	}))
	g.cpu.SetImmediateExit(true)
	require.Zero(t, testing.AllocsPerRun(200, func() {
		if _, err := g.cpu.Run(); !errors.Is(err, unix.EINTR) {
			t.Error(err)
		}
	}))
}

func BenchmarkRun(b *testing.B) {
	g := newGuest(b, []byte{
		0xe6, 0x80, // out 0x80, al
		0xeb, 0xfc, // jmp to the start
	}, nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := g.cpu.Run(); err != nil {
			b.Fatal(err)
		}
	}
}
