package vmm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/huskvm/husk/devices/disk"
	"github.com/huskvm/husk/devices/netdev"
	"github.com/huskvm/husk/kvm/kvmtest"
)

// holdings is what a machine takes from the host: descriptors by what they are,
// and bytes mapped by what they map. Go's own heap may grow as it likes, so of
// anonymous mappings only one as large as guest RAM counts.
func holdings(t *testing.T, ram uint64) map[string]int {
	t.Helper()
	h := map[string]int{}
	fds, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	for _, fd := range fds {
		if what, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil {
			h["fd "+what]++
		}
	}
	maps, err := os.ReadFile("/proc/self/maps")
	require.NoError(t, err)
	for _, line := range strings.Split(strings.TrimSpace(string(maps)), "\n") {
		var from, to uint64
		_, err := fmt.Sscanf(line, "%x-%x", &from, &to)
		require.NoError(t, err)
		words := strings.Fields(line)
		switch {
		case len(words) > 5 && !strings.HasPrefix(words[5], "["):
			h["map "+words[5]]++
		case to-from >= ram:
			h["RAM"]++
		}
	}
	h["vhost threads"] = vhostThreads(t)
	return h
}

// vhostThreads is how many of the host kernel's threads serve queues: kernel threads
// before Linux 6.4, and since then threads of this process.
func vhostThreads(t *testing.T) (n int) {
	t.Helper()
	for _, pattern := range []string{"/proc/[0-9]*/comm", "/proc/self/task/*/comm"} {
		all, err := filepath.Glob(pattern)
		require.NoError(t, err)
		for _, file := range all {
			if name, err := os.ReadFile(file); err == nil && strings.HasPrefix(string(name), "vhost-") {
				n++
			}
		}
	}
	return n
}

// blank is a disk with nothing on it.
func blank(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.raw")
	require.NoError(t, os.WriteFile(path, make([]byte, 1<<20), 0o600))
	return path
}

// TestAFailureAtAnyStepLeavesNothing: no descriptor, mapping or goroutine.
func TestAFailureAtAnyStepLeavesNothing(t *testing.T) {
	kvmtest.Need(t)
	injected := errors.New("injected")
	for backing, transport := range map[Backing]Transport{BackingTHP: TransportPCI, BackingShared: TransportMMIO} {
		cfg := config(t, forever)
		cfg.Memory, cfg.Backing, cfg.CPUs = gib, backing, 2
		cfg.Transport, cfg.Entropy, cfg.Balloon, cfg.Console = transport, true, true, &Serial{}
		cfg.Networks = []Network{{Options: netdev.Options{Kind: netdev.KindUser}}}
		if mayTap() {
			cfg.Networks = append(cfg.Networks, Network{Options: netdev.Options{Kind: netdev.KindTap, Name: "huskleak%d", Queues: 2}})
		}
		cfg.Vsock = &Vsock{CID: 3, Path: filepath.Join(t.TempDir(), "vsock")}
		cfg.Disks = []disk.Spec{{File: blank(t)}, {File: blank(t), Snapshot: true}}
		cfg.Shares = []Share{{Tag: "folder", Path: t.TempDir()}, {Tag: "file", Path: blank(t), ReadOnly: true}}
		cfg.KVM = os.Getenv("HUSK_KVM")

		var steps []string
		vm, err := build(cfg, func(step string) error { steps = append(steps, step); return nil })
		require.NoError(t, err)
		during := holdings(t, cfg.Memory)
		require.NoError(t, vm.Close())
		require.NoError(t, vm.Close(), "twice is harmless")
		require.Greater(t, len(steps), 8)

		runtime.GC()
		before := holdings(t, cfg.Memory)
		require.NotEqual(t, before, during, "the measure sees a machine")
		for i, step := range steps {
			t.Run(fmt.Sprintf("%s, %s", backing, step), func(t *testing.T) {
				defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
				n := 0
				_, err := build(cfg, func(string) error {
					if n++; n > i {
						return injected
					}
					return nil
				})
				require.ErrorIs(t, err, injected)
				require.Equal(t, before, holdings(t, cfg.Memory))
			})
		}
	}
}

// TestRunningLeavesNothing: a hundred machines one after the other.
func TestRunningLeavesNothing(t *testing.T) {
	kvmtest.Need(t)
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	cfg := config(t, out8(portPower+2, 1), forever)
	cfg.Memory = 256 * mib
	if mayTap() {
		cfg.Networks = []Network{{Options: netdev.Options{Kind: netdev.KindTap, Name: "huskleak%d", Queues: 2}}}
	}
	one := func() {
		vm, err := New(cfg)
		require.NoError(t, err)
		require.Equal(t, Reboot, run(t, vm).Outcome)
		require.NoError(t, vm.Close())
	}
	one()
	before := holdings(t, cfg.Memory)
	for range 100 {
		one()
	}
	require.Eventually(t, func() bool { // a netpoller descriptor may be on its way out
		return fmt.Sprint(before) == fmt.Sprint(holdings(t, cfg.Memory))
	}, deadline, 10*time.Millisecond)
}
