package vmm

import (
	"runtime"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestDevicesHaveProcessorsWhileGuestsRun: a vCPU in the guest does not take
// from the devices what they run on, and all is as before when it stops.
func TestDevicesHaveProcessorsWhileGuestsRun(t *testing.T) {
	before := runtime.GOMAXPROCS(0)
	const cpus = 2
	seen := 0
	vm := newVM(t, Config{
		Kernel: kernel(program(printOut("x"), out32(portDebugExit, 0))...), CPUs: cpus, DebugExit: true,
		Serial: &Serial{Out: writer(func(p []byte) (int, error) {
			seen = runtime.GOMAXPROCS(0)
			return len(p), nil
		})},
	})
	require.Equal(t, before, runtime.GOMAXPROCS(0), "a machine that does not run needs nothing")
	require.Equal(t, DebugExit, run(t, vm).Outcome)
	require.GreaterOrEqual(t, seen, before+cpus)
	require.Equal(t, before, runtime.GOMAXPROCS(0))
}

func TestProcsOfManyMachines(t *testing.T) {
	before := runtime.GOMAXPROCS(0)
	var machines sync.WaitGroup
	for i := range 20 {
		machines.Go(func() { addProcs(i); addProcs(-i) })
	}
	machines.Wait()
	require.Equal(t, before, runtime.GOMAXPROCS(0))
}

type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }
