package kvm_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/kvm"
)

// newIdleGuest has an interrupt controller and no code.
func newIdleGuest(t *testing.T) *guest {
	t.Helper()
	return newGuest(t, nil, func(g *guest) { require.NoError(t, g.vm.CreateIRQChip()) })
}

// roundTrip reads a state, changes it, writes it, and expects to read it again.
func roundTrip[T any](t *testing.T, read func() (T, error), write func(*T) error, change func(*T)) {
	t.Helper()
	want, err := read()
	require.NoError(t, err)
	change(&want)
	require.NoError(t, write(&want))
	got, err := read()
	require.NoError(t, err)
	require.Equal(t, want, got)
}

func TestRegisterStateRoundTrips(t *testing.T) {
	g := newIdleGuest(t)
	c := g.cpu
	t.Run("regs", func(t *testing.T) {
		roundTrip(t, c.Regs, c.SetRegs, func(r *kvm.Regs) {
			r.RAX, r.R15, r.RIP = 0x1122334455667788, 15, 0x2000
		})
	})
	t.Run("sregs", func(t *testing.T) {
		roundTrip(t, c.Sregs, c.SetSregs, func(s *kvm.Sregs) {
			s.DS.Selector, s.DS.Base, s.CR2, s.GDT.Base, s.GDT.Limit = 0x40, 0x400, 0xdead000, 0x3000, 0x17
		})
	})
	t.Run("fpu", func(t *testing.T) {
		roundTrip(t, c.FPU, c.SetFPU, func(f *kvm.FPU) {
			f.FCW, f.LastIP = 0x37f, 0x1234
			f.XMM[3] = [16]uint8{1, 2, 3}
			f.FPR[1] = [16]uint8{9, 8, 7}
		})
	})
	t.Run("debug registers", func(t *testing.T) {
		roundTrip(t, c.DebugRegs, c.SetDebugRegs, func(d *kvm.DebugRegs) { d.DB[1], d.DB[3] = 0x1000, 0x2000 })
	})
	t.Run("events", func(t *testing.T) {
		roundTrip(t, c.Events, c.SetEvents, func(e *kvm.VCPUEvents) { e.N.Masked = 1 })
	})
	t.Run("mp state", func(t *testing.T) {
		roundTrip(t, c.MPState, c.SetMPState, func(m *kvm.MPState) { m.State = kvm.MPHalted })
	})
	t.Run("lapic", func(t *testing.T) {
		roundTrip(t, c.LAPIC, c.SetLAPIC, func(l *kvm.LAPICState) { l.Regs[0xd3] = 0x02 }) // LDR
	})
	t.Run("xcrs", func(t *testing.T) {
		g.need(t, kvm.CapXCRS)
		roundTrip(t, c.XCRS, c.SetXCRS, func(*kvm.XCRS) {})
		x, err := c.XCRS()
		require.NoError(t, err)
		require.Equal(t, uint32(1), x.NrXRCS)
		require.Equal(t, uint64(1), x.Registers[0].Value&1, "XCR0 has x87")
	})
}

func TestXSaveCarriesFPUState(t *testing.T) {
	g := newIdleGuest(t)
	g.need(t, kvm.CapXSave)
	saved, err := g.cpu.XSave()
	require.NoError(t, err)
	size, err := g.vm.CheckExtension(kvm.CapXSave2)
	require.NoError(t, err)
	require.Len(t, saved, max(size, 4096))

	// Intel SDM volume 1 §13.4: MXCSR, XMM0, and XSTATE_BV that calls SSE valid.
	copy(saved[24:], []byte{0xbf, 0x1f})
	copy(saved[160:], []byte{0xde, 0xad})
	saved[512] |= 1 << 1
	require.NoError(t, g.cpu.SetXSave(saved))
	got, err := g.cpu.XSave()
	require.NoError(t, err)
	require.Equal(t, saved, got)
	f, err := g.cpu.FPU()
	require.NoError(t, err)
	require.Equal(t, [16]uint8{0xde, 0xad}, f.XMM[0])

	err = g.cpu.SetXSave(saved[:100])
	require.ErrorIs(t, err, unix.EINVAL)
	require.ErrorContains(t, err, "of 100 bytes, need")
}

func TestMSRs(t *testing.T) {
	g := newIdleGuest(t)
	const (
		sysenterCS = 0x174
		pat        = 0x277
		unknown    = 0xdead0000
	)
	require.NoError(t, g.cpu.SetMSRs([]kvm.MSR{{Index: pat, Data: 0x0606060606060606}, {Index: sysenterCS, Data: 0x10}}))
	msrs := []kvm.MSR{{Index: sysenterCS}, {Index: pat}}
	require.NoError(t, g.cpu.MSRs(msrs))
	require.Equal(t, []kvm.MSR{{Index: sysenterCS, Data: 0x10}, {Index: pat, Data: 0x0606060606060606}}, msrs)
	require.NoError(t, g.cpu.MSRs(nil))

	list, err := g.sys.MSRList()
	require.NoError(t, err)
	require.Contains(t, list, uint32(sysenterCS))

	t.Run("an unknown one is named", func(t *testing.T) {
		msrs := []kvm.MSR{{Index: pat}, {Index: unknown}, {Index: sysenterCS}}
		var e *kvm.MSRError
		err := g.cpu.MSRs(msrs)
		require.ErrorIs(t, err, kvm.ErrMSR)
		require.ErrorAs(t, err, &e)
		require.Equal(t, kvm.MSRError{Op: "KVM_GET_MSRS", Index: unknown, Done: 1, Count: 3}, *e)
		require.Equal(t, uint64(0x0606060606060606), msrs[0].Data, "those before it are read")
		require.Zero(t, msrs[2].Data)

		err = g.cpu.SetMSRs([]kvm.MSR{{Index: unknown, Data: 7}})
		require.ErrorIs(t, err, kvm.ErrMSR)
		require.EqualError(t, err, "KVM_SET_MSRS: KVM refused an MSR: 0xdead0000 (value 0x7, number 1 of 1)")
	})
}

