package vmm

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/devices/netdev"
	"github.com/huskvm/husk/devices/netdev/tap"
	"github.com/huskvm/husk/kvm/kvmtest"
)

// mayTap tells whether interfaces can be made here.
func mayTap() bool {
	l, err := tap.Open("husktry%d", 1, 0)
	return err == nil && l.Close() == nil
}

// TestWhoServesATap: the host's kernel where it can, and what is said where not.
func TestWhoServesATap(t *testing.T) {
	kvmtest.Need(t)
	if !mayTap() {
		t.Skip("no interface can be made here")
	}
	path := vhostPath
	defer func() { vhostPath = path }()
	const queues = 2
	try := func(v netdev.Vhost) (vm *VM, log string, err error) {
		var b bytes.Buffer
		cfg := config(t, forever)
		cfg.Log = slog.New(slog.NewTextHandler(&b, nil))
		cfg.Networks = []Network{{Options: netdev.Options{Kind: netdev.KindTap, Name: "huskvhost%d", Queues: queues, Vhost: v}}}
		vm, err = New(cfg)
		if err == nil {
			t.Cleanup(func() { require.NoError(t, vm.Close()) })
		}
		return vm, b.String(), err
	}
	const all = 2*queues + 1

	vhostPath = filepath.Join(t.TempDir(), "vhost-net")
	_, _, err := try(netdev.VhostOn)
	require.ErrorIs(t, err, ErrConfig)
	require.ErrorContains(t, err, "vhost=on")
	require.ErrorContains(t, err, vhostPath)
	require.ErrorContains(t, err, "modprobe vhost_net")
	for _, v := range []netdev.Vhost{"", netdev.VhostAuto} {
		vm, log, err := try(v)
		require.NoError(t, err)
		require.Contains(t, log, "husk serves the network's queues")
		require.Contains(t, log, "modprobe vhost_net")
		require.Equal(t, all, vm.queues)
	}

	vhostPath = path
	vm, log, err := try(netdev.VhostOff)
	require.NoError(t, err)
	require.NotContains(t, log, "queues")
	require.Equal(t, all, vm.queues)
	if _, err := os.Stat(path); err != nil {
		t.Skip(err)
	}
	for _, v := range []netdev.Vhost{netdev.VhostOn, netdev.VhostAuto} {
		before := vhostThreads(t)
		vm, log, err := try(v)
		require.NoError(t, err)
		require.Contains(t, log, "the host's kernel serves the network's queues")
		require.Equal(t, all-queues, vm.queues, "those that receive take no thread of ours")
		require.Equal(t, before+queues, vhostThreads(t))
		require.NoError(t, vm.Close())
		require.Equal(t, before, vhostThreads(t))
	}
}

func TestVhostIsForTaps(t *testing.T) {
	cfg := config(t, forever)
	for _, n := range []netdev.Options{
		{Kind: netdev.KindUser, Vhost: netdev.VhostOn}, {Kind: netdev.KindTap, Name: "t", Queues: 1, Vhost: "yes"},
	} {
		cfg.Networks = []Network{{Options: n}}
		require.ErrorIs(t, cfg.Validate(), ErrConfig)
		require.ErrorContains(t, cfg.Validate(), "vhost")
	}
}
