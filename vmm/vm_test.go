package vmm

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/kvm/kvmtest"
)

// deadline ends a test whose guest does not do what it should; it is no claim
// of speed.
const deadline = time.Minute

func newVM(t *testing.T, cfg Config) *VM {
	t.Helper()
	kvmtest.Need(t)
	cfg.KVM = os.Getenv("HUSK_KVM")
	vm, err := New(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, vm.Close()) })
	return vm
}

func run(t *testing.T, vm *VM) *Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	r, err := vm.Run(ctx)
	require.NoError(t, err)
	return r
}

func TestEveryWayAGuestStops(t *testing.T) {
	for _, c := range []struct {
		name  string
		code  []byte
		want  Outcome
		value int
	}{
		{"debug-exit", out32(portDebugExit, 42), DebugExit, 42},
		{"debug-exit by a byte", out8(portDebugExit, 200), DebugExit, 200},
		{"power off by ACPI", out8(portPower, 5<<2|1<<5), PowerOff, 0},
		{"reset by ACPI", out8(portPower+2, 1), Reboot, 0},
		{"reset by the keyboard controller", out8(portI8042Command, 0xfe), Reboot, 0},
		{"pvpanic, then reset", program(out8(portPVPanic, 1), out8(portPower+2, 1)), GuestPanic, 0},
		{"pvpanic, then nothing", out8(portPVPanic, 1), GuestPanic, 0},
		{"panic told on the console only", program(printOut("[1.0] Kernel panic - not syncing: no root\r\n"), out8(portPower+2, 1)), GuestPanic, 0},
		{"panic on the console, power off", program(printOut("\nKernel panic - not syncing\n"), out8(portPower, 5<<2|1<<5)), PowerOff, 0},
		{"pvpanic tells of a shutdown", out8(portPVPanic, 4), PowerOff, 0},
		{"crash kernel takes over", program(out8(portPVPanic, 2), out8(portPower+2, 1)), Reboot, 0},
		{"triple fault", tripleFlt, TripleFault, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := config(t, c.code, forever)
			cfg.DebugExit = true
			r := run(t, newVM(t, cfg))
			require.Equal(t, c.want, r.Outcome, "%s", r)
			require.Equal(t, c.value, r.Code)
			if c.want == TripleFault {
				require.NotNil(t, r.Dump)
				require.Contains(t, r.Dump.String(), "RIP=")
				require.Contains(t, r.Dump.String(), "hint:")
				_, err := json.Marshal(r)
				require.NoError(t, err)
			} else {
				require.Nil(t, r.Dump)
			}
			if strings.HasPrefix(c.name, "panic told") {
				require.Equal(t, "Kernel panic - not syncing: no root", r.Detail)
			}
		})
	}
}

func TestDebugExitIsThereOnlyWhenAskedFor(t *testing.T) {
	r := run(t, newVM(t, config(t, out32(portDebugExit, 42), out8(portPower, 5<<2|1<<5), forever)))
	require.Equal(t, PowerOff, r.Outcome)
}

func TestConsoleIsWholeWhenRunReturns(t *testing.T) {
	const text = "The whole console is out before Run returns.\r\n"
	var out bytes.Buffer
	cfg := config(t, printOut(strings.Repeat(text, 20)), out8(portPower+2, 1), forever)
	cfg.Serial = &Serial{Out: &out}
	run(t, newVM(t, cfg))
	require.Equal(t, strings.Repeat(text, 20), out.String())
}

// full is a disk without room.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, unix.ENOSPC }

func TestAConsoleThatCannotBeWrittenIsHusksFailure(t *testing.T) {
	cfg := config(t, printOut("x"), out8(portPower+2, 1), forever)
	cfg.Serial = &Serial{Out: full{}}
	r, err := newVM(t, cfg).Run(t.Context())
	require.ErrorIs(t, err, unix.ENOSPC)
	require.Equal(t, 1, strings.Count(err.Error(), "serial port"), err.Error())
	require.Equal(t, Reboot, r.Outcome)
}

