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
	// mostLines is how often a guest of some seconds can have one line logged: each
	// device may say it, once in a while, and a slow host makes the while a few.
	mostLines = 25
)

// TestHostileGuests is a short TestSoakHostileGuests.
func TestHostileGuests(t *testing.T) {
	kvmtest.Need(t)
	hostileGuests(t, time.Now().Add(time.Second), 100*time.Millisecond, firstSeed(t, 1), hostileGuest)
}

// TestSoakHostileGuests runs random guests for SOAK, while the host does
// everything that it can do to a machine at random moments. Each guest is made
// from a seed, which is logged before it runs: a panic must not hide it.
// SOAK_SEED is the first seed, so that one which failed can be had again.
func TestSoakHostileGuests(t *testing.T) {
	end := time.Now().Add(kvmtest.Soak(t))
	hostileGuests(t, end, time.Second, firstSeed(t, uint64(time.Now().UnixNano())), hostileGuest, hostileThreads)
}

func firstSeed(t *testing.T, seed uint64) uint64 {
	t.Helper()
	if text := os.Getenv("SOAK_SEED"); text != "" {
		var err error
		seed, err = strconv.ParseUint(text, 10, 64)
		require.NoError(t, err, "SOAK_SEED")
	}
	return seed
}

// A hostility attacks a machine for at most a time. It returns how that ended, and
// how many accesses reached husk.
type hostility func(t *testing.T, dir string, seed uint64, longest time.Duration) (Outcome, uint64)

// hostileGuests runs one of list after the other until end, a seed each, and looks
// for what they leave behind.
func hostileGuests(t *testing.T, end time.Time, longest time.Duration, seed uint64, list ...hostility) {
	t.Helper()
	dir := t.TempDir()
	run := func() (Outcome, uint64) {
		t.Logf("SOAK_SEED=%d", seed)
		return list[seed%uint64(len(list))](t, dir, seed, longest)
	}
	run() // what Go and the kernel make once is there after this
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	before := holdings(t, soakMemory)

	outcomes := map[Outcome]int{}
	accesses := uint64(0)
	guests := 0
	for ; guests == 0 || time.Now().Before(end); guests++ { // one at least, however slow the machine
		outcome, n := run()
		outcomes[outcome]++
		accesses += n
		require.Eventually(t, func() bool { // the kernel ends some things later
			return fmt.Sprint(before) == fmt.Sprint(holdings(t, soakMemory))
		}, deadline, 10*time.Millisecond, "SOAK_SEED=%d leaves something behind", seed)
		seed++
	}
	t.Logf("%d hostile guests, %d accesses, %v", guests, accesses, outcomes)
}

// hostileGuest runs a guest whose processors do nothing but attack.
func hostileGuest(t *testing.T, dir string, seed uint64, longest time.Duration) (Outcome, uint64) {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, 0))

	// The serial port has input, for which no guest waits.
	in, typing, err := os.Pipe()
	require.NoError(t, err)
	defer in.Close()
	_, err = typing.Write(make([]byte, random.IntN(4096)))
	require.NoError(t, err)
	require.NoError(t, typing.Close())

	cfg := config(t, forever)
	cfg.Memory, cfg.DebugExit = soakMemory, true
	cfg.CPUs = []int{1, 1, 2, 4}[random.IntN(4)]
	cfg.Serial = &Serial{In: in, Out: io.Discard}
	v := newVictim(t, cfg, dir, random)
	a := v.attack(random)
	a.lethal = []float64{0, 0, 0.01, 0.2}[random.IntN(4)]
	for i, c := range v.vcpus {
		entry := v.entry
		entry.RIP = uint64(2*buffer + i*maxCode)
		_, err := v.mem.WriteAt(a.code(1+a.IntN(1000)), int64(entry.RIP))
		require.NoError(t, err)
		require.NoError(t, start(c.kvm, entry))
		require.NoError(t, c.kvm.SetMPState(&kvm.MPState{})) // runnable: nobody sends it INIT and SIPI
	}

	length := time.Duration(random.Int64N(int64(longest)))
	ctx, cancel := context.WithTimeout(context.Background(), length)
	defer cancel()
	// A guest that keeps Run from returning has won.
	hang := time.AfterFunc(length+deadline, func() {
		debug.SetTraceback("all")
		panic(fmt.Sprintf("SOAK_SEED=%d: Run does not return", seed))
	})
	meddling := make(chan error, 1)
	go func() { meddling <- meddle(ctx, v.VM, rand.New(rand.NewPCG(seed, 1))) }()
	using, stop := make(chan error, 1), make(chan struct{})
	go func() {
		_, err := v.spare.useDisk(diskSize, rand.New(rand.NewPCG(seed, 2)), stop)
		using <- err
	}()
	r, err := v.Run(ctx)
	hang.Stop()
	cancel()
	require.NoError(t, <-meddling, "SOAK_SEED=%d", seed)
	v.resumeVirtio(len(v.virtio)) // its last requests
	close(stop)
	require.NoError(t, <-using, "SOAK_SEED=%d: the spare disk", seed)

	require.NoError(t, err, "SOAK_SEED=%d", seed)
	require.Contains(t, []Outcome{PowerOff, Reboot, DebugExit, GuestPanic, TripleFault, InternalError, Cancelled}, r.Outcome,
		"SOAK_SEED=%d", seed)
	if r.Outcome == InternalError { // KVM's emulator gave up: the guest's own fault, and told
		require.Contains(t, r.Detail, "suberror", "SOAK_SEED=%d", seed)
	}
	stats := v.Stats()
	v.end(t, seed, random)
	exits := uint64(0)
	for _, n := range stats.Exits {
		exits += n
	}
	require.Less(t, stats.Memory.VMMResident, uint64(most), "SOAK_SEED=%d", seed)
	return r.Outcome, exits
}

// end checks what is left of a machine on which nothing runs any more, and closes
// it, half of the time in the middle of things.
func (v *victim) end(t *testing.T, seed uint64, random *rand.Rand) {
	t.Helper()
	v.checkBARs(t, seed)
	if random.IntN(2) == 0 {
		require.NoError(t, v.recover(), "SOAK_SEED=%d", seed)
	}
	require.NoError(t, v.Close(), "SOAK_SEED=%d", seed)
	v.checkFiles(t, seed)
	n, line := v.log.most()
	require.LessOrEqual(t, n, mostLines, "SOAK_SEED=%d: a guest floods the log with %q", seed, line)
}

// meddle does to a machine what its owner may do at any time, until ctx ends.
func meddle(ctx context.Context, vm *VM, random *rand.Rand) error {
	for ctx.Err() == nil {
		switch random.IntN(8) {
		case 0:
			vm.PowerButton()
		case 1:
			vm.Stats()
		case 2:
			if err := vm.Pause(); err != nil && err.Error() != "the machine is not running" {
				return err
			}
		default:
			_ = vm.Resume() // it may not be paused
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(random.Int64N(int64(20 * time.Millisecond)))):
		}
	}
	return nil
}
