package smoke

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

// waits tells whether a machine must wait for the others in a room, and goes in after
// they have left.
func waits(t *testing.T, r *room, others []needs, n needs) (waited bool) {
	t.Helper()
	var leaves []func()
	for _, o := range others {
		leave, err := r.admit(t.Context(), o)
		require.NoError(t, err)
		leaves = append(leaves, leave)
	}
	entered := make(chan func())
	go func() {
		leave, err := r.admit(t.Context(), n)
		if err == nil {
			entered <- leave
		}
	}()
	synctest.Wait()
	select {
	case leave := <-entered:
		defer leave()
	default:
		waited = true
	}
	for _, leave := range leaves {
		leave()
	}
	if waited {
		(<-entered)()
	}
	return waited
}

func TestRoomFits(t *testing.T) {
	const gib = 1 << 30
	tests := map[string]struct {
		others []needs
		n      needs
		want   bool
	}{
		"jobs":             {others: []needs{{}, {}, {}, {}}, n: needs{}, want: true},
		"a job less":       {others: []needs{{}, {}, {}}, n: needs{}},
		"processors":       {others: []needs{{cpus: 3}}, n: needs{cpus: 2}, want: true},
		"processors fit":   {others: []needs{{cpus: 3}}, n: needs{cpus: 1}},
		"too many for all": {n: needs{cpus: 64, memory: 64 * gib}},
		"memory":           {others: []needs{{memory: gib}}, n: needs{memory: gib}, want: true},
		"memory fits":      {others: []needs{{memory: gib / 2}}, n: needs{memory: gib / 2}},
		"alone":            {others: []needs{{alone: []string{"tap a"}}}, n: needs{alone: []string{"port 1", "tap a"}}, want: true},
		"not the same":     {others: []needs{{alone: []string{"tap a"}}}, n: needs{alone: []string{"tap b"}}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRoom(4)
				r.cpus, r.memory = 4, 2*gib
				require.Equal(t, tt.want, waits(t, r, tt.others, tt.n))
				require.Zero(t, r.running)
				require.Zero(t, r.used.memory)
				require.Empty(t, r.alone)
			})
		})
	}
	r := newRoom(0)
	require.Positive(t, r.cpus)
	require.Zero(t, newRoom(2).cpus, "who asks for two at a time gets them")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := r.admit(ctx, needs{memory: 1, cpus: 1})
	require.ErrorIs(t, err, context.Canceled)
}

// TestAlone: machines that would take something from each other do not run at the same
// time.
func TestAlone(t *testing.T) {
	dir := t.TempDir()
	image, link := filepath.Join(dir, "image"), filepath.Join(dir, "link")
	require.NoError(t, os.WriteFile(image, nil, 0o600))
	require.NoError(t, os.Symlink(image, link))
	c := Case{
		CPUs: 2, Memory: "1G",
		Boot:  []string{"--publish=2222:22", "--publish=0.0.0.0:53:53/udp", "--publish=0:80", "--net=tap=tap0,vhost=off", "--net=tap=t%d", "--net=user", "--rng=true"},
		Disks: []string{link + ",snapshot=off", image, image + ",ro"},
	}
	require.Equal(t, needs{
		memory: 1 << 30, cpus: 2,
		alone: []string{"port 2222/tcp", "port 53/udp", "tap tap0", "disk " + image},
	}, c.needs())
}
