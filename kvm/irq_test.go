package kvm_test

import (
	"encoding/binary"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/kvm"
)

// irqVector is where irqCode has the PIC deliver IRQ 5.
const (
	irqGSI      = 5
	irqVector   = 0x25
	handlerAddr = 0x1800
)

// irqCode sets up the master PIC for IRQ 5 alone, tells port 0x81, and halts for
// interrupts.
var irqCode = []byte{
	0xb0, 0x11, 0xe6, 0x20, // ICW1: edge, cascade, ICW4
	0xb0, 0x20, 0xe6, 0x21, // ICW2: vectors from 0x20
	0xb0, 0x04, 0xe6, 0x21, // ICW3
	0xb0, 0x01, 0xe6, 0x21, // ICW4: 8086
	0xb0, 0xdf, 0xe6, 0x21, // mask all but IRQ 5
	0xe6, 0x81, // out 0x81, al
	0xfb,       // sti
	0xf4,       // hlt
	0xeb, 0xfd, // jmp to hlt
}

// handlerCode tells port 0x80, ends the interrupt, and tells port 0x82.
var handlerCode = []byte{
	0xe6, 0x80, // out 0x80, al
	0xb0, 0x20, 0xe6, 0x20, // EOI
	0xe6, 0x82, // out 0x82, al
	0xcf, // iret
}

// newIRQGuest makes a guest with a full interrupt controller that runs irqCode
// up to the point where it can be interrupted.
func newIRQGuest(t *testing.T) *guest {
	t.Helper()
	g := newGuest(t, irqCode, func(g *guest) { require.NoError(t, g.vm.CreateIRQChip()) })
	copy(g.mem[handlerAddr:], handlerCode)
	g.handle(irqVector, handlerAddr)
	g.expectPort(t, 0x81)
	return g
}

// expectPort runs the guest to its next exit, a store to port.
func (g *guest) expectPort(t *testing.T, port uint16) {
	t.Helper()
	out := run[*kvm.IOExit](t, g)
	require.False(t, out.In)
	require.Equal(t, port, out.Port)
}

func newEventFD(t *testing.T) int {
	t.Helper()
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, unix.Close(fd)) })
	return fd
}

func signal(t *testing.T, fd int) {
	t.Helper()
	_, err := unix.Write(fd, binary.NativeEndian.AppendUint64(nil, 1))
	require.NoError(t, err)
}

// signals returns how often fd was signalled since the last call.
func signals(t *testing.T, fd int) uint64 {
	t.Helper()
	b := make([]byte, 8)
	_, err := unix.Read(fd, b)
	if errors.Is(err, unix.EAGAIN) {
		return 0
	}
	require.NoError(t, err)
	return binary.NativeEndian.Uint64(b)
}

func TestIRQLine(t *testing.T) {
	g := newIRQGuest(t)
	for range 2 {
		require.NoError(t, g.vm.SetIRQLine(irqGSI, true))
		g.expectPort(t, 0x80)
		require.NoError(t, g.vm.SetIRQLine(irqGSI, false))
		g.expectPort(t, 0x82)
	}
}

func TestIRQFD(t *testing.T) {
	g := newIRQGuest(t)
	irq := kvm.IRQFD{FD: newEventFD(t), GSI: irqGSI}
	require.NoError(t, g.vm.AssignIRQFD(irq))
	for range 2 {
		signal(t, irq.FD)
		g.expectPort(t, 0x80)
		g.expectPort(t, 0x82)
	}
	err := g.vm.AssignIRQFD(irq)
	require.ErrorIs(t, err, unix.EBUSY, "the eventfd is taken")
	require.ErrorContains(t, err, "KVM_IRQFD")

	require.NoError(t, g.vm.DeassignIRQFD(irq))
	require.NoError(t, g.vm.AssignIRQFD(irq))
}

