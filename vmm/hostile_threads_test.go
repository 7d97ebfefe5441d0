package vmm

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/huskvm/husk/kvm/kvmtest"
)

// TestHostileThreads is the attack without a processor between it and husk: it is
// faster than a guest, and the race detector sees it.
func TestHostileThreads(t *testing.T) {
	kvmtest.Need(t)
	hostileGuests(t, time.Now().Add(time.Second), 100*time.Millisecond, firstSeed(t, 1), hostileThreads)
}

// hostileThreads attacks the machine's buses from threads as a vCPU is one, while
// its owner runs, pauses and stops it.
func hostileThreads(t *testing.T, dir string, seed uint64, longest time.Duration) (Outcome, uint64) {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, 0))
	cfg := config(t, []byte{0xfa, 0xf4, 0xeb, 0xfd}) // cli; 1: hlt; jmp 1b
	cfg.Memory, cfg.CPUs = soakMemory, 1+random.IntN(3)
	v := newVictim(t, cfg, dir, random)

	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(random.Int64N(int64(longest))))
	defer cancel()
	var all, driving sync.WaitGroup
	var accesses atomic.Uint64
	// Who has gate for reading may touch the machine.
	var gate sync.RWMutex
	for i := range uint64(3) {
		a := v.attack(rand.New(rand.NewPCG(seed, 10+i)))
		all.Go(func() {
			for ctx.Err() == nil {
				gate.RLock()
				for _, x := range a.move() {
					v.do(x)
					accesses.Add(1)
				}
				gate.RUnlock()
			}
		})
	}
	stop := make(chan struct{})
	driving.Go(func() {
		if _, err := v.spare.useDisk(diskSize, rand.New(rand.NewPCG(seed, 2)), stop); err != nil {
			t.Errorf("SOAK_SEED=%d: the spare disk: %v", seed, err)
		}
	})
	owner := v.runs
	if random.IntN(3) == 0 {
		owner = v.pauses
	}
	all.Go(func() {
		if err := owner(ctx, &gate, rand.New(rand.NewPCG(seed, 1))); err != nil {
			t.Errorf("SOAK_SEED=%d: %v", seed, err)
		}
	})
	all.Wait()
	v.resumeVirtio(len(v.virtio)) // the spare disk's last requests
	close(stop)
	driving.Wait()
	v.end(t, seed, random)
	return Cancelled, accesses.Load()
}

// runs runs the machine again and again, and has its owner meddle.
func (v *victim) runs(ctx context.Context, gate *sync.RWMutex, random *rand.Rand) error {
	var meddling sync.WaitGroup
	failed := make(chan error, 2)
	second := rand.New(rand.NewPCG(random.Uint64(), 0))
	meddling.Go(func() { failed <- meddle(ctx, v.VM, second) })
	for ctx.Err() == nil {
		ctx, cancel := context.WithTimeout(ctx, time.Duration(random.Int64N(int64(50*time.Millisecond))))
		// A message to a local APIC may be an NMI or an INIT, for which there is no
		// code: that ends a run.
		_, err := v.Run(ctx)
		cancel()
		if err == nil && random.IntN(4) == 0 {
			err = v.rests(gate)
		}
		if err != nil {
			failed <- err
			break
		}
	}
	meddling.Wait()
	return <-failed
}

// pauses has the devices stop and go on, without a run.
func (v *victim) pauses(ctx context.Context, gate *sync.RWMutex, random *rand.Rand) error {
	for ctx.Err() == nil {
		v.resumeVirtio(len(v.virtio))
		time.Sleep(time.Duration(random.Int64N(int64(5 * time.Millisecond))))
		if err := v.pauseVirtio(); err != nil {
			return err
		}
		if err := v.rests(gate); err != nil {
			return err
		}
	}
	return nil
}

// rests checks that a machine whose devices are paused does not change its RAM.
func (v *victim) rests(gate *sync.RWMutex) error {
	gate.Lock()
	defer gate.Unlock()
	used, err := v.mem.Readable(places, 16*placeSize)
	if err != nil {
		return err
	}
	before := bytes.Clone(used)
	time.Sleep(time.Millisecond)
	if !bytes.Equal(before, used) {
		return errors.New("the devices are paused, and yet RAM changes")
	}
	return nil
}