func TestACrashKernelIsLoggedOnce(t *testing.T) {
	var log bytes.Buffer
	report := out8(portPVPanic, 2)
	cfg := config(t, report, report, report, out8(portPower+2, 1), forever)
	cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
	require.Equal(t, Reboot, run(t, newVM(t, cfg)).Outcome)
	require.Equal(t, 1, strings.Count(log.String(), "crash kernel"), log.String())
}

func TestAClosedMachineIsNotUsed(t *testing.T) {
	var log bytes.Buffer
	cfg := config(t, forever)
	cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
	vm := newVM(t, cfg)
	require.NoError(t, vm.Close())
	require.NoError(t, vm.Close())
	_, err := vm.Run(t.Context())
	require.ErrorIs(t, err, errClosed)
	vm.PowerButton()
	require.Error(t, vm.Pause())
	require.Empty(t, log.String())
}

func TestConsoleInputReachesTheGuest(t *testing.T) {
	defer goleak.VerifyNone(t)
	const text = "more than one receive FIFO holds, so that some of it must wait for the guest"
	in, stdin, err := os.Pipe()
	require.NoError(t, err)
	defer in.Close()
	defer stdin.Close()
	_, err = io.WriteString(stdin, text+"and a tail that nobody reads")
	require.NoError(t, err)

	var out bytes.Buffer
	cfg := config(t, echo(byte(len(text))), out8(portPower+2, 1), forever)
	cfg.Serial = &Serial{In: in, Out: &out}
	run(t, newVM(t, cfg)) // and does not wait for more input
	require.Equal(t, text, out.String())
}

// TestManyPortsAreCountedTogether: a guest that tries every port leaves no entry
// for each behind.
func TestManyPortsAreCountedTogether(t *testing.T) {
	const ports = maxPorts + 100
	var touch []byte
	for port := range uint16(ports) {
		touch = append(touch, out8(0x1000+port, 0)...)
	}
	vm := newVM(t, config(t, touch, out8(portPower+2, 1), forever))
	run(t, vm)
	s := vm.Stats()
	require.Len(t, s.PIO, maxPorts+1)
	require.EqualValues(t, ports+1-maxPorts, s.PIO["other"].Writes)
}

func TestBreakReachesTheGuest(t *testing.T) {
	waitForBreak := []byte{
		0x66, 0xba, 0xfd, 0x03, // mov $0x3fd,%dx
		0xec, 0xa8, 0x10, 0x74, 0xfb, // 1: in (%dx),%al; test $0x10,%al (LSR.BI); jz 1b
	}
	vm := newVM(t, config(t, waitForBreak, out8(portPower+2, 1), forever))
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	sent := make(chan error, 1)
	go func() { sent <- vm.Break(ctx) }()
	require.Equal(t, Reboot, run(t, vm).Outcome)
	require.NoError(t, <-sent)
}

func TestCancelEndsABusyGuestAndItCanGoOn(t *testing.T) {
	vm := newVM(t, config(t, countRound))
	count := func() uint32 {
		b, err := vm.mem.Readable(counter, 4)
		require.NoError(t, err)
		return binary.LittleEndian.Uint32(bytes.Clone(b))
	}
	for range 3 {
		before := count()
		ctx, cancel := context.WithCancelCause(context.Background())
		cause := errors.New("the test is over")
		go func() {
			for count() < before+100 {
				time.Sleep(time.Millisecond)
			}
			cancel(cause)
		}()
		r, err := vm.Run(ctx)
		require.NoError(t, err)
		require.Equal(t, Cancelled, r.Outcome)
		require.Equal(t, cause.Error(), r.Detail)
		after := count()
		time.Sleep(10 * time.Millisecond)
		require.Equal(t, after, count(), "no vCPU runs after Run has returned")
	}
}

func TestPauseStopsAllProcessors(t *testing.T) {
	cfg := config(t, countRound)
	cfg.CPUs = 4
	vm := newVM(t, cfg)
	require.Error(t, vm.Pause(), "not running")
	require.Error(t, vm.Resume(), "not paused")

	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	var running sync.WaitGroup
	running.Go(func() {
		_, err := vm.Run(ctx)
		require.NoError(t, err)
	})
	count := func() uint32 {
		b, err := vm.mem.Readable(counter, 4)
		require.NoError(t, err)
		return binary.LittleEndian.Uint32(bytes.Clone(b))
	}
	for round := range 5 {
		before := count()
		require.Eventually(t, func() bool { return count() > before+100 }, deadline, time.Millisecond, "round %d: it runs", round)
		require.NoError(t, vm.Pause())
		require.NoError(t, vm.Pause(), "twice is harmless")
		still := count()
		time.Sleep(10 * time.Millisecond)
		require.Equal(t, still, count())
		require.ErrorIs(t, vm.Close(), errRunning)
		_, err := vm.Run(ctx)
		require.ErrorIs(t, err, errRunning)
		require.NoError(t, vm.Resume())
	}
	require.NoError(t, vm.Pause())
	cancel() // a paused machine ends too
	running.Wait()
}

func TestStatsTellWhatHappened(t *testing.T) {
	var marks [][]byte
	for range maxMarkers + 50 { // more than a guest may leave behind
		marks = append(marks, out8(portMarker, 7))
	}
	cfg := config(t, printOut("x"), program(marks...), out8(portPower+2, 1), forever)
	vm := newVM(t, cfg)
	run(t, vm)
	s := vm.Stats()
	require.EqualValues(t, len(marks)+2, s.Exits["io"])
	require.EqualValues(t, 1, s.PIO["0x3f8"].Writes)
	require.EqualValues(t, len(marks), s.PIO["0x520"].Writes)
	require.EqualValues(t, 16*mib, s.Memory.GuestRAM)
	require.Positive(t, s.Memory.GuestResident)
	require.LessOrEqual(t, s.Memory.GuestResident, s.Memory.GuestRAM)
	require.Positive(t, s.Memory.VMMResident)
	require.Positive(t, s.CPUToFirstRun)
	if len(vm.counters) > 0 {
		require.Contains(t, s.KVM, "exits")
	}

	names := map[string]int{}
	for i, m := range s.Markers {
		names[m.Name]++
		if i > 0 {
			require.GreaterOrEqual(t, m.At, s.Markers[i-1].At)
		}
	}
	require.LessOrEqual(t, len(s.Markers), maxMarkers)
	for _, name := range []string{MarkerCreated, MarkerFirstRun, MarkerFirstByte, MarkerStopped} {
		require.Equal(t, 1, names[name], name)
	}
	require.Greater(t, names["guest-7"], 200)
}

func TestEveryBackingAndSizeStarts(t *testing.T) {
	for _, c := range []Config{
		{Memory: 16 * mib, Backing: BackingTHP},
		{Memory: 64 * mib, Backing: BackingShared},
		{Memory: 5 * gib, Backing: BackingTHP, CPUs: 64},
	} {
		cfg := config(t, out8(portPower+2, 1), forever)
		cfg.Memory, cfg.Backing, cfg.CPUs = c.Memory, c.Backing, c.CPUs
		vm := newVM(t, cfg)
		require.Equal(t, Reboot, run(t, vm).Outcome)
	}
}

// TestAHostileGuestOnlyHurtsItself: every port that has something behind it, and
// its neighbours, read and written in every width; the machine is still there
// afterwards.
func TestAHostileGuestOnlyHurtsItself(t *testing.T) {
	sweep := []byte{
		0x31, 0xd2, // xor %edx,%edx
		0x66, 0x81, 0xfa, 0x00, 0x06, 0x74, 0x0e, // 1: cmp $0x600,%dx; je 2f (power off is no attack)
		0x66, 0x81, 0xfa, 0x02, 0x06, 0x74, 0x07, // cmp $0x602,%dx; je 2f
		0xec, 0x66, 0xed, 0xed, 0xee, 0x66, 0xef, // in al,ax,eax; out al,ax
		0x42,                               // 2: inc %edx
		0x81, 0xfa, 0x00, 0x08, 0x00, 0x00, // cmp $0x800,%edx
		0x75, 0xdf, // jne 1b
	}
	vm := newVM(t, config(t, sweep, out8(portPower, 5<<2|1<<5), forever))
	r := run(t, vm)
	require.Contains(t, []Outcome{PowerOff, Reboot, GuestPanic}, r.Outcome, "%s", r)
}