func TestIRQFDResample(t *testing.T) {
	g := newGuest(t, append([]byte{
		0xba, 0xd0, 0x04, // mov dx, 0x4d0 (ELCR)
		0xb0, 0x20, // mov al, 1<<5: IRQ 5 is level triggered
		0xee, // out dx, al
	}, irqCode...), func(g *guest) { require.NoError(t, g.vm.CreateIRQChip()) })
	g.need(t, kvm.CapIRQFDResample)
	copy(g.mem[handlerAddr:], handlerCode)
	g.handle(irqVector, handlerAddr)
	g.expectPort(t, 0x81)

	irq := kvm.IRQFD{FD: newEventFD(t), GSI: irqGSI, Resample: true, ResampleFD: newEventFD(t)}
	require.NoError(t, g.vm.AssignIRQFD(irq))
	signal(t, irq.FD)
	g.expectPort(t, 0x80)
	require.Zero(t, signals(t, irq.ResampleFD))
	g.expectPort(t, 0x82)
	require.Equal(t, uint64(1), signals(t, irq.ResampleFD))
	require.NoError(t, g.vm.DeassignIRQFD(irq))
}

// enableAPIC sets the local APIC's software enable bit, as the guest would.
func (g *guest) enableAPIC(t *testing.T) {
	t.Helper()
	l, err := g.cpu.LAPIC()
	require.NoError(t, err)
	binary.LittleEndian.PutUint32(l.Regs[0xf0:], 0x1ff)
	require.NoError(t, g.cpu.SetLAPIC(&l))
}

func TestSignalMSI(t *testing.T) {
	g := newIRQGuest(t)
	g.need(t, kvm.CapSignalMSI)
	m := kvm.MSI{Address: 0xfee00000, Data: irqVector}

	delivered, err := g.vm.SignalMSI(m)
	require.NoError(t, err)
	require.False(t, delivered, "the local APIC is off")

	g.enableAPIC(t)
	delivered, err = g.vm.SignalMSI(m)
	require.NoError(t, err)
	require.True(t, delivered)
	g.expectPort(t, 0x80)
}

func TestMSIRouteWithIRQFD(t *testing.T) {
	g := newIRQGuest(t)
	g.enableAPIC(t)
	const gsi = 24
	require.NoError(t, g.vm.SetGSIRouting([]kvm.Route{
		{GSI: irqGSI, Chip: &kvm.ChipPin{Chip: kvm.ChipPICMaster, Pin: irqGSI}},
		{GSI: irqGSI, Chip: &kvm.ChipPin{Chip: kvm.ChipIOAPIC, Pin: irqGSI}},
		{GSI: gsi, MSI: &kvm.MSI{Address: 0xfee00000, Data: irqVector}},
	}))
	irq := kvm.IRQFD{FD: newEventFD(t), GSI: gsi}
	require.NoError(t, g.vm.AssignIRQFD(irq))
	signal(t, irq.FD)
	g.expectPort(t, 0x80)
}

func TestGSIRoutingRefusesWhatIsNotARoute(t *testing.T) {
	g := newIRQGuest(t)
	for _, r := range []kvm.Route{
		{GSI: 7},
		{GSI: 7, Chip: &kvm.ChipPin{}, MSI: &kvm.MSI{}},
		{GSI: 7, Chip: &kvm.ChipPin{Chip: 9}},
		{GSI: 1 << 30, MSI: &kvm.MSI{Address: 0xfee00000}},
	} {
		err := g.vm.SetGSIRouting([]kvm.Route{r})
		require.ErrorIs(t, err, unix.EINVAL)
		require.ErrorContains(t, err, "KVM_SET_GSI_ROUTING")
	}
	require.NoError(t, g.vm.SetGSIRouting(nil))
}