func TestFeatureMSRs(t *testing.T) {
	g := newIdleGuest(t)
	g.need(t, kvm.CapGetMSRFeatures)
	list, err := g.sys.FeatureMSRList()
	require.NoError(t, err)
	for _, index := range list {
		require.NoError(t, g.sys.FeatureMSRs([]kvm.MSR{{Index: index}}))
	}
	require.ErrorIs(t, g.sys.FeatureMSRs([]kvm.MSR{{Index: 0xdead0000}}), kvm.ErrMSR)
}

func TestCPUID(t *testing.T) {
	g := newIdleGuest(t)
	supported, err := g.sys.SupportedCPUID()
	require.NoError(t, err)
	require.Greater(t, len(supported), 10)
	got, err := g.cpu.CPUID()
	require.NoError(t, err)
	require.Empty(t, got)
	require.NoError(t, g.cpu.SetCPUID(supported))
	got, err = g.cpu.CPUID()
	require.NoError(t, err)
	require.Len(t, got, len(supported))
	require.Equal(t, supported[0], got[0])

	emulated, err := g.sys.EmulatedCPUID()
	require.NoError(t, err)
	require.NotEmpty(t, emulated)

	err = g.cpu.SetCPUID(make([]kvm.CPUIDEntry, 300))
	require.ErrorIs(t, err, unix.E2BIG)
	require.ErrorContains(t, err, "KVM_SET_CPUID2 vCPU 0, 300 entries")
}

func TestClock(t *testing.T) {
	g := newIdleGuest(t)
	const day = 24 * 3600 * 1e9
	require.NoError(t, g.vm.SetClock(&kvm.ClockData{Clock: day}))
	c, err := g.vm.Clock()
	require.NoError(t, err)
	require.GreaterOrEqual(t, c.Clock, uint64(day))
	require.Less(t, c.Clock, uint64(2*day))
	require.ErrorIs(t, g.vm.SetClock(&kvm.ClockData{Flags: 1 << 31}), unix.EINVAL)
}

func TestTSCKHz(t *testing.T) {
	g := newIdleGuest(t)
	g.need(t, kvm.CapGetTSCKHz)
	khz, err := g.cpu.TSCKHz()
	require.NoError(t, err)
	require.Positive(t, khz)
	// Not the same again: where Linux has corrected its own rate since KVM was loaded,
	// by what it measured later, that can be one that KVM takes for too low.
	faster := khz + khz/50
	require.NoError(t, g.cpu.SetTSCKHz(faster))
	now, err := g.cpu.TSCKHz()
	require.NoError(t, err)
	require.Equal(t, faster, now)
	g.need(t, kvm.CapVMTSCControl)
	require.NoError(t, g.vm.SetTSCKHz(khz))
}

func TestKVMClockCtrlNeedsAGuestWithKVMClock(t *testing.T) {
	g := newIdleGuest(t)
	g.need(t, kvm.CapKVMClockCtrl)
	require.ErrorIs(t, g.cpu.KVMClockCtrl(), unix.EINVAL)
}

func TestTranslate(t *testing.T) {
	g := newIdleGuest(t)
	tr, err := g.cpu.Translate(0x1234)
	require.NoError(t, err)
	require.Equal(t, uint8(1), tr.Valid)
	require.Equal(t, uint64(0x1234), tr.PhysicalAddress, "real mode has no page tables")
}

func TestSingleStep(t *testing.T) {
	g := newGuest(t, []byte{0x90, 0x90, 0x40, 0x90}, nil) // nop; nop; inc ax; nop
	g.need(t, kvm.CapSetGuestDebug)
	require.NoError(t, g.cpu.SetGuestDebug(&kvm.GuestDebug{Control: kvm.DebugEnable | kvm.DebugSingleStep}))
	for i := range uint64(3) {
		d := run[*kvm.DebugExit](t, g)
		require.Equal(t, codeAddr+1+i, d.PC)
		require.Equal(t, uint32(1), d.Exception, "#DB")
		require.NotZero(t, d.DR6&(1<<14), "BS")
	}
	r, err := g.cpu.Regs()
	require.NoError(t, err)
	require.Equal(t, uint64(1), r.RAX)
}

func TestSignalMask(t *testing.T) {
	g := newIdleGuest(t)
	require.NoError(t, g.cpu.SetSignalMask(1<<(uint(unix.SIGUSR1)-1)))
}

func TestEnableCapRefusesWhatIsUnknown(t *testing.T) {
	g := newIdleGuest(t)
	err := g.vm.EnableCap(kvm.Cap(9999), 0, 1)
	require.ErrorIs(t, err, unix.EINVAL)
	require.ErrorContains(t, err, "KVM_ENABLE_CAP KVM_CAP_9999")
	require.Error(t, g.cpu.EnableCap(kvm.Cap(9999), 0))
	require.ErrorIs(t, g.vm.EnableCap(kvm.CapSplitIRQChip, 0, 1, 2, 3, 4, 5), unix.E2BIG)
}
