package boot

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/devices/disk"
	"github.com/huskvm/husk/vmm"
)

// TestDebianInTheLibrary boots the Debian with two processors and as many queues of
// its disk, in Go, and blows its balloon up and down: what the guest gives up, this
// process does not hold any more.
func TestDebianInTheLibrary(t *testing.T) {
	const mib = 1 << 20
	var out watched
	vm, err := vmm.New(vmm.Config{
		Disks:  []disk.Spec{{File: debianFile(t, "debian.raw"), Snapshot: true}},
		Memory: 1 << 30, CPUs: 2, Balloon: true, Entropy: true,
		Serial: &vmm.Serial{Out: &out},
	})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 2*deadline)
	ended := make(chan *vmm.Result, 1)
	defer func() {
		cancel()
		<-ended
		require.NoError(t, vm.Close())
	}()
	go func() {
		r, err := vm.Run(ctx)
		if err != nil {
			t.Error(err)
		}
		ended <- r
		close(ended)
	}()
	await := func(what string, f func() bool) {
		t.Helper()
		require.Eventually(t, f, deadline, 100*time.Millisecond, "%s\n%s", what, &out)
	}
	await("the login prompt", func() bool { return strings.Contains(out.String(), "login:") })
	require.Contains(t, out.String(), "virtio_blk virtio0: 2/0/0 default/read/poll queues")

	stats, err := vm.BalloonStats(ctx)
	require.NoError(t, err)
	require.NotZero(t, stats)
	require.NoError(t, vm.SetBalloon(600*mib))
	await("a full balloon", func() bool { return vm.Balloon() == 600*mib })
	require.Less(t, residentMiB(t, os.Getpid()), 1024-600+100, "the rest of its memory, and this process's own")
	require.NoError(t, vm.SetBalloon(0))
	await("an empty balloon", func() bool { return vm.Balloon() == 0 })

	require.NoError(t, vm.Pause())
	require.NoError(t, vm.Resume())
	vm.PowerButton()
	r := <-ended
	require.Equal(t, vmm.PowerOff, r.Outcome, "%s", &out)
}