func TestIOEvent(t *testing.T) {
	store := func(v byte) []byte { return []byte{0xb8, v, 0x12, 0xef} } // mov ax, 0x12vv; out dx, ax
	code := []byte{0xba, 0x00, 0x0c}                                    // mov dx, 0xc00
	code = append(code, store(0x33)...)
	code = append(code, store(0x34)...)
	code = append(code, store(0x34)...)
	code = append(code, 0xf4) // hlt
	for _, c := range []struct {
		name    string
		event   kvm.IOEvent
		exits   int
		signals uint64
	}{
		{"any data", kvm.IOEvent{Addr: 0xc00, Len: 2, PIO: true}, 0, 3},
		{"matching data", kvm.IOEvent{Addr: 0xc00, Len: 2, PIO: true, Match: true, Data: 0x1234}, 1, 2},
		{"any length", kvm.IOEvent{Addr: 0xc00, PIO: true}, 0, 3},
		{"other length", kvm.IOEvent{Addr: 0xc00, Len: 4, PIO: true}, 3, 0},
		{"other port", kvm.IOEvent{Addr: 0xc02, Len: 2, PIO: true}, 3, 0},
		{"memory, not a port", kvm.IOEvent{Addr: 0xc00, Len: 2}, 3, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newGuest(t, code, nil)
			c.event.FD = newEventFD(t)
			require.NoError(t, g.vm.AssignIOEvent(c.event))
			for range c.exits {
				g.expectPort(t, 0xc00)
			}
			run[*kvm.HaltExit](t, g)
			require.Equal(t, c.signals, signals(t, c.event.FD))
			require.NoError(t, g.vm.DeassignIOEvent(c.event))

			g.start(t, codeAddr)
			for range 3 {
				g.expectPort(t, 0xc00)
			}
			run[*kvm.HaltExit](t, g)
			require.Zero(t, signals(t, c.event.FD), "after deassign")
		})
	}
}

func TestIOEventOnMemory(t *testing.T) {
	g := newGuest(t, []byte{
		0xb8, 0xff, 0xff, // mov ax, 0xffff
		0x8e, 0xd8, // mov ds, ax
		0xa3, 0x10, 0x00, // mov [0x10], ax: address 0x100000
		0xf4, // hlt
	}, nil)
	event := kvm.IOEvent{FD: newEventFD(t), Addr: 0x100000, Len: 2, Match: true, Data: 0xffff}
	require.NoError(t, g.vm.AssignIOEvent(event))
	err := g.vm.AssignIOEvent(event)
	require.ErrorIs(t, err, unix.EEXIST)
	require.ErrorContains(t, err, "KVM_IOEVENTFD")
	run[*kvm.HaltExit](t, g)
	require.Equal(t, uint64(1), signals(t, event.FD))
}

func TestInterruptWithoutControllerInTheKernel(t *testing.T) {
	g := newGuest(t, []byte{
		0xe6, 0x81, // out 0x81, al
		0xfb,       // sti
		0xeb, 0xfe, // jmp $
	}, nil)
	copy(g.mem[handlerAddr:], handlerCode)
	g.handle(irqVector, handlerAddr)
	g.expectPort(t, 0x81)
	require.False(t, g.cpu.ReadyForInterrupt())

	g.cpu.RequestInterruptWindow(true)
	require.Equal(t, "irq-window", run[*kvm.InterruptWindowExit](t, g).Reason())
	require.True(t, g.cpu.ReadyForInterrupt())
	g.cpu.RequestInterruptWindow(false)
	require.NoError(t, g.cpu.Interrupt(irqVector))
	g.expectPort(t, 0x80)
}

func TestNMI(t *testing.T) {
	g := newIRQGuest(t)
	g.need(t, kvm.CapUserNMI)
	g.handle(2, handlerAddr)
	require.NoError(t, g.cpu.NMI())
	g.expectPort(t, 0x80)
}

