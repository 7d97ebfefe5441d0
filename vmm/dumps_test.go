package vmm

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/vmm/paging"
)

const codeAt = 0x10_0000 // where kernel puts a guest's instructions

var halt = []byte{0xfa, 0xf4} // cli; hlt

// started runs a machine until the test's end, or until stop is called.
func started(t *testing.T, vm *VM) (stop func() *Result) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	var running sync.WaitGroup
	var result *Result
	running.Go(func() {
		var err error
		if result, err = vm.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	stop = func() *Result { cancel(); running.Wait(); return result }
	t.Cleanup(func() { stop() })
	require.Eventually(t, func() bool {
		vm.mu.Lock()
		defer vm.mu.Unlock()
		return vm.running
	}, deadline, time.Millisecond)
	return stop
}

func dumps(t *testing.T, vm *VM) []Dump {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	d, err := vm.Dumps(ctx)
	require.NoError(t, err)
	require.Len(t, d, len(vm.vcpus))
	return d
}

func TestDumpsOfARunningMachine(t *testing.T) {
	cfg := config(t, countRound)
	cfg.CPUs = 2
	vm := newVM(t, cfg)
	require.EqualValues(t, codeAt, dumps(t, vm)[0].Regs.RIP, "before it runs")
	stop := started(t, vm)
	first := make([]byte, 4)
	var d []Dump
	require.Eventually(t, func() bool { // it counts
		d = dumps(t, vm)
		_, err := vm.ReadVirtual(&d[0], counter, first)
		require.NoError(t, err)
		return first[0] != 0
	}, deadline, time.Millisecond)

	require.Equal(t, 0, d[0].CPU)
	require.Equal(t, CPURunning, d[0].State)
	require.Zero(t, d[0].CPL)
	require.False(t, d[0].Interrupts)
	require.Contains(t, []uint64{codeAt, codeAt + 6}, d[0].Regs.RIP)
	code := make([]byte, len(countRound))
	n, err := vm.ReadVirtual(&d[0], codeAt, code)
	require.NoError(t, err)
	require.Equal(t, countRound, code[:n])
	require.Contains(t, string(code), string(d[0].Code[:2]))
	require.Contains(t, d[0].String(), "vCPU 0: running, CPL 0, interrupts off\n")
	require.NotContains(t, d[0].String(), "hint")
	_, err = json.Marshal(d)
	require.NoError(t, err)

	require.Equal(t, 1, d[1].CPU)
	require.Equal(t, CPUWaiting, d[1].State)

	_, err = vm.ReadVirtual(&d[0], 1<<31, code)
	require.Error(t, err, "there is no RAM")

	require.Equal(t, Cancelled, stop().Outcome)
	d = dumps(t, vm)
	require.Contains(t, []uint64{codeAt, codeAt + 6}, d[0].Regs.RIP, "the last state")
}

func TestDumpsOfAHaltedProcessor(t *testing.T) {
	vm := newVM(t, config(t, halt, forever))
	started(t, vm)
	var d []Dump
	require.Eventually(t, func() bool { d = dumps(t, vm); return d[0].State == CPUHalted }, deadline, time.Millisecond)
	require.EqualValues(t, codeAt+2, d[0].Regs.RIP)
	require.Equal(t, CPUHalted, dumps(t, vm)[0].State, "a dump does not wake it")
}

func TestDumpsOfAPausedMachine(t *testing.T) {
	vm := newVM(t, config(t, countRound))
	started(t, vm)
	require.NoError(t, vm.Pause())
	before, after := dumps(t, vm), dumps(t, vm)
	for _, d := range append(before, after...) {
		d.APIC.TSC = 0 // but for the time
	}
	require.Equal(t, before, after, "nothing moves")
	require.NoError(t, vm.Resume())
	dumps(t, vm)
	require.NoError(t, vm.Pause())
	require.Len(t, dumps(t, vm), 1)
}

func TestDumpsAfterATripleFault(t *testing.T) {
	vm := newVM(t, config(t, tripleFlt))
	r := run(t, vm)
	require.Equal(t, TripleFault, r.Outcome)
	require.NotEmpty(t, dumps(t, vm)[0].String())
}

// TestDumpsDoNotWaitForAStuckProcessor longer than their context says.
func TestDumpsDoNotWaitForAStuckProcessor(t *testing.T) {
	cfg := config(t, forever)
	cfg.CPUs = 2
	vm := newVM(t, cfg)
	started(t, vm)
	stuck := make(chan struct{})
	release := sync.OnceFunc(func() { close(stuck) })
	t.Cleanup(release)
	require.True(t, vm.vcpus[0].post(t.Context(), func(context.Context) { <-stuck }))
	named := false
	for range 2 * cap(vm.vcpus[0].mail) { // a full mailbox is no trap either
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		d, err := vm.Dumps(ctx)
		cancel()
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.LessOrEqual(t, len(d), 1)
		named = named || strings.Contains(err.Error(), "vCPU 0 ")
	}
	require.True(t, named)
	pausing := make(chan error)
	go func() { pausing <- vm.Pause() }()
	require.Eventually(t, func() bool {
		free := vm.mu.TryLock()
		if free {
			vm.mu.Unlock()
		}
		return !free
	}, deadline, time.Millisecond)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancel()
	_, err := vm.Dumps(ctx)
	require.ErrorIs(t, err, context.DeadlineExceeded, "while Pause waits for that vCPU")
	release()
	require.NoError(t, <-pausing)
	require.Len(t, dumps(t, vm), 2)
}

func TestNoDumpsOfAClosedMachine(t *testing.T) {
	vm := newVM(t, config(t, forever))
	d := dumps(t, vm)
	require.NoError(t, vm.Close())
	_, err := vm.Dumps(t.Context())
	require.ErrorIs(t, err, errClosed)
	_, err = vm.ReadVirtual(&d[0], 0, make([]byte, 1))
	require.ErrorIs(t, err, errClosed)
}

// TestDumpsWhileEverythingElseHappens: Run begins and ends, and the machine is paused,
// as dumps are taken.
func TestDumpsWhileEverythingElseHappens(t *testing.T) {
	cfg := config(t, countRound)
	cfg.CPUs = 2
	vm := newVM(t, cfg)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	var all sync.WaitGroup
	all.Go(func() {
		for ctx.Err() == nil {
			short, stop := context.WithTimeout(ctx, 5*time.Millisecond)
			if _, err := vm.Run(short); err != nil {
				t.Error(err)
			}
			stop()
		}
	})
	all.Go(func() {
		for ctx.Err() == nil {
			_, _ = vm.Pause(), vm.Resume() // it may not run, or not any more
		}
	})
	for range 3 {
		all.Go(func() {
			for ctx.Err() == nil {
				d, err := vm.Dumps(context.Background())
				if err != nil || len(d) != 2 {
					t.Error(len(d), err)
				}
			}
		})
	}
	all.Wait()
}

// flat is RAM from address 0 on.
type flat []byte

func (f flat) Readable(gpa, n uint64) ([]byte, error) {
	if gpa > uint64(len(f)) || n > uint64(len(f))-gpa {
		return nil, errors.New("no RAM")
	}
	return f[gpa : gpa+n], nil
}

func TestCodeEndsWhereItsPageDoes(t *testing.T) {
	mem := make(flat, 8192)
	var ram paging.RAM = mem
	for i := range mem {
		mem[i] = byte(i)
	}
	d := &Dump{}
	d.Regs.RIP = 0x10
	require.Equal(t, []byte(mem[0x10:0x10+dumpCode]), d.code(ram))
	d.Regs.RIP = 4090
	require.Equal(t, []byte(mem[4090:4096]), d.code(ram))
	d.Sregs.CS.Base = 4096
	require.Equal(t, []byte(mem[8186:]), d.code(ram))
	d.Regs.RIP = 1 << 30
	require.Empty(t, d.code(ram))
}
