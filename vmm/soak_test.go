package vmm

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/huskvm/husk/kvm"
	"github.com/huskvm/husk/kvm/kvmtest"
)

const (
	// soakMemory is large enough for no mapping of Go's own to be taken for it.
	soakMemory = 256 * mib
	// most is more than husk's own memory ever needs to be, this test's included.
	most = 256 * mib
)

// TestSoakHostileGuests runs random guests for SOAK, while the host does
// everything that it can do to a machine at random moments. Each guest is made
// from a seed, which is logged before it runs: a panic must not hide it.
// SOAK_SEED is the first seed, so that one which failed can be had again.
func TestSoakHostileGuests(t *testing.T) {
	end := time.Now().Add(kvmtest.Soak(t))
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("SOAK_SEED"); text != "" {
		var err error
		seed, err = strconv.ParseUint(text, 10, 64)
		require.NoError(t, err, "SOAK_SEED")
	}
	soakGuest(t, seed) // what Go and the kernel make once is there after this
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	before := holdings(t, soakMemory)

	outcomes := map[Outcome]int{}
	exits := uint64(0)
	guests := 0
	for ; time.Now().Before(end); guests++ {
		outcome, n := soakGuest(t, seed)
		outcomes[outcome]++
		exits += n
		require.Eventually(t, func() bool { // the kernel ends some things later
			return fmt.Sprint(before) == fmt.Sprint(holdings(t, soakMemory))
		}, deadline, 10*time.Millisecond, "SOAK_SEED=%d leaves something behind", seed)
		seed++
	}
	t.Logf("%d hostile guests, %d exits to husk, %v", guests, exits, outcomes)
	require.Positive(t, guests, "SOAK is too short for a single guest")
}

// soakGuest runs one guest, and returns how it ended and after how many exits.
func soakGuest(t *testing.T, seed uint64) (Outcome, uint64) {
	t.Helper()
	t.Logf("SOAK_SEED=%d", seed)
	random := rand.New(rand.NewPCG(seed, 0))

	// The serial port has input, for which no guest waits.
	in, typing, err := os.Pipe()
	require.NoError(t, err)
	defer in.Close()
	_, err = typing.Write(make([]byte, random.IntN(4096)))
	require.NoError(t, err)
	require.NoError(t, typing.Close())

	cfg := config(t, forever)
	cfg.Memory, cfg.DebugExit, cfg.KVM = soakMemory, true, os.Getenv("HUSK_KVM")
	cfg.CPUs = []int{1, 1, 2, 4}[random.IntN(4)]
	cfg.Serial = &Serial{In: in, Out: io.Discard}
	vm, err := New(cfg)
	require.NoError(t, err)
	a := attack{Rand: random, mapped: vm.board.pio.Ranges(), lethal: []float64{0, 0.01, 0.2}[random.IntN(3)]}
	for i, c := range vm.vcpus {
		entry := vm.entry
		entry.RIP = uint64(2*buffer + i*mib)
		_, err := vm.mem.WriteAt(a.code(1+a.IntN(1000)), int64(entry.RIP))
		require.NoError(t, err)
		require.NoError(t, start(c.kvm, entry))
		require.NoError(t, c.kvm.SetMPState(&kvm.MPState{})) // runnable: nobody sends it INIT and SIPI
	}

	length := time.Duration(random.Int64N(int64(time.Second)))
	ctx, cancel := context.WithTimeout(context.Background(), length)
	defer cancel()
	// A guest that keeps Run from returning has won.
	hang := time.AfterFunc(length+deadline, func() {
		debug.SetTraceback("all")
		panic(fmt.Sprintf("SOAK_SEED=%d: Run does not return", seed))
	})
	meddling := make(chan struct{})
	go func() {
		defer close(meddling)
		meddle(ctx, vm, rand.New(rand.NewPCG(seed, 1)))
	}()
	r, err := vm.Run(ctx)
	hang.Stop()
	cancel()
	<-meddling

	require.NoError(t, err, "SOAK_SEED=%d", seed)
	require.Contains(t, []Outcome{PowerOff, Reboot, DebugExit, GuestPanic, TripleFault, InternalError, Cancelled}, r.Outcome,
		"SOAK_SEED=%d", seed)
	if r.Outcome == InternalError { // KVM's emulator gave up: the guest's own fault, and told
		require.Contains(t, r.Detail, "suberror", "SOAK_SEED=%d", seed)
	}
	stats := vm.Stats()
	require.Less(t, stats.Memory.VMMResident, uint64(most), "SOAK_SEED=%d", seed)
	require.NoError(t, vm.Close(), "SOAK_SEED=%d", seed)
	exits := uint64(0)
	for _, n := range stats.Exits {
		exits += n
	}
	return r.Outcome, exits
}

// meddle does to a machine what its owner may do at any time, until ctx ends.
func meddle(ctx context.Context, vm *VM, random *rand.Rand) {
	for ctx.Err() == nil {
		switch random.IntN(8) {
		case 0:
			vm.PowerButton()
		case 1:
			vm.Stats()
		case 2:
			_ = vm.Pause() // it may have stopped
		default:
			_ = vm.Resume() // it may not be paused
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(random.Int64N(int64(20 * time.Millisecond)))):
		}
	}
}