func TestChipState(t *testing.T) {
	g := newGuest(t, nil, func(g *guest) {
		require.NoError(t, g.vm.CreateIRQChip())
		require.NoError(t, g.vm.CreatePIT2(kvm.PITSpeakerDummy))
	})
	for _, id := range []uint32{kvm.ChipPICMaster, kvm.ChipPICSlave, kvm.ChipIOAPIC} {
		c, err := g.vm.IRQChip(id)
		require.NoError(t, err)
		require.Equal(t, id, c.ChipID)
		require.NoError(t, g.vm.SetIRQChip(&c))
	}
	c, err := g.vm.IRQChip(kvm.ChipPICMaster)
	require.NoError(t, err)
	c.Chip[2] = 0xa5 // imr
	require.NoError(t, g.vm.SetIRQChip(&c))
	c, err = g.vm.IRQChip(kvm.ChipPICMaster)
	require.NoError(t, err)
	require.Equal(t, byte(0xa5), c.Chip[2])
	_, err = g.vm.IRQChip(7)
	require.ErrorContains(t, err, "KVM_GET_IRQCHIP chip 7: invalid argument")

	p, err := g.vm.PIT2()
	require.NoError(t, err)
	p.Channels[2].Mode, p.Channels[2].Count = 3, 0x1234
	require.NoError(t, g.vm.SetPIT2(&p))
	q, err := g.vm.PIT2()
	require.NoError(t, err)
	require.Equal(t, uint8(3), q.Channels[2].Mode)
	require.Equal(t, uint32(0x1234), q.Channels[2].Count)
}

func TestSplitIRQChip(t *testing.T) {
	g := newGuest(t, nil, func(g *guest) {
		g.need(t, kvm.CapSplitIRQChip)
		require.NoError(t, g.vm.SplitIRQChip(24))
	})
	_, err := g.cpu.LAPIC()
	require.NoError(t, err, "local APICs stay in the kernel")
	_, err = g.vm.IRQChip(kvm.ChipIOAPIC)
	require.Error(t, err, "the I/O APIC does not")
	require.Error(t, g.vm.CreateIRQChip())
}

func TestSplitIRQChipEndOfInterrupt(t *testing.T) {
	g := newGuest(t, []byte{
		0xfb, // sti
		0xf4, // hlt
	}, func(g *guest) {
		g.need(t, kvm.CapSplitIRQChip)
		require.NoError(t, g.vm.SplitIRQChip(24))
	})
	copy(g.mem[handlerAddr:], []byte{
		0x66, 0xb9, 0x0b, 0x08, 0x00, 0x00, // mov ecx, 0x80b (x2APIC EOI)
		0x66, 0x31, 0xc0, // xor eax, eax
		0x66, 0x31, 0xd2, // xor edx, edx
		0x0f, 0x30, // wrmsr
		0xe6, 0x80, // out 0x80, al
		0xe6, 0x80, // out 0x80, al
	})
	g.handle(irqVector, handlerAddr)
	cpuid, err := g.sys.SupportedCPUID()
	require.NoError(t, err)
	require.NoError(t, g.cpu.SetCPUID(cpuid))
	s, err := g.cpu.Sregs()
	require.NoError(t, err)
	s.ApicBase |= 0xc00 // global enable, x2APIC
	require.NoError(t, g.cpu.SetSregs(&s))
	g.enableAPIC(t)

	level := kvm.MSI{Address: 0xfee00000, Data: 1<<15 | 1<<14 | irqVector}
	require.NoError(t, g.vm.SetGSIRouting([]kvm.Route{{GSI: irqGSI, MSI: &level}}))
	delivered, err := g.vm.SignalMSI(level)
	require.NoError(t, err)
	require.True(t, delivered)
	// The exit comes with the next entry into the guest. Where KVM emulates the
	// guest that is after the first OUT.
	exit, err := g.cpu.Run()
	require.NoError(t, err)
	if exit.Reason() == "io" {
		exit, err = g.cpu.Run()
		require.NoError(t, err)
	}
	require.IsType(t, &kvm.IOAPICEOIExit{}, exit)
	eoi := exit.(*kvm.IOAPICEOIExit)
	require.Equal(t, uint8(irqVector), eoi.Vector)
	require.Equal(t, "ioapic-eoi", eoi.Reason())
}
