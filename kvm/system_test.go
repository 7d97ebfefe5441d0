package kvm_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/kvm"
	"github.com/huskvm/husk/kvm/kvmtest"
)

func TestOpenNamesPathAndRemedy(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "kvm")
	_, err := kvm.Open(missing)
	require.ErrorIs(t, err, os.ErrNotExist)
	require.ErrorContains(t, err, missing)
	require.ErrorContains(t, err, "modprobe kvm_amd")

	_, err = kvm.Open(os.DevNull)
	require.ErrorIs(t, err, unix.ENOTTY)
	require.ErrorContains(t, err, os.DevNull+" is not a usable KVM device: KVM_GET_API_VERSION")

	if os.Getuid() != 0 {
		locked := filepath.Join(t.TempDir(), "locked")
		require.NoError(t, os.WriteFile(locked, nil, 0))
		_, err = kvm.Open(locked)
		require.ErrorIs(t, err, os.ErrPermission)
		require.ErrorContains(t, err, "usermod -aG kvm")
	}
}

func TestSystem(t *testing.T) {
	s := kvmtest.Need(t)
	v, err := s.APIVersion()
	require.NoError(t, err)
	require.Equal(t, 12, v)
	n, err := s.CheckExtension(kvm.CapUserMemory)
	require.NoError(t, err)
	require.Equal(t, 1, n)
	n, err = s.CheckExtension(kvm.Cap(9999))
	require.NoError(t, err)
	require.Zero(t, n)
	size, err := s.VCPUMmapSize()
	require.NoError(t, err)
	require.GreaterOrEqual(t, size, 4096)
}

func TestCapString(t *testing.T) {
	require.Equal(t, "KVM_CAP_IRQCHIP", kvm.CapIRQChip.String())
	require.Equal(t, "KVM_CAP_5", kvm.Cap(5).String())
	require.Equal(t, "KVM_CAP_4294967295", kvm.Cap(1<<32-1).String())
}

// held counts what the process has open and mapped of KVM. Threads of other
// tests do not disturb it: no test here runs in parallel.
func held(t *testing.T) (files, mappings int) {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	for _, fd := range fds {
		link, err := os.Readlink("/proc/self/fd/" + fd.Name())
		if err == nil && strings.Contains(link, "kvm") {
			files++
		}
	}
	maps, err := os.ReadFile("/proc/self/maps")
	require.NoError(t, err)
	return files, strings.Count(string(maps), "kvm-vcpu")
}

func TestNothingIsLeaked(t *testing.T) {
	files, mappings := held(t)
	t.Run("guest", func(t *testing.T) {
		g := newGuest(t, []byte{0xf4}, nil)
		run[*kvm.HaltExit](t, g)
		f, m := held(t)
		require.Equal(t, []int{files + 3, mappings + 1}, []int{f, m}, "system, VM, vCPU")

		_, err := g.vm.CreateVCPU(0)
		require.ErrorIs(t, err, unix.EEXIST)
		require.ErrorContains(t, err, "KVM_CREATE_VCPU 0")
		g.vm.SetMmapSize(1 << 47)
		_, err = g.vm.CreateVCPU(1)
		require.ErrorIs(t, err, unix.ENOMEM, "its pages cannot be mapped")
		f, m = held(t)
		require.Equal(t, []int{files + 3, mappings + 1}, []int{f, m}, "failures are unwound")

		require.NoError(t, g.cpu.Close())
		require.NoError(t, g.cpu.Close(), "again is no error")
		require.NoError(t, g.vm.Close())
		require.NoError(t, g.vm.Close())
	})
	f, m := held(t)
	require.Equal(t, []int{files, mappings}, []int{f, m})
}

func TestManyVMsAtOnce(t *testing.T) {
	s := kvmtest.Need(t)
	const vms = 24
	errs := make([]error, vms)
	var wg sync.WaitGroup
	for i := range vms {
		mem := mapMemory(t, memSize)
		wg.Go(func() { errs[i] = countTo(s, mem, byte(i)) })
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
}

// countTo runs a guest that counts down from n and tells each step.
func countTo(s *kvm.System, mem []byte, n byte) (err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	vm, err := s.CreateVM()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, vm.Close()) }()
	copy(mem[codeAddr:], []byte{
		0xe6, 0x80, // out 0x80, al
		0xfe, 0xc8, // dec al
		0x79, 0xfa, // jns to the start
		0xf4, // hlt
	})
	if err := vm.SetMemoryRegion(kvm.MemoryRegion{Size: uint64(len(mem)), HVA: addressOf(mem)}); err != nil {
		return err
	}
	cpu, err := vm.CreateVCPU(0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cpu.Close()) }()
	sregs, err := cpu.Sregs()
	if err != nil {
		return err
	}
	sregs.CS.Base, sregs.CS.Selector = 0, 0
	if err := errors.Join(cpu.SetSregs(&sregs), cpu.SetRegs(&kvm.Regs{RIP: codeAddr, RAX: uint64(n), RFLAGS: 2})); err != nil {
		return err
	}
	for want := int(n); ; want-- {
		exit, err := cpu.Run()
		for errors.Is(err, unix.EINTR) {
			exit, err = cpu.Run()
		}
		if err != nil {
			return err
		}
		switch e := exit.(type) {
		case *kvm.IOExit:
			if int(e.Data[0]) != want {
				return fmt.Errorf("VM %d says %d, want %d", n, e.Data[0], want)
			}
		case *kvm.HaltExit:
			if want != -1 {
				return fmt.Errorf("VM %d halts at %d", n, want)
			}
			return nil
		default:
			return fmt.Errorf("VM %d: %s %+v", n, exit.Reason(), exit)
		}
	}
}
